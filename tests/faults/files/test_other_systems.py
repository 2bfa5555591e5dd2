"""What a system lacks that is no POSIX is not used there; all else works."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from processes import python

from training import ConfigError
from training.files import holder as holding
from training.files import leftovers
from training.files import lock as locking
from training.files.holder import start_of
from training.files.lock import RunLock

#: Takes away, before anything of ours is imported, what other systems do not have.
LACKS = """
import ctypes, multiprocessing, os, signal, sys

for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGALRM", "SIGXFSZ", "pthread_sigmask"):
    delattr(signal, name)
for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "O_CLOEXEC", "fchmod",
             "pread", "pwrite"):
    delattr(os, name)

real_kill = os.kill
def kill(pid, number):
    assert number, "there it is Ctrl-C to that process"
    real_kill(pid, number)
os.kill = kill

real_open, real_init = os.open, ctypes.CDLL.__init__
def open_no_folder(path, flags, *rest, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return real_open(path, flags, *rest, **options)
def init(self, name, *rest, **options):
    if name is None:
        raise TypeError("LoadLibrary() argument 1 must be str, not None")
    real_init(self, name, *rest, **options)
os.open, ctypes.CDLL.__init__ = open_no_folder, init
"""
TRAINS = """
import training
from faults.runs import build, loader_of
from trainbus_checkpointing import ModelCheckpointCallback
from trainbus_logging import CSVLoggerCallback, ProgressBarCallback
from training.app.cli.command_line import main

def trainer(workers):
    saves = ModelCheckpointCallback("saved", monitor=None)
    others = [CSVLoggerCallback("log.csv"), ProgressBarCallback()]
    return build(saves, *others, loader=loader_of(workers=workers))

for workers in (0, 1):
    run = trainer(workers)
    run.train()
    print("steps", run.step)
run = trainer(0)
run.load_checkpoint(run.plugins["checkpointing"].resume_candidates(run)[0][0])
print("resumed at", run.step)
sys.exit(main(["plugins", "list"]))
"""


@pytest.mark.parametrize("lacks", [LACKS, "import signal, sys"], ids=["other", "POSIX"])
def test_a_plain_run_trains_saves_and_resumes_on(lacks: str, tmp_path: Path) -> None:
    os.pathsep.join(filter(None, sys.path))
    done = python("-c", f"{lacks}\n{TRAINS}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("steps 12\nsteps 12\nresumed at 12\n")
    assert len(list((tmp_path / "saved").glob("*.pt"))) > 0


def test_p10_nobody_is_asked_for_by_number_where_that_would_end_him(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There signal 0 is Ctrl-C; the touches of the lock tell who is at work."""

    def kill(pid: int, number: int) -> None:
        raise AssertionError(f"signal {number} was sent to {pid}")

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(locking, "fcntl", None)
    for module in (holding, locking, leftovers):
        monkeypatch.setattr(module, "CAN_ASK", False)
    monkeypatch.setattr(holding.os.path, "isdir", lambda path: False)  # no /proc
    assert start_of(2**22 + 1) is None
    old, new = (tmp_path / f"{name}.pt.tmp-{os.getppid()}" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    assert leftovers.sweep_leftovers(tmp_path) == [old]
    theirs = RunLock(tmp_path / "run.lock", "save_dir", beat=0.02)
    theirs.holder = replace(theirs.holder, pid=os.getppid(), started=None)
    theirs.acquire()
    locking._held.clear()  # as in another process
    with pytest.raises(ConfigError, match=f"in use by process {os.getppid()}"):
        RunLock(tmp_path / "run.lock", "save_dir").acquire()
    theirs._released.set()  # it is killed
    theirs._thread.join()  # type: ignore[union-attr]
    ours = RunLock(tmp_path / "run.lock", "save_dir", watch=0.05)
    ours.acquire()
    ours.release()
