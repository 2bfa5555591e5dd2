"""Rows that a person asks about are read once, or, of very many, as they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from trainbus_data.asked_rows import AskedRows
from trainbus_data.rows.indexed_rows import HELD_MB
from training.errors import DataError
from training.recipes.batch import Batch
from training.recipes.family import ModelFamily
from training.recipes.task import Task


class Echo(Task):
    """A text that is said again."""

    fields: ClassVar = {"text": "text", "echo": "text"}
    target = "echo"


class Said(ModelFamily):
    """Puts rows into batches of nothing."""

    def collate(self, processor: Any, rows: Any) -> Batch:
        return Batch({}, list(rows), 1.0)


OWN = """\
from pathlib import Path
from training.errors import DataError
class Counted:
    def __init__(self, num_bytes: int = 3) -> None:
        self.root, self.fingerprint, self.asked = Path(), '', []
        self.num_bytes = num_bytes
    def __len__(self):
        return 3
    def __getitem__(self, index):
        self.asked.append(index)
        if self.asked.count(index) > 2:
            raise DataError('is gone')
        return {'text': str(index), 'echo': str(index)}
    def place(self, index):
        return f'counted:{index + 1}'
"""


def ask(folder: Path, **options: int) -> AskedRows:
    (folder / "own.py").write_text(OWN)
    return AskedRows({f"{folder / 'own.py'}:Counted": options}, Echo(), {}, 1)


def texts(rows: AskedRows) -> list[list[str]]:
    batches = rows.batches(Said(), None, 2)
    return [[row["text"] for row in asked] for asked, batch in batches]


def test_rows_that_can_be_held_are_checked_and_read_at_once(tmp_path):
    rows = ask(tmp_path)
    before = len(rows._reader.asked)
    assert texts(rows) == [["0", "1"], ["2"]]
    assert len(rows._reader.asked) == before


def test_rows_too_many_to_hold_are_read_again_and_named_if_they_are_gone(tmp_path):
    rows = ask(tmp_path, num_bytes=(HELD_MB << 20) + 1)
    assert len(rows._reader.asked) == 4
    # The first one was also looked at for its names, and is gone the third time.
    assert texts(rows) == [["1"], ["2"]]
    with pytest.raises(DataError, match=r"counted:1: is gone"):
        rows.settle()


def test_the_model_never_sees_the_target(tmp_path):
    ((asked, batch), *_) = ask(tmp_path).batches(Said(), None, 2)
    assert [sorted(row) for row in batch.rows] == [["text"], ["text"]]
    assert [row["echo"] for row in asked] == ["0", "1"]
