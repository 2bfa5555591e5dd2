"""One run in a folder at a time: a lock that says who holds it, and proves alive.

A file can outlive its process, and another host cannot be asked. So the holder is
named by process, its start time and host, and touches the file every few seconds; a
lock whose holder is gone is taken over.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.checkpoint_io import write_json
from training.errors import ConfigError

try:
    import fcntl
except ImportError:  # not on every system; the name in the file is left then
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

LOCK = "run.lock"
#: Seconds between two touches, and how long a lock of another host is watched.
BEAT = 5.0
WATCH = 4 * BEAT


class RunLock:
    """The lock of one folder.

    Args:
        folder: an existing folder.
        beat: seconds between two touches.
        watch: seconds after which an untouched lock of another host is stale.
    """

    def __init__(self, folder: Path, beat: float = BEAT, watch: float = WATCH) -> None:
        self.path = folder / LOCK
        self._beat, self._watch = beat, watch
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock, also over from a holder that is gone.

        Raises:
            ConfigError: another process is at work in this folder.
        """
        with _alone(self.path.parent):
            try:
                self._create()
            except FileExistsError:
                self._take_over()
        self._released.clear()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the lock back, unless somebody took it; may be called twice."""
        if self._thread is None:
            return
        self._released.set()
        self._thread.join()
        self._thread = None
        if self._holder() == identity():
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _create(self) -> None:
        descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(identity(), file)

    def _take_over(self) -> None:
        holder = self._holder()
        if self._is_alive(holder):
            who = f"process {holder.get('pid')} on {holder.get('host')}"
            raise ConfigError(
                f"checkpointing.save_dir {str(self.path.parent)!r} is in use by {who}; "
                f"choose another folder, or delete {LOCK} in it if that is not so"
            )
        if holder.get("pid") != os.getpid():
            log.warning(
                "checkpointing: taking over %s from process %s on %s, which is gone",
                *(self.path.parent, holder.get("pid"), holder.get("host")),
            )
        write_json(self.path, identity())

    def _is_alive(self, holder: dict[str, Any]) -> bool:
        own = identity()
        if holder.get("host") == own["host"]:
            is_another = holder.get("pid") != own["pid"]
            pid, started = holder.get("pid"), holder.get("started")
            return is_another and started == start_of(pid) and started is not None
        if not holder:
            return False  # torn by a crash; the one who made it never got further
        return self._is_touched()

    def _is_touched(self) -> bool:
        """Whether another host touches the lock while it is watched."""
        log.warning("checkpointing: %s is of another host; watching it", self.path)
        before, until = self._touched(), time.monotonic() + self._watch
        while time.monotonic() < until:
            if self._touched() != before:
                return True
            time.sleep(min(0.2, self._beat))
        return False

    def _touched(self) -> int:
        try:
            return self.path.stat().st_mtime_ns
        except OSError:
            return 0

    def _keep_alive(self) -> None:
        while not self._released.wait(self._beat):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def _holder(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process of this host at a time into the block, where folders lock.

    Two that find the same stale lock would both take it over.
    """
    if fcntl is None:
        yield  # type: ignore[unreachable]
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def identity() -> dict[str, Any]:
    """Return what tells this process from all others: host, number, start."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": start_of(pid)}


def start_of(pid: object) -> str | None:
    """Return when a process of this host began, None if it is not there.

    On Linux boot and clock tick; elsewhere only that it runs.
    """
    if not isinstance(pid, int):
        return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")
        return f"{boot.strip()}/{stat.rpartition(')')[2].split()[19]}"
    except OSError:
        if os.path.isdir("/proc/self"):
            return None
    try:
        os.kill(pid, 0)  # signal 0 asks, it does not signal
    except PermissionError:
        return "running"
    except (OSError, OverflowError):
        return None
    return "running"
