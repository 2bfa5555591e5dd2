"""Processes that torchrun has joined, which run a test's functions one after another.

To start them costs seconds, most of them the import of torch; so they stay for all the
tests of a worker. A test of how processes end starts its own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial, reduce
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

#: Seconds that processes may take to start, and a function to return.
TO_START, TO_RETURN = 120, 120
#: Characters of what they print that an error tells; what lets them print stacks.
SHOWN, SHOW_STACKS = 3_000, signal.SIGUSR2
#: How files end into which they are printed.
STACKS = ".stacks"


def torchrun(size: int, *arguments: str) -> list[str]:
    """Return the command that starts ``size`` processes of a script or a module."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, "--nproc-per-node", str(size), *arguments]


class RankError(Exception):
    """What a function raised, as each rank that failed tells it."""


class Ranks:
    """``size`` processes of one group that run what they are told to.

    Args:
        size: how many.
        folder: for the socket and what they print.
    """

    def __init__(self, size: int, folder: Path) -> None:
        self.size, self._folder = size, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._connections: list[Connection] = []
        self._pids: list[int] = []

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return what ``function`` returns on each rank, in their order.

        Args:
            function: of a module's top level; imports nothing of a group.
            arguments: the same for all; they are pickled.
        Raises:
            RankError: it raised on some; with every traceback.
        """
        answers = self.results(function, *arguments)
        wrong = [f"rank {r}: {a}" for r, (is_ok, a) in enumerate(answers) if not is_ok]
        if wrong:
            raise RankError("\n".join(wrong))
        return [answer for _, answer in answers]

    def results(
        self, function: Callable[..., Any], *arguments: Any
    ) -> list[tuple[bool, Any]]:
        """Return (whether it returned, what it returned or its traceback) of each."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        path = sys.modules[function.__module__].__file__
        for connection in self._connections:
            connection.send((path, function.__qualname__, pickle.dumps(arguments)))
        answers = []
        for rank, connection in enumerate(self._connections):
            if not connection.poll(TO_RETURN):
                self._show_stacks()
                self.close()
                raise RankError(f"rank {rank} did not return: {self._printed()}")
            try:
                answers.append(pickle.loads(connection.recv_bytes()))
            except EOFError:
                printed = self._printed()
                self.close()
                raise RankError(f"rank {rank} is gone: {printed}") from None
        # Who failed may have left the others inside of a collective of another call;
        # where all have been refused alike they can go on.
        alike = all(not is_ok and "RuntimeError" not in told for is_ok, told in answers)
        if not alike and not all(is_ok for is_ok, _ in answers):
            self.close()
        return answers

    def close(self) -> None:
        """End them."""
        for connection in self._connections:
            connection.close()
        self._connections = []
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def _start(self) -> None:
        self.close()
        address = str(self._folder / "socket")
        for stale in (Path(address), *self._folder.glob(f"*{STACKS}")):
            stale.unlink(missing_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with Listener(address, "AF_UNIX", backlog=self.size) as listener:
            with (self._folder / "printed.txt").open("wb") as printed:
                self._process = subprocess.Popen(
                    torchrun(self.size, __file__, address),
                    env=environment,
                    stdout=printed,
                    stderr=printed,
                )
            listener._listener._socket.settimeout(TO_START)  # type: ignore[attr-defined]
            ranked = {}
            for _ in range(self.size):
                connection = listener.accept()
                rank, pid = connection.recv()
                ranked[rank] = connection, pid
        self._connections = [ranked[rank][0] for rank in range(self.size)]
        self._pids = [ranked[rank][1] for rank in range(self.size)]

    def _show_stacks(self) -> None:
        """Let each rank, and each worker it has forked, print where its threads are."""
        for pid in self._pids:
            for each in (pid, *children_of(pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, SHOW_STACKS)

    def _printed(self) -> str:
        files = [self._folder / "printed.txt", *self._folder.glob(f"*{STACKS}")]
        return "\n".join(f.read_text(errors="replace")[-SHOWN:] for f in files)


def children_of(pid: int) -> list[int]:
    """Return the processes that one has started, where the system tells."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def module_of(path: str) -> Any:
    """Return the module of that file, imported once."""
    name = Path(path).stem
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


def listen_for_stacks(address: str) -> None:
    """Write where the threads of this process are, when that is asked for."""
    faulthandler.unregister(SHOW_STACKS)
    # One each: several that write at once cannot be read.
    file = open(f"{address}-{os.getpid()}{STACKS}", "w")  # noqa: SIM115  # for good
    file.write(f"process {os.getpid()}, of {os.getppid()}:\n")
    file.flush()
    faulthandler.register(SHOW_STACKS, file, all_threads=True)


def main(address: str) -> None:
    """Be one of ``Ranks``: say the rank, and run what comes until nobody asks."""
    listen_for_stacks(address)
    os.register_at_fork(after_in_child=partial(listen_for_stacks, address))
    with Client(address, "AF_UNIX") as connection:
        connection.send((int(os.environ["RANK"]), os.getpid()))
        while True:
            try:
                path, name, pickled = connection.recv()
            except EOFError:
                return
            try:
                module = module_of(path)
                function: Any = reduce(getattr, name.split("."), module)
                answer = (True, function(*pickle.loads(pickled)))
            except BaseException:
                answer = (False, traceback.format_exc())
            # Plainly: multiprocessing would share a tensor's memory and not send it.
            connection.send_bytes(pickle.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
