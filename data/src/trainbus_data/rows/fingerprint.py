"""Tell one set of rows from another."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from training.errors import DataError

__all__ = ["fingerprint_of"]

#: Rows, or up to twice as many, that tell one data set from another.
NUM_LOOKED_AT = 1000


def fingerprint_of(number: int, row_at: Callable[[int], Mapping[str, Any]]) -> str:
    """Return a digest of up to 1,000 rows, evenly spread; pictures are not opened.

    Args:
        number: of rows.
        row_at: returns one; what it cannot read counts as none.
    """
    digest = hashlib.sha256(str(number).encode())
    for index in range(0, number, max(1, number // NUM_LOOKED_AT)):
        values = None
        with contextlib.suppress(DataError):  # a batch that needs it will say so
            values = row_at(index)
        digest.update(json.dumps(values, sort_keys=True, default=_told).encode())
    return digest.hexdigest()[:16]


def _told(value: Any) -> str:
    """Return what JSON has not as a text; a picture's bytes by their digest."""
    is_content = isinstance(value, bytes)
    return hashlib.sha256(value).hexdigest() if is_content else repr(value)
