"""Rows of a source that is no file of lines: turned into one once, then read from it.

The lines are kept in the user's cache folder, under a name made of the sources' paths,
sizes and times and of the options. Processes that make them at once write the same
bytes, stamped alike, so that each may replace the other's. What was used longest ago
is deleted where all are more than ``MOST_KEPT_BYTES``, but nothing that is in use.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from trainbus_data.readers.row_lines import RowLines
from trainbus_data.rows.cache import (
    InUse,
    cache_folder,
    delete,
    make_room,
    was_used,
)
from trainbus_data.rows.json_lines import MAX_LINE_BYTES, UnusableRow
from trainbus_data.rows.line_index import LineIndex
from trainbus_data.unreadable import or_data_error
from training.errors import DataError
from training.files.durable import write_durably

__all__ = ["Item", "KeptRows"]

logger = logging.getLogger(__name__)

#: Of the lines; another number makes them anew.
VERSION = 1
#: That the rows of all sources may have: VQA v2 takes a hundredth of it.
MOST_KEPT_BYTES = 10 << 30
#: Rows that are kept in mind as unusable.
MAX_FAULTY = 1000
#: Where the last line is looked for; it holds at most ``MAX_FAULTY`` numbers.
TAIL_BYTES = 1 << 14

#: Where a row was written, behind the name of its file, and the row or why it is none.
Item = tuple[str, dict[str, Any] | UnusableRow]


class KeptRows(RowLines):
    """Rows that ``read`` gives, in lines ``[place, row]`` or ``[place, reason]``.

    Args:
        path: what the user named; ``place`` is ``<path>:<place>``.
        sources: files and folders whose change makes the lines anew.
        options: whatever else the rows depend on, the reader's name included.
        read: gives the rows, in order; called only if they are not kept yet.
    Raises:
        DataError: a source cannot be read, there is no row, or the lines cannot be
            written.
    """

    def __init__(
        self,
        path: Path,
        sources: Sequence[Path],
        options: Mapping[str, Any],
        read: Callable[[], Iterable[Item]],
    ) -> None:
        stamps = [_stamp(source) for source in sources]
        key = json.dumps([VERSION, options, stamps], sort_keys=True)
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        kept = cache_folder("rows") / f"{name}.lines"
        self._mark = InUse(kept)  # before looking, so that what is found stays
        end = _end_of(kept)
        if end is None:
            logger.info("reading %s once; its rows are kept in %s", path, kept)
            _keep(kept, read(), max(stamp[-1] for stamp in stamps))
            if [_stamp(source) for source in sources] != stamps:
                kept.unlink(missing_ok=True)
                raise DataError(f"{path} has changed while it was read; start again")
            end = _end_of(kept) or {"rows": 0}
            make_room(kept.parent, MOST_KEPT_BYTES, delete)
        was_used(kept)
        if not end["rows"]:
            raise DataError(f"{path} holds no rows")
        super().__init__(path, LineIndex(kept), end["rows"])
        self.faulty = tuple(end["faulty"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a row, or raise as ``RowLines`` does."""
        _, row = self._read(index)
        if isinstance(row, str):
            raise UnusableRow(row)
        return row

    def place(self, index: int) -> str:
        """Return where a row was written, as in ``rows.csv:17``."""
        return f"{self.path}:{self._read(index)[0]}"

    def _read(self, index: int) -> tuple[str, dict[str, Any] | str]:
        raw = self._lines.read(self._line(index))
        place, row = json.loads(raw.decode("utf-8", "surrogatepass"))
        return place, row


def _stamp(path: Path) -> tuple[str, int, int]:
    """Return (path, bytes, time of the last change in ns)."""
    with or_data_error(path):
        found = os.stat(path)
    return str(path.resolve()), found.st_size, found.st_mtime_ns


def _end_of(kept: Path) -> dict[str, Any] | None:
    """Return what the last line of kept rows tells; None: there are none that hold."""
    try:
        with kept.open("rb") as file:
            file.seek(-min(TAIL_BYTES, os.fstat(file.fileno()).st_size), os.SEEK_END)
            end: dict[str, Any] = json.loads(file.read().splitlines()[-1])
            return {"rows": end["rows"], "faulty": end["faulty"]}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:  # no such end
        logger.warning("the rows kept in %s cannot be read (%s) and are made anew",
                       kept, error)  # fmt: skip
        return None


def _keep(kept: Path, items: Iterable[Item], time_ns: int) -> None:
    """Write the lines, stamped with a time that is the same whoever writes them."""

    def write(file: IO[bytes]) -> None:
        file.writelines(_lines_of(items))
        file.flush()
        os.utime(file.name, ns=(time_ns, time_ns))

    try:
        write_durably(kept, write)
    except OSError as error:
        raise DataError(
            f"the rows cannot be kept in {kept.parent}: {error.strerror}; set "
            "XDG_CACHE_HOME to a folder with room that can be written"
        ) from error


def _lines_of(items: Iterable[Item]) -> Iterator[bytes]:
    dump = json.JSONEncoder(ensure_ascii=False).encode
    faulty: list[int] = []
    number = -1
    for number, (place, row) in enumerate(items):
        value: Any = str(row) if isinstance(row, UnusableRow) else row
        line = dump([place, value]).encode("utf-8", "surrogatepass")
        if len(line) > MAX_LINE_BYTES:
            value = f"is longer than {MAX_LINE_BYTES} bytes"
            line = dump([place, value]).encode("utf-8", "surrogatepass")
        if isinstance(value, str) and len(faulty) < MAX_FAULTY:
            faulty.append(number)
        yield line + b"\n"
    yield dump({"rows": number + 1, "faulty": faulty}).encode() + b"\n"
