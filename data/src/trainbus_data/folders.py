"""Make a folder completely or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.errors import DataError
from training.files.durable import temporary_beside

__all__ = ["new_folder", "write_rows"]


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder beside ``out`` that becomes ``out`` when the block succeeds.

    A failure, or the end of the process, leaves ``out`` as it was.

    Raises:
        DataError: ``out`` is a file or a folder that holds something.
    """
    refuse_content(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temp = temporary_beside(out)
        temp.mkdir()  # a new one, with the permissions that the umask leaves
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}") from error
    try:
        yield temp
        refuse_content(out)
        os.replace(temp, out)  # takes the place of an empty folder too
    except OSError as error:
        raise DataError(f"cannot write {out}: {error}") from error
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def refuse_content(out: Path) -> None:
    """Raise DataError when ``out`` is there and not an empty folder."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        kind = "is not empty" if out.is_dir() else "is not a folder"
        raise DataError(f"{out} {kind}; name a folder that does not exist yet")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write JSON lines, UTF-8; return how many."""
    num_rows = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            num_rows += 1
    return num_rows
