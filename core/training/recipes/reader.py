"""Where rows lie: a sequence of them, each with its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

__all__ = ["Reader"]


@runtime_checkable
class Reader(Protocol):
    """The rows of one split, as their file has them.

    A reader is announced in the entry-point group ``trainbus.readers``, or named as
    ``./file.py:Class``. Its constructor's arguments are its options; the first is the
    path, where a configuration may give a path alone. It is pickled for workers.
    """

    @property
    def root(self) -> Path:
        """The folder that files named in rows are relative to."""

    @property
    def fingerprint(self) -> str:
        """A text that changes when the rows do, and with nothing else.

        A run is not resumed on other rows. Up to 1,000 are compared in any case; so a
        reader need not read more than it likes for this.
        """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Return plain values by the names that the file has for them.

        Raises:
            DataError: the row cannot be read; the reason, without its place.
        """

    def place(self, index: int) -> str:
        """Return where the row stands, as in ``"train.jsonl:7"``."""
