"""C8, P10, P11: the folder of a run belongs to one run, and a lost one is noticed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faults.sweep import build

from trainbus_checkpointing import ModelCheckpointCallback
from training import Callback, ConfigError, Trainer
from training.files import lock as locking
from training.files.holder import Holder
from training.files.lock import FolderLostError, RunLock

ELSEWHERE = Holder("elsewhere", 7, "x/1", "x/1", "0" * 32)


class Acts(Callback):
    """Does something before the save of one step."""

    before = ("checkpointing",)

    def __init__(self, at: int, act: Callable[[], object]) -> None:
        self.at, self.act = at, act

    def on_checkpoint(self, trainer: Trainer) -> None:
        if trainer.step == self.at:
            self.act()


def no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "fcntl", None)


def no_locks(monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOLCK) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


SYSTEMS = [
    pytest.param(lambda patch: None, id="the system's lock"),
    pytest.param(no_module, id="a system without the call"),
    pytest.param(no_locks, id="a file system without locks"),
    pytest.param(lambda patch: no_locks(patch, errno.ENOTSUP), id="one that refuses"),
]


@pytest.mark.parametrize("prepare", SYSTEMS)
def test_p10_a_second_run_of_one_process_is_refused_and_the_first_goes_on(
    tmp_path: Path, prepare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(monkeypatch)
    refused = []

    def second() -> None:
        with pytest.raises(ConfigError, match="in use by another run of this process"):
            build(tmp_path, lambda step: None).train()
        refused.append(True)

    first = build(tmp_path, lambda step: None, save_top_k=-1)
    first.bus.register(Acts(4, second))
    first.train()
    assert refused
    listed = json.loads((tmp_path / "manifest.json").read_text())["checkpoints"]
    assert {entry["file"] for entry in listed} == {
        p.name for p in tmp_path.glob("*.pt")
    }
    assert not (tmp_path / "run.lock").exists()
    build(tmp_path, lambda step: None).train()  # once it is over, anybody may


def test_p10_what_the_fallback_rests_on_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    no_locks(monkeypatch)
    RunLock(tmp_path / "run.lock", "save_dir").acquire()
    assert "cannot be locked (No locks available); the name in run.lock" in caplog.text


def test_p10_one_instance_serves_one_run_at_a_time(tmp_path: Path) -> None:
    shared = ModelCheckpointCallback(tmp_path / "a")

    def second() -> None:
        other = build(tmp_path / "b", lambda step: None)
        other.bus.unregister("checkpointing")
        other.bus.register(shared)
        with pytest.raises(ConfigError, match="at work in another run"):
            other.train()

    first = build(tmp_path / "c", lambda step: None)
    first.bus.unregister("checkpointing")
    first.bus.register(shared)
    first.bus.register(Acts(4, second))
    first.train()
    assert shared.last_path is not None
    assert not (tmp_path / "a" / "run.lock").exists()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="equal in all but the token"),
        pytest.param({"namespace": "x/1"}, id="on two machines with one host name"),
    ],
)
def test_p10_two_containers_with_one_host_name_and_number_exclude_each_other(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    other = replace(Holder.of_now(), **changes)
    descriptor = os.open(tmp_path / "run.lock", os.O_RDWR | os.O_CREAT)
    try:
        os.write(descriptor, other.to_bytes())
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="in use by"):
            RunLock(tmp_path / "run.lock", "save_dir", watch=0.0).acquire()
    finally:
        os.close(descriptor)


def test_p10_a_lock_that_its_holder_removes_at_that_moment_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, real, removed = RunLock(tmp_path / "run.lock", "save_dir"), RunLock._lock, []

    def late(self: RunLock, descriptor: int) -> bool:
        if not removed:
            (tmp_path / "run.lock").unlink()
            removed.append(True)
        return real(self, descriptor)

    monkeypatch.setattr(RunLock, "_lock", late)
    lock.acquire()
    assert Holder.parse((tmp_path / "run.lock").read_bytes()) == lock.holder
    lock.release()


HOLDS = """
import os, sys, time
from pathlib import Path
parent = os.getpid()
if sys.argv[2] == "late":  # the kill meets a worker that has just been forked
    os.register_at_fork(
        after_in_child=lambda: any(iter(lambda: os.getppid() != parent, True))
    )
from training.files.lock import RunLock
RunLock(Path(sys.argv[1], "run.lock"), "save_dir").acquire()
worker = os.fork()
if worker == 0:
    print(os.getpid(), flush=True)
    sys.stdin.read()  # as a loader's worker that waits for work
    os._exit(0)
if sys.argv[2] == "late":
    print(worker, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("worker_is", ["waiting", "late"])
def test_p10_a_killed_run_leaves_the_folder_at_once_though_a_worker_lives_on(
    tmp_path: Path, worker_is: str
) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path), worker_is],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    worker = int(run.stdout.readline())
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    try:
        os.kill(worker, 0)  # it is there
        lock = RunLock(tmp_path / "run.lock", "save_dir")
        lock.acquire()
        lock.release()
    finally:
        assert run.stdin is not None
        run.stdin.close()
        run.stdout.close()


TAKE_OVERS: list[Any] = [
    pytest.param(lambda path: path.write_bytes(ELSEWHERE.to_bytes()), id="in place"),
    pytest.param(
        lambda path: (
            path.with_name("new").write_bytes(ELSEWHERE.to_bytes()),
            path.with_name("new").replace(path),
        ),
        id="by another file",
    ),
    pytest.param(lambda path: path.write_bytes(b"\0" * 9), id="by we know not whom"),
]


