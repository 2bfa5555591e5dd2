"""C4: what a disk may hold after a power loss, at every moment of a run.

A trace of file operations is replayed up to each operation. What was written and not
synced may be lost, wholly or in part; what was created, renamed or deleted in a folder
that was not synced since may or may not have happened, in any combination.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.operations import Operations
from faults.sweep import build, violations

#: Combinations of pending changes of a folder that are tried, at most 2 ** this.
MOST_PENDING = 6


@dataclass
class Inode:
    """Bytes that were written, and how many of them were synced."""

    content: bytearray = field(default_factory=bytearray)
    synced: int = 0

    def variants(self) -> list[bytes]:
        """Return what may be read after the loss."""
        synced = bytes(self.content[: self.synced])
        half = (self.synced + len(self.content)) // 2
        torn = {synced, bytes(self.content[:half]), bytes(self.content)}
        return sorted(torn, key=len)


class Disk:
    """A folder: what is certain, and what is pending."""

    def __init__(self) -> None:
        self.certain: dict[str, Inode] = {}
        self.seen: dict[str, Inode] = {}  # by the processes that run
        self.pending: list[tuple[str, str, Any]] = []
        self.acknowledged = 0

    def apply(self, name: str, path: str, detail: Any) -> None:
        """Do one operation of a trace."""
        if name == "acknowledged":
            self.acknowledged = int(detail)
        elif name == "open w":
            self.seen[path] = Inode()
            self.pending.append(("link", path, self.seen[path]))
        elif name == "write" and path in self.seen:
            content = detail.encode() if isinstance(detail, str) else bytes(detail)
            self.seen[path].content += content
        elif name == "fsync" and path in self.seen:
            self.seen[path].synced = len(self.seen[path].content)
        elif name == "fsync":  # of the folder
            self.certain, self.pending = dict(self.seen), []
        elif name in ("replace", "rename"):
            self.seen[detail] = self.seen.pop(path)
            self.pending.append(("rename", path, (detail, self.seen[detail])))
        elif name in ("unlink", "remove") and path in self.seen:
            del self.seen[path]
            self.pending.append(("unlink", path, None))

    def outcomes(self) -> Iterator[dict[str, bytes]]:
        """Yield every content of the folder that a power loss may leave."""
        recent = self.pending[-MOST_PENDING:]
        older = self.pending[: -len(recent)] if recent else []
        for chosen in itertools.product((False, True), repeat=len(recent)):
            names = dict(self.certain)
            done = older + [p for p, c in zip(recent, chosen, strict=True) if c]
            for kind, path, detail in done:
                if kind == "link":
                    names[path] = detail
                elif kind == "rename":
                    names.pop(path, None)
                    names[detail[0]] = detail[1]
                else:
                    names.pop(path, None)
            for pick in (0, 1, -1):
                yield {
                    path: inode.variants()[min(pick, len(inode.variants()) - 1)]
                    for path, inode in names.items()
                }


def trace(folder: Path) -> list[tuple[str, str, Any]]:
    """Run once; return every operation and acknowledgement."""
    events: list[tuple[str, str, Any]] = []

    def note(count: int, operation: str, path: str, detail: Any) -> None:
        kept = detail if isinstance(detail, (str, type(None))) else bytes(detail)
        events.append((operation, path, kept))

    with Operations(folder, note):
        build(folder, lambda step: events.append(("acknowledged", "", step))).train()
    return events


def main(place: str) -> None:
    """Replay every prefix of a trace and print what was violated."""
    logging.disable(logging.WARNING)
    folder, after = Path(place) / "run", Path(place) / "after"
    folder.mkdir()
    disk, tried, found = Disk(), set(), []
    for number, event in enumerate(trace(folder), 1):
        disk.apply(*event)
        for outcome in disk.outcomes():
            key = _key(outcome, disk.acknowledged)
            if key in tried:
                continue
            tried.add(key)
            shutil.rmtree(after, ignore_errors=True)
            after.mkdir()
            for path, content in outcome.items():
                (after / Path(path).name).write_bytes(content)
            wrong = violations(after, disk.acknowledged)
            found += [f"after operation {number}: {each}" for each in wrong]
        if len(found) > 5:
            break
    summary = {"points": len(tried), "violated": found[:20]}
    sys.stdout.write(json.dumps(summary) + "\n")


def _key(outcome: dict[str, bytes], acknowledged: int) -> str:
    parts = sorted((p, hashlib.sha1(c).hexdigest()) for p, c in outcome.items())
    return json.dumps([parts, acknowledged])


if __name__ == "__main__":
    main(*sys.argv[1:])
