"""Who holds a lock: one run of one process, named so that others can tell if it lives.

A process number alone says little: numbers are used again, and two containers may have
the same host name and number. So it comes with when the process began and where its
number counts, and each run has a random token of its own.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import uuid
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

#: Bytes of a lock that are looked at; ours have some 300.
MOST_BYTES = 4096
MOST_LETTERS = 255
#: Whether signal 0 asks if a process is there; on Windows it would be Ctrl-C to it.
CAN_ASK = os.name != "nt"
#: What /proc calls a process that has ended and that its parent has not waited for.
ENDED = ("Z", "X")


@dataclass(frozen=True, slots=True)
class Holder:
    """One run at work.

    Attributes:
        host: name of its machine.
        pid: number of its process.
        started: what tells that process from a later one of its number; None if that
            is not known.
        namespace: where the number counts, ``<kernel>/<space>``; None in the locks of
            releases that did not say.
        token: random; None in the locks of releases that had none.
        file: inode of the lock that it wrote itself into, by which that is told from a
            copy; None in the locks of releases that did not say.
    """

    host: str
    pid: int
    started: str | None = None
    namespace: str | None = None
    token: str | None = None
    file: str | None = None

    @classmethod
    def of_now(cls) -> Holder:
        """Return a new run of this process."""
        pid, token = os.getpid(), uuid.uuid4().hex
        return cls(socket.gethostname(), pid, start_of(pid), _namespace(), token)

    @classmethod
    def parse(cls, content: bytes) -> Holder | None:
        """Return the one that a lock names; None for whatever else it may hold."""
        try:
            values = json.loads(content)
            return cls(**_checked({f.name: values.get(f.name) for f in fields(cls)}))
        except (ValueError, AttributeError, RecursionError):
            return None

    def to_bytes(self) -> bytes:
        """Return what ``parse`` reads."""
        return json.dumps(asdict(self)).encode()

    def __str__(self) -> str:
        if self.pid == os.getpid() and self.shares_pids:
            return "another run of this process"
        return f"process {self.pid} on {self.host}"

    @property
    def is_of_this_kernel(self) -> bool:
        """Whether it runs on this machine, be it in another container."""
        return self._kernel == _kernel()

    @property
    def shares_pids(self) -> bool:
        """Whether its process number counts here, too."""
        here = _namespace()
        return self.is_of_this_kernel and (self.namespace or here) == here

    @property
    def is_running(self) -> bool:
        """Whether that very process is there; says something only if it is near."""
        return self.started is not None and self.started == start_of(self.pid)

    @property
    def is_gone(self) -> bool:
        """Whether it is known to have ended."""
        return self.shares_pids and CAN_ASK and not self.is_running

    @property
    def _kernel(self) -> str:
        for told in (self.namespace, self.started):
            if told and "/" in told:
                return told.partition("/")[0]
        return self.host


def start_of(pid: int) -> str | None:
    """Return when a process of this machine began, None if it is gone or has ended.

    On Linux boot and clock tick; elsewhere only that it runs, on Windows nothing.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        state, *fields = stat.rpartition(")")[2].split()
        # Of the main thread alone while others are at work: it says nothing of them.
        is_over = state in ENDED and int(fields[16]) < 2
        return None if is_over else f"{_kernel()}/{fields[18]}"
    except OSError:
        if os.path.isdir("/proc/self"):
            return None
    if not CAN_ASK:
        return None
    try:
        os.kill(pid, 0)  # signal 0 asks, it does not signal
    except PermissionError:
        return "running"
    except (OSError, OverflowError):
        return None
    return "running"


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    """Return ``values``; ValueError unless they are texts that can be shown."""
    pid = values["pid"]
    if type(pid) is not int or not 0 < pid <= sys.maxsize:
        raise ValueError("pid")
    for name, value in values.items():
        may_be_missing = value is None and name != "host"
        if name == "pid" or may_be_missing:
            continue
        if not isinstance(value, str) or len(value) > MOST_LETTERS:
            raise ValueError(name)
        if not value.isprintable():
            raise ValueError(name)
    return values


def _kernel() -> str:
    """Return what tells this boot of this machine from all others, if anything does."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")
        return boot.strip()
    except OSError:
        return socket.gethostname()


def _namespace() -> str:
    """Return where process numbers count: containers have numbers of their own."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = 0
    return f"{_kernel()}/{space}"
