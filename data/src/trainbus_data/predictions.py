"""Files of rows with their predictions, in the form that their suffix tells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainbus_data.rows.row_checks import MadeId
from training.errors import ConfigError, DataError
from training.files.durable import finite, write_durably
from training.recipes.task import Task

__all__ = [
    "RECORDS",
    "SUBMISSION",
    "require_form",
    "require_ids",
    "require_suffix",
    "write_records",
]

#: Suffix of a file with a record a line, and of one in the form that servers take.
RECORDS, SUBMISSION = ".jsonl", ".json"


def require_suffix(path: Path, option: str) -> None:
    """Refuse a file whose form its name does not tell.

    Raises:
        ConfigError: says which suffixes do.
    """
    if path.suffix.lower() not in (RECORDS, SUBMISSION):
        raise ConfigError(
            f"{option} {str(path)!r} must end in {RECORDS}, for rows with their "
            f"predictions, or in {SUBMISSION}, for the list that servers take"
        )


def require_form(path: Path, option: str, task: Task | type[Task]) -> None:
    """Refuse a file in the form that servers take, of a task that knows none.

    Raises:
        ConfigError: says so, with the suffix to take.
    """
    if _is_submission(path) and not hasattr(task, "submission"):
        name = (task if isinstance(task, type) else type(task)).__name__
        raise ConfigError(
            f"{option} {str(path)!r}: the task {name} has no form for servers, which "
            f"{SUBMISSION} stands for; name a file that ends in {RECORDS}"
        )


def require_ids(
    path: Path, records: Iterable[Mapping[str, Any]], task: Task
) -> Iterator[Mapping[str, Any]]:
    """Yield rows as they are; in the form for servers each has an id of its own.

    Raises:
        DataError: names the first that has none, or that of another one.
    """
    if not _is_submission(path):
        yield from records
        return
    ids = [name for name, kind in task.fields.items() if kind.rstrip("?") == "id"]
    seen = set[tuple[str, str]]()
    for record in records:
        made = [k for k, v in record.items() if isinstance(v, MadeId)]
        if made:
            raise DataError(
                f"{str(path)!r}: the row {record[made[0]]!r} has no {made[0]} of its "
                "own, by which a server knows it; give each row one, or name a file "
                f"that ends in {RECORDS}"
            )
        for name in (name for name in ids if name in record):
            each = name, str(record[name])  # 7 and "7" are one id, as labels are
            if each in seen:
                raise DataError(
                    f"{str(path)!r}: two rows have the {name} {record[name]!r}, by "
                    "which a server knows one; give each its own, or name a file that "
                    f"ends in {RECORDS}"
                )
            seen.add(each)
        yield record


def write_records(path: Path, records: Iterable[Mapping[str, Any]], task: Task) -> None:
    """Write rows with their predictions as they come, all or nothing.

    Args:
        path: a list of what the task's ``submission`` makes of each if it ends in
            ``.json``; else a line for each.
        records: each row with its ``prediction``.
        task: of the rows.
    Raises:
        DataError: a row for a server has no id, or that of another one.
    """
    submission = getattr(task, "submission", None)
    if _is_submission(path) and submission is not None:
        chunks = _listed(map(submission, require_ids(path, records, task)))
    else:
        chunks = (_as_json(record) + b"\n" for record in records)
    write_durably(path, lambda file: file.writelines(chunks))


def _is_submission(path: Path) -> bool:
    return path.suffix.lower() == SUBMISSION


def _listed(values: Iterable[Any]) -> Iterator[bytes]:
    before = b"["
    for value in values:
        yield before + b"\n" + _as_json(value)
        before = b","
    yield b"\n]\n"


def _as_json(value: Any) -> bytes:
    """Return one line; texts stay as they are, NaN and infinities become null."""
    text = json.dumps(finite(value), ensure_ascii=False, allow_nan=False)
    # Half a surrogate pair, which UTF-8 has not, becomes JSON's escape for it.
    return text.encode("utf-8", "backslashreplace")
