"""C8: one run at a time writes into a folder, and a stale lock is taken over."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faults.endless_run import training
from faults.sweep import build

from training import ConfigError
from training.files.holder import Holder, start_of
from training.files.leftovers import sweep_leftovers
from training.files.lock import RunLock

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
def test_c8_a_second_process_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    first = training(tmp_path)
    try:
        assert first.stdout.readline()
        before = set(tmp_path.glob("*.pt"))
        with pytest.raises(ConfigError, match=rf"in use by process {first.pid}"):
            build(tmp_path, lambda step: None).train()
        assert before
    finally:
        first.kill()
        first.communicate()
    again = build(tmp_path, lambda step: None)
    again.train()
    assert again.epoch == 4, "the lock of a dead process is taken over"
    assert not (tmp_path / "run.lock").exists()


def holder(folder: Path, **changes: Any) -> RunLock:
    """Write a lock as another process would have left it; return ours."""
    left = replace(Holder.of_now(), **changes)
    (folder / "run.lock").write_bytes(left.to_bytes())
    return RunLock(folder / "run.lock", "save_dir", beat=0.05, watch=0.3)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"pid": 2**22 + 1}, id="a process that is gone"),
        pytest.param({"pid": os.getppid(), "started": "x"}, id="its number used again"),
        pytest.param(
            {"host": "elsewhere", "namespace": "x/1"}, id="another host that is silent"
        ),
        pytest.param(
            {"host": "elsewhere", "namespace": None, "started": "x/1", "token": None},
            id="another host, in the words of an earlier release",
        ),
    ],
)
def test_c8_a_stale_lock_is_taken_over_with_a_warning(
    tmp_path: Path, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    lock = holder(tmp_path, **changes)
    lock.acquire()
    assert "taking over" in caplog.text or "watching" in caplog.text
    assert Holder.parse((tmp_path / "run.lock").read_bytes()) == lock.holder
    lock.release()
    assert not (tmp_path / "run.lock").exists()


@linux
def test_c8_a_killed_process_that_nobody_waits_for_holds_nothing(
    tmp_path: Path,
) -> None:
    """As in a container whose first process waits for no other."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as process:
        lock = holder(tmp_path, pid=process.pid, started=start_of(process.pid))
        half = tmp_path / f"a.pt.tmp-{process.pid}"
        half.write_bytes(b"half")
        with pytest.raises(ConfigError, match=f"in use by process {process.pid}"):
            lock.acquire()
        assert sweep_leftovers(tmp_path) == []
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays listed
        lock.acquire()
        lock.release()
        assert sweep_leftovers(tmp_path) == [half]


MAIN_ENDS = """
import ctypes, threading

threading.Thread(target=input).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@linux
def test_c8_a_process_whose_main_thread_alone_has_ended_is_at_work(
    tmp_path: Path,
) -> None:
    with subprocess.Popen([sys.executable, "-c", MAIN_ENDS], stdin=-1) as process:
        stat = Path(f"/proc/{process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "Z":
            os.sched_yield()
        lock = holder(tmp_path, pid=process.pid, started=start_of(process.pid))
        half = tmp_path / f"a.pt.tmp-{process.pid}"
        half.write_bytes(b"half")
        with pytest.raises(ConfigError, match=f"in use by process {process.pid}"):
            lock.acquire()
        assert sweep_leftovers(tmp_path) == []
        process.kill()


def test_c8_the_name_alone_refuses_where_nothing_can_be_locked(tmp_path: Path) -> None:
    parent = os.getppid()
    lock = holder(tmp_path, pid=parent, started=start_of(parent))
    with pytest.raises(ConfigError, match=f"in use by process {parent}"):
        lock.acquire()


def test_c8_a_copy_of_a_lock_is_taken_over_though_its_holder_is_at_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parent, path = os.getppid(), tmp_path / "run.lock"
    path.touch()
    number = str(path.stat().st_ino)
    first = holder(tmp_path, pid=parent, started=start_of(parent), file=number)
    with pytest.raises(ConfigError, match=f"in use by process {parent}"):
        first.acquire()
    (tmp_path / "copy").mkdir()
    copied = Path(shutil.copy(path, tmp_path / "copy"))
    second = RunLock(copied, "save_dir", beat=0.05, watch=0.3)
    second.acquire()
    assert "or a copy; watching it" in caplog.text
    assert Holder.parse(copied.read_bytes()) == second.holder
    second.release()


def test_c8_a_lock_that_another_host_touches_is_respected(tmp_path: Path) -> None:
    ours = holder(tmp_path, host="elsewhere", pid=1, namespace="x/1")
    theirs = RunLock(tmp_path / "run.lock", "save_dir", beat=0.02)
    theirs.holder = Holder.parse((tmp_path / "run.lock").read_bytes())
    heart = threading.Thread(target=theirs._keep_alive, daemon=True)
    heart.start()
    try:
        with pytest.raises(ConfigError, match="in use by process 1 on elsewhere"):
            ours.acquire()
    finally:
        theirs._released.set()
        heart.join()


def test_c8_one_process_at_a_time_looks_whether_a_lock_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, real, refused = holder(tmp_path, pid=2**22 + 1), RunLock._is_alive, []

    def looks(self: RunLock, *of: Any) -> bool:
        descriptor = os.open(tmp_path / "run.lock", os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refused.append(descriptor)
        finally:
            os.close(descriptor)
        return real(self, *of)

    monkeypatch.setattr(RunLock, "_is_alive", looks)
    lock.acquire()
    assert refused, "another one would have waited"
    monkeypatch.undo()
    lock.release()


@contextmanager
def room(size: int) -> Iterator[None]:
    """Let files have so many bytes, as where a disk is full."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("size", [0, 100], ids=["not at all", "in part"])
def test_c8_a_lock_that_cannot_be_written_is_no_other_run_s(
    tmp_path: Path, size: int
) -> None:
    lock = RunLock(tmp_path / "run.lock", "save_dir")
    with room(size), pytest.raises(OSError, match="File too large"):
        lock.acquire()
    assert not lock.path.exists()
    lock.acquire()
    lock.path.unlink()  # by somebody who tidies up
    with room(size), pytest.raises(OSError, match="File too large"):
        lock.confirm()
    lock.confirm()
    lock.release()
