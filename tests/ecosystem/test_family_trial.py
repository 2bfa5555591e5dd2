"""``plugins check`` tries a model family on the rows that it brings."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., tuple[int, str, str]]

PAGE = Path(__file__).parents[2] / "docs" / "your-own-task.md"
OWN = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)[0]
MORE = '''

class Brings(Parity):
    """Brings its rows."""

    def sample_rows(self):
        return [Numbers(8)[index] for index in range(8)]


class CountsDigits(Brings):
    def collate(self, processor, rows):
        batch = super().collate(processor, rows)
        batch.loss_weight = sum(len(row["number"]) for row in rows)
        return batch


class BringsTwo(Brings):
    def sample_rows(self):
        return super().sample_rows()[:2]


class LoadsOnly(Brings):
    build = None

    def load(self, name, rows): ...


class ForParity(Brings):
    """Does a task that another class is."""

    score = None
'''
ENTRIES = """[trainbus.tasks]
parity = lab_kinds:Parity
[trainbus.readers]
numbers = lab_kinds:Numbers
[trainbus.models]
bare = lab_kinds:Parity
brings = lab_kinds:Brings
counts = lab_kinds:CountsDigits
two = lab_kinds:BringsTwo
loads = lab_kinds:LoadsOnly
apart = lab_kinds:ForParity
"""


@pytest.fixture(autouse=True)
def lab(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site = install("lab", ENTRIES, OWN + MORE)
    monkeypatch.setenv("PYTHONPATH", str(site))  # for the process that checks


@pytest.mark.slow
def test_what_was_tried_is_told_of_each_and_what_is_wrong(command: Command) -> None:
    names = ["bare", "brings", "counts", "two", "loads", "apart", "parity", "numbers"]
    code, out, _ = command("plugins", "check", *names)
    assert code == 2
    told = re.split(r"\n(?=\w)", out.strip())
    assert told[:2] == [
        "bare (model): good\n  tried on no rows, for it has no sample_rows()",
        "brings (model): good\n  tried on 8 rows",
    ]
    assert re.match(
        r"counts \(model\): the family does not conform; prompt: .* changes loss_w",
        told[2],
    )
    assert "2 rows with the targets ['even', 'odd']: too few" in told[3]
    assert told[4:] == [
        "loads (model): good\n  tried on no rows, for it has no build()",
        "apart (model): good\n  tried on 8 rows",
        "parity (task): good\n"
        "  tried on no rows; its model family is, if that has sample_rows()",
        "numbers (reader): good\n  read no rows, which takes a file and its options",
    ]
