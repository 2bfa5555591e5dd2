"""Find any line of a large text file at once, in eight bytes a line.

The index is built in one pass that only looks for line ends, about as fast as the file
can be read, and kept in the user's cache folder for the next time.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainbus_data.rows.cache import cache_folder, make_room, was_used
from trainbus_data.rows.json_lines import MAX_LINE_BYTES
from trainbus_data.unreadable import or_data_error
from training.errors import DataError
from training.files.durable import write_durably
from training.files.named_paths import open_file

__all__ = ["LineIndex"]

logger = logging.getLogger(__name__)

BLOCK_BYTES = 16 << 20
#: A line is blank if it is at most this long and holds nothing but white space.
MAX_BLANK_BYTES = 16
#: That all kept indices may have: a hundred million lines.
MOST_KEPT_BYTES = 1 << 30
BOM = b"\xef\xbb\xbf"

Offsets = npt.NDArray[np.int64]


class LineIndex:
    r"""The lines of a file that are not blank, by number from 0.

    Args:
        path: only ``\n`` ends a line; a byte order mark is left out. The file must not
            change while the index is used.
    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._stamp = _stamp(path)
        kept = cache_folder("lines") / f"{_digest(path, self._stamp)}.npz"
        self._starts, self._blanks = _load(kept) or _build(path, kept)

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def num_bytes(self) -> int:
        """Bytes of the file."""
        return self._stamp[0]

    def number_of(self, index: int) -> int:
        """Return the line's number in the file, from 1, every line counted."""
        start = self._starts[index]
        return index + 1 + int(np.searchsorted(self._blanks, start))

    def read(self, index: int) -> bytes:
        """Return the line without its end; at most ``MAX_LINE_BYTES`` + 1 bytes.

        Raises:
            DataError: the file has changed since it was indexed.
        """
        start = int(self._starts[index])
        is_last = index + 1 == len(self._starts)
        end = self._stamp[0] if is_last else int(self._starts[index + 1])
        size = min(end - start, MAX_LINE_BYTES + 2)
        raw = os.pread(self._opened(), size, start)
        return raw.partition(b"\n")[0]

    def _opened(self) -> int:
        if self._file is None:
            if _stamp(self.path) != self._stamp:
                raise DataError(
                    f"{self.path} has changed since it was indexed; start the run again"
                )
            self._file = os.open(self.path, os.O_RDONLY)
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}  # another process opens its own

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]


def _stamp(path: Path) -> tuple[int, int]:
    """Return (bytes, time of the last change in ns)."""
    with or_data_error(path), open_file(path) as file:
        found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def _digest(path: Path, stamp: tuple[int, int]) -> str:
    return hashlib.sha256(f"{path.resolve()}:{stamp}".encode()).hexdigest()[:24]


def _load(kept: Path) -> tuple[Offsets, Offsets] | None:
    """Return a kept index, None if there is none that can be read."""
    try:
        with kept.open("rb") as file, np.load(file, allow_pickle=False) as found:
            was_used(kept)
            return found["starts"], found["blanks"]
    except FileNotFoundError:
        return None
    except Exception as error:  # cut short, or no index at all: zipfile, numpy, zlib
        logger.warning("the line index %s cannot be read and is made anew: %s",
                       kept, error)  # fmt: skip
        return None


def _build(path: Path, kept: Path) -> tuple[Offsets, Offsets]:
    """Return (starts of lines, starts of blank lines), and try to keep them."""
    with or_data_error(path):
        starts, blanks = _scan(path)
    try:
        write_durably(kept, lambda file: np.savez(file, starts=starts, blanks=blanks))
        make_room(kept.parent, MOST_KEPT_BYTES)
    except OSError as error:
        logger.warning("the line index of %s cannot be kept (%s); the next run makes "
                       "it anew", path, error.strerror)  # fmt: skip
    return starts, blanks


def _scan(path: Path) -> tuple[Offsets, Offsets]:
    starts: list[Offsets] = []
    blanks: list[Offsets] = []
    with open_file(path) as file:
        start = len(BOM) if file.read(len(BOM)) == BOM else 0
        file.seek(0)
        base = 0
        while block := file.read(BLOCK_BYTES):
            found = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n"))
            ends = found + base
            base += len(block)
            if len(ends):
                _sort(file.fileno(), start, ends, starts, blanks)
                start = int(ends[-1]) + 1
        if start < base:  # the last line has no end
            _sort(file.fileno(), start, np.array([base]), starts, blanks)
    none = np.zeros(0, dtype=np.int64)
    return np.concatenate([none, *starts]), np.concatenate([none, *blanks])


def _sort(
    file: int, start: int, ends: Offsets, starts: list[Offsets], blanks: list[Offsets]
) -> None:
    """Add the starts of the lines that end at ``ends`` to one of the two lists."""
    begins = np.concatenate([[start], ends[:-1] + 1])
    lengths = ends - begins
    is_blank = lengths == 0
    # Few lines are short enough to be blank: only these are looked at.
    for index in np.flatnonzero(~is_blank & (lengths <= MAX_BLANK_BYTES)).tolist():
        text = os.pread(file, int(lengths[index]), int(begins[index]))
        is_blank[index] = not text.strip()
    starts.append(begins[~is_blank])
    blanks.append(begins[is_blank])
