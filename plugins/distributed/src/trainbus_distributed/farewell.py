"""What ended the run of a process, told to the others before it leaves.

A process that fails puts its words into the store that torchrun keeps. One that only
notices that another is gone looks there, and leaves with that one's words.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import Any

import torch.distributed as dist

from trainbus_distributed.lines import LineError
from trainbus_distributed.waiting import OutOfStepError, Waiting
from training import TrainbusError

#: The words of the first that failed: the others follow from it.
FIRST = "failure"
#: How many have waited for another one until it was too late; and that a rank has.
GAVE_UP = "gave_up"
#: Seconds that who has lost another waits for its words, and between two looks.
TO_HEAR, BETWEEN = 5.0, 0.1
#: Seconds by which others leave later: torchrun takes the first for the cause, and
#: counts in whole ones.
LATER = 1.2
#: Seconds that who fails gives the others to fail alike, of what they have agreed on.
ALIKE = 2.0
#: Ranks that an error names at most.
SHOWN = 8
#: What stands in words of torch where another process is gone, or has not come.
LOST = ("gloo", "nccl", "c10d", "processgroup")
LATE = ("timed out", "timeout")


class PeerFailedError(TrainbusError):
    """Another process of the run failed, so this one ends, too."""


class Farewell:
    """The last words of the processes of a group.

    Args:
        store: shared by them.
        rank: of this one.
        size: how many they are.
        timeout: seconds that each waits for the others.
        hang_up: closes the connections to them.
    """

    _current: Farewell | None = None  # of the group that was joined last
    _parted: str | None = None  # for good; why
    _deciding: threading.Thread | None = None  # finds out whether to part

    def __init__(
        self,
        store: Any,
        rank: int,
        size: int,
        timeout: float,
        hang_up: Callable[[], None],
    ) -> None:
        self._store, self._rank, self._size = store, rank, size
        self._timeout, self._hang_up = timeout, hang_up
        self._is_leaving = False

    @classmethod
    def require_joined(cls) -> None:
        """Refuse to go on in a process that has left the others.

        Raises:
            PeerFailedError: it has; says for which failure.
        """
        if cls._deciding is not None:
            cls._deciding.join()
        if cls._parted is not None:
            raise PeerFailedError(
                f"the processes of this run have parted ({cls._parted}), so nothing "
                "can be computed together any more; end this one, and start all anew"
            )

    @classmethod
    def is_said(cls) -> bool:
        """Whether this process leaves for a failure, its own or that of another."""
        return cls._current is not None and cls._current._is_leaving

    def explained(self, error: BaseException, call: str = "") -> BaseException:
        """Return what is to be raised for ``error``, and tell the others of that.

        It is ``error`` itself, or where that says that another process is gone, what
        that one has told.

        Args:
            error: raised in this process.
            call: of a script, outside of a run, that all of them must make.
        """
        self._is_leaving = True
        if isinstance(error, PeerFailedError):
            return error
        said = lost_words(error)
        if said is not None and Farewell._parted is not None:
            return PeerFailedError(Farewell._parted)
        if said is not None:
            is_late = any(word in said.lower() for word in LATE)
            late = self._late() if is_late else []
            told = self._heard(0.0 if is_late else TO_HEAR)
            if told is not None and told["rank"] != self._rank:
                time.sleep(LATER)
                return peer_error(told, self._rank)
            error = self._unexplained(said, is_late, late, call)
        note = f"on rank {self._rank} of {self._size}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        self._tell(error)
        return error

    def part(self, error: BaseException) -> None:
        """Leave the others for good, unless all of them fail alike.

        A process may live on after its error; nobody shall wait for it. Where all have
        failed at the same place they are in step, and may begin another run. That is
        found out in a thread: a process that ends is not to wait for it.

        Args:
            error: as ``explained`` returned it.
        """
        if Farewell._parted is not None:
            return
        said = sentence(error)
        if not isinstance(error, PeerFailedError):
            said = f"rank {self._rank} failed: {said}"
        if isinstance(error, (PeerFailedError, OutOfStepError)):
            self._leave(said)
            return
        key = f"failed/{Waiting.number}"  # after as many calls
        try:
            self._store.add(key, 1)
        except Exception:  # gone, with the node that kept it
            self._leave(said)
            return
        Farewell._deciding = threading.Thread(target=self._decide, args=(key, said))
        Farewell._deciding.start()

    def _decide(self, key: str, said: str) -> None:
        """Leave, unless the others fail soon, too."""
        until, left = time.monotonic() + ALIKE, f"{key}/left"
        with contextlib.suppress(Exception):  # as above
            while time.monotonic() < until and not self._store.check([left]):
                if self._store.add(key, 0) >= self._size:
                    self._forget()
                    return
                if not threading.main_thread().is_alive():
                    return  # the process ends, which closes all connections
                time.sleep(BETWEEN)
            self._store.set(left, "1")  # who fails alike, but later, leaves as well
        self._leave(said)

    def _leave(self, said: str) -> None:
        Farewell._parted = said
        self._hang_up()

    def _forget(self) -> None:
        """Unsay what was told: all know it, and may begin another run."""
        self._is_leaving = False
        with contextlib.suppress(Exception):  # as above
            self._store.delete_key(FIRST)

    def listen(self) -> None:
        """Leave on SIGTERM where another has failed: nothing can be saved any more.

        torchrun sends it to those that are left. One that waits for the others has
        seen it already; one that hangs, or computes for long, has not.
        """
        is_first, Farewell._current = Farewell._current is None, self
        if is_first and threading.current_thread() is threading.main_thread():
            former = signal.getsignal(signal.SIGTERM)
            if former != signal.SIG_IGN:
                signal.signal(signal.SIGTERM, partial(_on_term, former))

    def raise_heard(self) -> None:
        """Raise what another has failed of, unless this one leaves already."""
        told = None if self._is_leaving else self._heard(0.0)
        if told is not None:
            self._is_leaving = True
            raise peer_error(told, self._rank)

    def _tell(self, error: BaseException) -> None:
        words = {
            "rank": self._rank,
            "error": sentence(error),
            "exit_code": getattr(error, "exit_code", 1),
            "traceback": "".join(traceback.format_exception(error)),
        }
        # Gone, perhaps, with the node that kept it; the connection is, too.
        with contextlib.suppress(Exception):
            self._store.compare_set(FIRST, "", json.dumps(words))

    def _heard(self, seconds: float) -> dict[str, Any] | None:
        """Return the words of the first that failed, once there are any."""
        until = time.monotonic() + seconds
        try:
            while not self._store.check([FIRST]):
                if time.monotonic() >= until:
                    return None
                time.sleep(BETWEEN)
            words: dict[str, Any] = json.loads(self._store.get(FIRST))
        except Exception:  # as above
            return None
        return words

    def _late(self) -> list[int]:
        """Return the ranks that have not given up, among which is who does not come.

        Others began to wait later, so they are given some time. One is left then, if
        one alone hangs.
        """
        until = time.monotonic() + TO_HEAR
        try:
            self._store.set(f"{GAVE_UP}/{self._rank}", "1")
            number = self._store.add(GAVE_UP, 1)
            while number < self._size - 1 and not self._store.check([FIRST]):
                if time.monotonic() >= until:
                    break
                time.sleep(BETWEEN)
                number = self._store.add(GAVE_UP, 0)
            ranks = range(self._size)
            return [r for r in ranks if not self._store.check([f"{GAVE_UP}/{r}"])]
        except Exception:  # as above
            return []

    def _unexplained(
        self, said: str, is_late: bool, late: list[int], call: str
    ) -> PeerFailedError:
        who = "another process of the run"
        if late:
            who = "one of " * (len(late) > 1) + shown_ranks(late, self._size)
        has_not_come = f"{who} has not come for {self._timeout:g} s"
        has_not_come += " (distributed.timeout)"
        if call:
            gone = "another one has ended without it, or was killed"
            return PeerFailedError(
                f"{call} waits for all processes of the run, and "
                f"{has_not_come if is_late else gone}; call it in all of them, not "
                f"only 'if trainer.is_main' ({said})"
            )
        if is_late:
            return PeerFailedError(f"{has_not_come}: it hangs, or is gone ({said})")
        return PeerFailedError(
            "another process of the run is gone without a word: killed, its machine is "
            "lost, or it has ended and does not make this call; the launcher says "
            f"which ({said})"
        )


def shown_ranks(ranks: Sequence[int], size: int) -> str:
    """Return ``ranks`` of ``size`` processes in words; at least one."""
    shown = ", ".join(map(str, ranks[:SHOWN])) + ", ..." * (len(ranks) > SHOWN)
    return f"rank{'s' if len(ranks) > 1 else ''} {shown} of {size}"


def sentence(error: BaseException) -> str:
    """Return what is told of ``error``."""
    text = str(error)
    return (
        text if isinstance(error, TrainbusError) else f"{type(error).__name__}: {text}"
    )


def first_line(error: BaseException) -> str:
    """Return what ``error`` says before the frames of torch."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _on_term(former: Any, number: int, frame: FrameType | None) -> None:
    if Farewell._current is not None:
        Farewell._current.raise_heard()
    if callable(former):
        former(number, frame)
        return
    handler = signal.getsignal(number)
    if isinstance(handler, partial) and handler.func is _on_term:
        signal.signal(number, signal.SIG_DFL)  # no run listens: as if nobody did
        os.kill(os.getpid(), number)


def peer_error(told: dict[str, Any], rank: int) -> PeerFailedError:
    """Return what a process raises that leaves for the failure of another one."""
    error = PeerFailedError(f"rank {told['rank']} failed: {told['error']}")
    error.exit_code = told["exit_code"]
    if rank == 0:  # what a person reads first; once is enough
        error.add_note(f"on rank {told['rank']}:\n{told['traceback']}")
    return error


def lost_words(error: BaseException) -> str | None:
    """Return what was said of a lost process; None: ``error`` tells of another thing.

    It may stand behind an error of a plugin, say, that tells what it was doing.
    """
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        text = str(cause).lower()
        is_ours = isinstance(cause, (LineError, dist.DistError))
        is_of_torch = isinstance(cause, RuntimeError)  # and may be anybody's
        if is_ours or (is_of_torch and any(word in text for word in LOST)):
            return first_line(cause)
        cause = cause.__cause__ or cause.__context__
    return None