@pytest.mark.parametrize("take", TAKE_OVERS)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plainly"),
        pytest.param({"on_save_error": "warn"}, id="where saves may fail"),
        pytest.param({"async_save": True}, id="in a thread"),
    ],
)
def test_p11_a_folder_lost_to_another_is_noticed_before_the_next_write(
    tmp_path: Path, take: Any, options: dict[str, Any]
) -> None:
    left: dict[str, bytes] = {}
    # What is in flight in a thread may still arrive, under a name of its own.
    pattern = "*[!t0-9]" if "async_save" in options else "*"

    def content() -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in tmp_path.glob(pattern)}

    def lose() -> None:
        take(tmp_path / "run.lock")
        left.update(content())

    run = build(tmp_path, lambda step: None, **options)
    run.bus.register(Acts(6, lose))
    with pytest.raises(FolderLostError, match=r"was taken over by .* stood still"):
        run.train()
    assert "manifest.json" in left
    assert content() == left


def test_p11_a_folder_lost_while_a_file_is_written_is_not_listed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = build(tmp_path, lambda step: None)
    real, before = run.save_checkpoint, []

    def suspended(path: Path) -> Path:
        done = real(path)
        if run.step == 4:
            (tmp_path / "run.lock").write_bytes(ELSEWHERE.to_bytes())
            before.append((tmp_path / "manifest.json").read_bytes())
        return done

    monkeypatch.setattr(run, "save_checkpoint", suspended)
    with pytest.raises(FolderLostError, match="process 7 on elsewhere"):
        run.train()
    assert [(tmp_path / "manifest.json").read_bytes()] == before


def test_p11_a_removed_lock_that_nobody_took_is_taken_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def second() -> None:
        with pytest.raises(ConfigError, match="in use by"):
            RunLock(tmp_path / "run.lock", "save_dir").acquire()

    run = build(tmp_path, lambda step: None)
    run.bus.register(Acts(4, (tmp_path / "run.lock").unlink), name="removes")
    run.bus.register(Acts(6, second), name="second")
    run.train()
    assert run.epoch == 4
    assert "run.lock was removed; it is there again" in caplog.text


@pytest.mark.parametrize(
    "options", [{}, {"async_save": True}], ids=["plainly", "in a thread"]
)
@pytest.mark.parametrize(
    "at", [2, 6], ids=["before the first save", "after some saves"]
)
def test_p11_a_lock_that_came_free_after_another_run_is_not_taken_again(
    tmp_path: Path, at: int, options: dict[str, Any]
) -> None:
    """Whoever stood still must not replace the list that the other run left."""
    left: dict[str, bytes] = {}

    def content() -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def another_run() -> None:
        run.plugins["checkpointing"]._saver.store.finish()  # in flight in a thread
        (tmp_path / "run.lock").unlink()
        build(tmp_path, lambda step: None, save_top_k=-1).train()
        left.update(content())

    run = build(tmp_path, lambda step: None, **options)
    run.bus.register(Acts(at, another_run))
    with pytest.raises(FolderLostError, match="was taken over by another run"):
        run.train()
    assert {"manifest.json", "last.json"} < left.keys()
    assert content() == left
    assert not (tmp_path / "run.lock").exists()


def test_p11_a_lost_lock_is_neither_touched_nor_removed(tmp_path: Path) -> None:
    path, lock = (
        tmp_path / "run.lock",
        RunLock(tmp_path / "run.lock", "save_dir", beat=0.01),
    )
    lock.acquire()
    path.write_bytes(ELSEWHERE.to_bytes())
    os.utime(path, (1, 1))
    lock._released.wait(0.1)  # ten beats
    assert path.stat().st_mtime == 1
    lock.release()
    assert Holder.parse(path.read_bytes()) == ELSEWHERE


CONTENTS = {
    "nothing": b"",
    "zeros": bytes(4096),
    "no text": b"\xff\xfe{",
    "deep": b"[" * 100_000,
    "huge": b"x" * (1 << 22),
    "a list": b"[1]",
    "null": b"null",
    "a number": b"1e999",
    "no host": b'{"pid": 1}',
    "an endless number": b'{"host": "h", "pid": Infinity}',
    "a number of 4,000 digits": b'{"host": "h", "pid": ' + b"9" * 4000 + b"}",
    "a number below zero": b'{"host": "h", "pid": -1}',
    "a truth": b'{"host": "h", "pid": true}',
    "a nested host": b'{"host": {}, "pid": 1}',
    "an escape sequence": b'{"host": "\\u001b[2J", "pid": 1}',
    "half a character": b'{"host": "\\ud800", "pid": 1}',
    "a number for a token": b'{"host": "h", "pid": 1, "started": "x/1", "token": 1}',
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_c8_a_lock_of_any_content_is_taken_over_in_printable_words(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.lock"
    path.write_bytes(content)
    lock = RunLock(tmp_path / "run.lock", "save_dir", beat=0.01, watch=0.01)
    lock.acquire()
    assert Holder.parse(path.read_bytes()) == lock.holder
    lock.release()
    assert all(record.getMessage().isprintable() for record in caplog.records)


def bind(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket has room for some hundred letters
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(os.mkfifo, id="a FIFO"),
        pytest.param(os.mkdir, id="a folder"),
        pytest.param(bind, id="a socket"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), id="a device"),
        pytest.param(lambda path: path.symlink_to("other"), id="a link"),
    ],
)
def test_c8_what_is_no_file_is_refused_and_stays(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "run.lock"
    make(path)
    with pytest.raises(ConfigError, match=r"cannot be used as the lock .*; move it"):
        build(tmp_path, lambda step: None).train()
    assert os.path.lexists(path)
    assert not (tmp_path / "other").exists()
