"""One process fails, in every way and phase: all are gone soon, and it is said why."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from ranks import torchrun

from training.checkpoint_io import read_checkpoint

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("failing.py")
WAYS = ("raise", "kill", "exit", "hang", "full")
PHASES = ("setup", "forward", "between", "evaluate", "save", "end")
#: Seconds until all are gone, from the failure on.
GONE, GONE_AFTER_RAISE = 30.0, 10.0
#: What torchrun's report says of the one that failed.
REPORTED = {
    "raise": "OSError: broken in ",
    "kill": "exitcode  : -9",
    "exit": "exitcode  : 3",
    "hang": "time.sleep(3600)",
    "full": "CheckpointError: ",
}
#: What CI tries: each costs the start of two processes.
FEW = [
    ("raise", "forward", 1),
    ("kill", "between", 0),
    ("hang", "end", 1),
    ("full", "save", 0),
]


def all_faults() -> Iterator[tuple[str, str, int]]:
    """Yield each way, phase and rank; the disk is that of who writes."""
    for how in WAYS:
        for phase in PHASES:
            for rank in (0, 1):
                yield how, phase, rank


@dataclass
class Ended:
    """How a launch ended.

    Attributes:
        code: of torchrun.
        printed: by all.
        seconds: from the failure on; 0: nobody has failed.
        orphans: processes of it that are left.
    """

    code: int
    printed: str
    seconds: float
    orphans: list[str]


def launched(command: Sequence[str], folder: Path) -> Ended:
    """Run ``command`` to its end."""
    done = subprocess.run(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    failed = folder / "failed"
    seconds = time.time() - failed.stat().st_mtime if failed.exists() else 0.0
    return Ended(done.returncode, done.stdout, seconds, processes_of(folder))


def environment() -> dict[str, str]:
    # What is tested here, not what is installed.
    path = os.pathsep.join([str(SCRIPT.parents[1]), *filter(None, sys.path)])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of processes that name ``folder``."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        if str(folder) in line:
            lines.append(line)
    return lines


def fail(folder: Path, how: str, phase: str, rank: int, *options: str) -> Ended:
    """Launch two processes of which one fails."""
    script = (str(SCRIPT), str(folder), how, phase, str(rank))
    return launched(torchrun(2, *options, *script), folder)


def complaints(ended: Ended, folder: Path, how: str, phase: str, rank: int) -> str:
    """Return what is wrong with the end of a launch, ``""`` for nothing."""
    is_quiet = how == "full" and rank == 1  # who writes nothing needs no disk
    wrong = []
    if is_quiet:
        if ended.code:
            wrong.append(f"exit code {ended.code}")
    else:
        if not 0 < ended.seconds < (GONE_AFTER_RAISE if how == "raise" else GONE):
            wrong.append(f"took {ended.seconds:.0f} s")
        if ended.code == 0:
            wrong.append("exit code 0")
        if REPORTED[how] not in ended.printed:
            wrong.append(f"nobody says {REPORTED[how]!r}")
        first = ended.printed.rpartition("Root Cause")[2]
        # Who hangs is told by who has waited for it; a full disk is everybody's error.
        if how not in ("hang", "full") and f"rank      : {rank} " not in first:
            wrong.append("another rank is named as the root cause")
        if how == "hang" and f"rank {rank} of 2 has not come" not in ended.printed:
            wrong.append("nobody says which rank hangs")
        if how == "raise" and f"rank {rank} failed: OSError" not in ended.printed:
            wrong.append("the other one does not say whose error it was")
    if ended.orphans:
        wrong.append(f"left: {ended.orphans}")
    for path in folder.glob("[0-9]*.pt"):
        read_checkpoint(path)  # whole
    if phase != "setup" and not list(folder.glob("[0-9]*.pt")):
        wrong.append("no checkpoint is there")
    return "; ".join(wrong)


@pytest.mark.parametrize(("how", "phase", "rank"), FEW)
def test_d35_all_are_gone_and_the_first_that_failed_is_named(
    tmp_path: Path, how: str, phase: str, rank: int
) -> None:
    ended = fail(tmp_path, how, phase, rank)
    assert complaints(ended, tmp_path, how, phase, rank) == "", ended.printed[-6000:]


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_d35_every_fault_ends_well(tmp_path: Path) -> None:
    wrong, number = [], 0
    for how, phase, rank in all_faults():
        folder = tmp_path / f"{how}-{phase}-{rank}"
        folder.mkdir()
        ended = fail(folder, how, phase, rank)
        complaint = complaints(ended, folder, how, phase, rank)
        number += 1
        if complaint:
            wrong.append(f"{how} in {phase} on {rank}: {complaint}")
        told = f"{how} {phase} {rank}: {ended.seconds:.0f} s {complaint or 'good'}"
        sys.stdout.write(f"{told}\n")
    sys.stdout.write(f"{number - len(wrong)} of {number}\n")
    assert wrong == []


def undisturbed(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a run in which nobody fails."""
    folder.mkdir()
    ended = fail(folder, "raise", "nowhere", 0)
    assert ended.code == 0, ended.printed[-3000:]
    return weights(folder)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / "final.pt", weights_only=True)
    return found


