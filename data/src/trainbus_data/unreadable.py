"""What the system will not read, as an error of the data that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import DataError

__all__ = ["or_data_error"]


@contextmanager
def or_data_error(path: Path) -> Iterator[None]:
    """Raise as a DataError that ``path`` cannot be read what the system says of it."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
