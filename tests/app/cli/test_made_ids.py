"""An id that a row was given, since it has none, goes to no server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainbus_data.predictions import write_records
from trainbus_data.rows.row_checks import MadeId
from trainbus_data.vqa.task import VQA
from training.errors import DataError

Command = Callable[..., tuple[int, str, str]]
TOLD = "'said.json': the row '{}-1' has no question_id of its own"


@pytest.mark.usefixtures("workplace")
def test_rows_without_ids_are_refused_in_the_form_for_servers(command: Command) -> None:
    assert command("run", "run.yaml")[0] == 0
    model = str(next(Path("out").rglob("*.pt")))
    asked = ("predict", "--checkpoint", model, "--rows", "rows/val.jsonl", "--out")
    judged = ("evaluate", "run.yaml", "--checkpoint", model, "--predictions")
    for given in (asked, judged):
        code, out, err = command(*given, "said.json")
        assert (code, out) == (3, "")
        assert TOLD.format("val") in err
        assert not Path("said.json").exists()
        assert command(*given, "said.jsonl")[0] == 0
        lines = Path("said.jsonl").read_text().splitlines()
        assert json.loads(lines[0])["question_id"] == "val-1"
        Path("said.jsonl").unlink()


def test_evaluate_refuses_them_before_it_measures(
    command: Command, monkeypatch: pytest.MonkeyPatch, workplace: Path
) -> None:
    assert command("run", "run.yaml")[0] == 0
    model = str(next(Path("out").rglob("*.pt")))
    scored, score = [], VQA.score

    def counted(task: VQA, prediction: Any, row: Any) -> dict[str, float]:
        scored.append(row)
        return score(task, prediction, row)

    monkeypatch.setattr(VQA, "score", counted)
    given = ("evaluate", "run.yaml", "--checkpoint", model, "--predictions")
    assert command(*given, "said.json")[0] == 3
    assert not scored
    assert command(*given, "said.jsonl")[0] == 0
    assert scored


@pytest.mark.parametrize("names", [["a", MadeId("ask-1")], [7, MadeId("ask-1")]])
def test_one_row_without_an_id_among_others_leaves_no_file(
    names: list[Any], tmp_path: Path
) -> None:
    records = [{"question_id": name, "prediction": "red"} for name in names]
    with pytest.raises(DataError, match="the row 'ask-1' has no question_id"):
        write_records(tmp_path / "said.json", records, VQA())
    assert not list(tmp_path.iterdir())


def test_an_id_of_the_same_text_that_a_row_has_is_its_own(tmp_path: Path) -> None:
    records = [{"question_id": "ask-1", "prediction": "red"}]
    write_records(tmp_path / "said.json", records, VQA())
    assert json.loads((tmp_path / "said.json").read_text()) == [
        {"question_id": "ask-1", "answer": "red"}
    ]


@pytest.mark.parametrize("names", [(5, 5), ("5", 5)])
def test_two_rows_of_one_id_are_refused_in_the_form_for_servers(
    names: tuple[Any, Any], tmp_path: Path
) -> None:
    records = [{"question_id": name, "prediction": "red"} for name in names]
    with pytest.raises(DataError, match="two rows have the question_id 5, by which"):
        write_records(tmp_path / "said.json", records, VQA())
    assert not list(tmp_path.iterdir())
    write_records(tmp_path / "said.jsonl", records, VQA())
    assert len((tmp_path / "said.jsonl").read_text().splitlines()) == 2