@pytest.mark.parametrize(
    ("restarts", "how"),
    [(1, "kill"), pytest.param(2, "kill", marks=pytest.mark.exhaustive)],
)
def test_d38_restarted_processes_end_as_an_undisturbed_run(
    tmp_path: Path, restarts: int, how: str
) -> None:
    (broken := tmp_path / "broken").mkdir()
    script = (str(SCRIPT), str(broken), how, "between", "1", str(restarts))
    ended = launched(torchrun(2, f"--max-restarts={restarts}", *script), broken)
    assert ended.code == 0, ended.printed[-6000:]
    for number in range(1, restarts + 1):
        assert f"restart {number}: resumed " in ended.printed
    whole = undisturbed(tmp_path / "whole")
    for name, tensor in weights(broken).items():
        torch.testing.assert_close(tensor, whole[name], rtol=0.0, atol=1e-6)


def agent(
    folder: Path, port: int, *script: str, nodes: str = "2", more: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start one of two agents, as on a machine of its own."""
    options = [f"--nnodes={nodes}", "--nproc-per-node=1", "--rdzv-backend=c10d", *more]
    options += [f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=job"]
    options += ["--max-restarts=3", "--local-addr=127.0.0.1"]
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    return subprocess.Popen(
        [*launcher, *options, str(SCRIPT), str(folder), *script],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        number: int = found.getsockname()[1]
        return number


@pytest.mark.exhaustive
@pytest.mark.parametrize("lives", [0, 1], ids=["undisturbed", "a process is killed"])
def test_d36_two_agents_train_one_run(tmp_path: Path, lives: int) -> None:
    port, script = free_port(), ("kill", "between", "1", str(lives))
    agents = [agent(tmp_path, port, *script) for _ in range(2)]
    printed = [each.communicate(timeout=280)[0] for each in agents]
    assert [each.returncode for each in agents] == [0, 0], "".join(printed)[-6000:]
    assert (tmp_path / "final.pt").exists()
    assert ("restart 1: resumed " in "".join(printed)) == bool(lives)
    assert processes_of(tmp_path) == []


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_d36_when_one_agent_is_killed_the_other_goes_on_alone(tmp_path: Path) -> None:
    port, script = free_port(), ("hang", "between", "1", "1")
    agents = [
        # Who keeps the store is the one that stays.
        agent(
            *(tmp_path, port, *script),
            nodes="1:2",
            more=[f"--rdzv-conf=last_call_timeout=20,is_host={is_host}"],
        )
        for is_host in (1, 0)
    ]
    failed = tmp_path / "failed"
    while not failed.exists():  # a process of the second hangs
        assert agents[0].poll() is None
        time.sleep(0.2)
    agents[1].kill()
    os.kill(int(failed.read_text()), signal.SIGKILL)
    agents[1].communicate()
    printed = agents[0].communicate(timeout=280)[0]
    assert agents[0].returncode == 0, printed[-6000:]
    assert "restart 1: resumed " in printed
    assert "world_size was 2, is 1" in printed
    assert (tmp_path / "final.pt").exists()
    assert processes_of(tmp_path) == []
