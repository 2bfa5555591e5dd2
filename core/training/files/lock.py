"""One run at a time writes there: a lock of the system's, and a name in its file.

The system's lock holds between the runs of a process, processes and containers, and
ends with its holder. But some file systems have none, and some keep it to one machine.
So the file also names its holder, who touches it every few seconds: a lock of another
machine is watched before it is taken over. Whoever stood still for that long finds
another name in it, and must not write any more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from training.errors import CheckpointError, ConfigError
from training.files.holder import CAN_ASK, MOST_BYTES, Holder

try:
    import fcntl
except ImportError:  # not on every system; the name in the file is left then
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

#: Seconds between two touches, and how long a lock of another machine is watched.
BEAT = 5.0
WATCH = 4 * BEAT
#: Seconds in which a child that a killed holder had just forked closes its copy.
LINGER = 1.0
#: How often somebody may remove the file between opening and locking it.
TRIES = 10
# A link, or a FIFO that nobody writes to, is opened as what it is, not followed.
_AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class FolderLostError(CheckpointError):
    """Another run took the folder over while this one stood still."""


class RunLock:
    """The right of one run to write to a folder, or to a file.

    Each writer has a lock of its own, so that those of one run never meet.

    Args:
        path: file of the lock, in an existing folder; removed by ``release``.
        option: what the user would set to write elsewhere, such as ``csv.filename``.
        beat: seconds between two touches.
        watch: seconds after which an untouched lock of another machine is stale.
        writer: the run, and what of it writes there, as others of that run are told.
    """

    def __init__(
        self,
        path: Path,
        option: str,
        beat: float = BEAT,
        watch: float = WATCH,
        writer: tuple[object, str] | None = None,
    ) -> None:
        self.path = path
        self.writer = writer
        self.option = option
        self.holder = Holder.of_now()
        self._beat, self._watch = beat, watch
        self._descriptor: int | None = None
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock, also over from a holder that is gone.

        Raises:
            ConfigError: another run is at work there, or what has the lock's name is
                no file.
            OSError: the folder cannot be written to.
        """
        self._take()
        self._released.clear()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)
        self._thread.start()

    def confirm(self, is_as_left: Callable[[], bool] = lambda: True) -> None:
        """Make sure that this run still has it; to be called before a write.

        A lock that was removed is taken again, if nobody has it, or had it meanwhile.

        Args:
            is_as_left: whether what the lock is for is still as this run left it.
        Raises:
            FolderLostError: another run has it.
            OSError: the file cannot be read, which says nothing about it.
        """
        content = self._read()
        found = None if content is None else Holder.parse(content)
        if found == self.holder:
            return
        if content is None:
            with contextlib.suppress(ConfigError):
                self._let_go()
                self._take()
                if is_as_left():  # asked while nobody else can change it
                    log.warning("%s was removed; it is there again", self.path)
                    return
                self.path.unlink()
                self._let_go()
        raise FolderLostError(
            f"{self.option} was taken over by {found or 'another run'} while this one "
            f"stood still, as {str(self.path)!r} tells; nothing more is written there: "
            "resume the newest checkpoint with another one"
        )

    def release(self) -> None:
        """Give the lock back, unless somebody took it; may be called twice."""
        if self._thread is None:
            return
        self._released.set()
        self._thread.join()
        self._thread = None
        with contextlib.suppress(OSError):
            if self._is_ours():  # removed while it is still locked
                self.path.unlink()
        self._let_go()

    def _take(self) -> None:
        for _ in range(TRIES):
            descriptor = self._open()
            try:
                is_locked = self._lock(descriptor)
                if not self._is_at_its_place(descriptor):
                    os.close(descriptor)  # whoever had it removed it meanwhile
                    continue
                self._claim(descriptor, is_locked)
            except BaseException:
                os.close(descriptor)
                raise
            _held[self.holder.token] = self
            self._descriptor = descriptor
            return
        raise ConfigError(f"{str(self.path)!r} is removed again and again; try again")

    def _open(self) -> int:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | _AS_IT_IS, 0o644)
        except OSError as error:
            if not os.path.lexists(self.path):
                raise
            raise self._is_no_lock(error.strerror) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise self._is_no_lock("it is no regular file")
        return descriptor

    def _is_no_lock(self, why: object) -> ConfigError:
        return ConfigError(
            f"{str(self.path)!r} cannot be used as the lock of a run ({why}); move it "
            f"away, or choose another {self.option}"
        )

    def _lock(self, descriptor: int) -> bool:
        """Lock the open file; return False where the system or the folder cannot.

        ``flock`` belongs to the open file: two of one process exclude each other, as
        those of ``lockf`` do not.
        """
        if fcntl is None:
            return False  # type: ignore[unreachable]
        until = time.monotonic() + LINGER
        try:
            while not self._locks(descriptor):
                other = Holder.parse(self._read() or b"")
                if other is None or not other.is_gone or time.monotonic() > until:
                    raise self._is_in_use(other)
                time.sleep(0.01)
        except OSError as error:
            log.warning(
                "files in %s cannot be locked (%s); the name in %s alone keeps another "
                "run out",
                *(self.path.parent, error.strerror, self.path.name),
            )
            return False
        return True

    def _locks(self, descriptor: int) -> bool:
        """Lock the open file, unless another open file of it is locked."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is_at_its_place(self, descriptor: int) -> bool:
        try:
            found = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(descriptor))

    def _claim(self, descriptor: int, is_locked: bool) -> None:
        """Write our name into the file, unless the one in it is alive.

        In place: who waits for the lock waits for this very file.
        """
        content = os.read(descriptor, MOST_BYTES)
        other = Holder.parse(content)
        self.holder = replace(self.holder, file=str(os.fstat(descriptor).st_ino))
        if other is not None and self._is_alive(other, is_locked):
            raise self._is_in_use(other)
        if content and not (
            other and other.shares_pids and other.pid == self.holder.pid
        ):
            log.warning(
                "taking over %s from %s, which is gone or at work elsewhere",
                *(self.path, other or "an unknown run"),
            )
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.ftruncate(descriptor, 0)
        try:
            # Buffered: what the disk takes in part is written on, or is an error.
            with open(descriptor, "wb", closefd=False) as file:
                file.write(self.holder.to_bytes())
            os.fsync(descriptor)  # other machines shall see it
        except OSError:
            with contextlib.suppress(OSError):
                self.path.unlink()  # half a name would be taken for another run's
            raise

    def _is_in_use(self, other: Holder | None) -> ConfigError:
        if other is not None and (lock := _held.get(other.token)) is not None:
            run, name = lock.writer or (None, "")
            is_ours = self.writer is not None and run is self.writer[0]
            who = f"{name} of this run" if is_ours else str(other)
            # No word of deleting what this very process holds.
            return ConfigError(
                f"{self.option} is in use by {who} ({str(self.path)!r}); choose another"
            )
        return ConfigError(
            f"{self.option} is in use by {other or 'another run'}, which writes to "
            f"{str(self.path.parent)!r}; wait until it ends, choose another one, or "
            f"delete {str(self.path)!r} if no such run is left"
        )

    def _is_alive(self, other: Holder, is_locked: bool) -> bool:
        """Whether a named holder is at work, though we may have the system's lock."""
        if other.token in _held:
            return True
        if other.shares_pids and other.pid == self.holder.pid:
            return False
        if other.shares_pids and CAN_ASK:
            # Of a copied folder, if it should have the system's lock and has not. Where
            # such a lock may be lost and files change their numbers, a touch tells.
            is_copy = is_locked and other.file not in (None, self.holder.file)
            return other.is_running and (not is_copy or self._is_touched())
        if other.is_of_this_kernel and is_locked:
            return False  # it would have the lock
        return self._is_touched()

    def _is_touched(self) -> bool:
        """Whether another machine or process touches the lock while it is watched."""
        log.warning("%s is of another host, or a copy; watching it", self.path)
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
                if self._is_ours():
                    os.utime(self.path)

    def _is_ours(self) -> bool:
        return Holder.parse(self._read() or b"") == self.holder

    def _read(self) -> bytes | None:
        """Return the beginning of the file, opened anew; None if there is none."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | _AS_IT_IS)
        except FileNotFoundError:
            return None
        try:
            return os.read(descriptor, MOST_BYTES)
        finally:
            os.close(descriptor)

    def _let_go(self) -> None:
        """Close the file, and with it give the system's lock back."""
        _held.pop(self.holder.token, None)
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with contextlib.suppress(OSError):
            if fcntl is not None:  # for all that may share the open file
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


#: The locks that runs of this process hold, by token.
_held: dict[str | None, RunLock] = {}


def stamp_of(path: Path) -> tuple[int, int, int] | None:
    """Return what tells a file from one that another run wrote; None if it is gone."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _leave_to_the_parent() -> None:
    """Close the locks in a forked child, such as a loader's worker.

    It shares the open files, and would keep the folder from everybody once its parent
    is killed.
    """
    for lock in list(_held.values()):
        if lock._descriptor is not None:
            os.close(lock._descriptor)
        lock._descriptor = None
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
