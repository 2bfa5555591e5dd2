"""The record of an earlier run stays in one piece, wherever a later one is killed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from training import Trainer
from training.app.records.run_folder import find_runs, read_run
from training.builtin.run_record import RunRecord
from training.files.record_names import RECORD
from training.testing import tiny_trainer

MADE_OF_IT = "predictions.jsonl"
MOVED = {*RECORD, MADE_OF_IT}


def recorded(folder: Path, **options: Any) -> Trainer:
    return tiny_trainer(RunRecord({}, {}), save_dir=folder, **options)


def killed_in_moving(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Begin a run where another was; it ends before it renames its ``number``-th."""
    trainer = recorded(folder)
    trainer.train()
    trainer.save_checkpoint(folder / "end.pt")
    (folder / MADE_OF_IT).write_text("{}")
    rename, renamed = os.rename, []

    def kills(source: Any, target: Any) -> None:
        renamed.append(source)
        if len(renamed) == number:
            raise KeyboardInterrupt
        rename(source, target)

    later = recorded(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", kills)
        with pytest.raises(KeyboardInterrupt):
            later.train()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("number", range(1, len(MOVED) + 2))
def test_a_record_in_whose_moving_a_run_was_killed_stays_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    killed_in_moving(tmp_path, monkeypatch, number)
    assert [run.path for run in find_runs(tmp_path / "earlier")] == []  # no half one
    recorded(tmp_path).train()
    assert names_in(tmp_path / "earlier") == {"001"}
    assert names_in(tmp_path / "earlier" / "001") == MOVED


@pytest.mark.parametrize("number", range(1, len(MOVED) + 2))
def test_a_run_goes_on_with_its_record_in_whose_moving_another_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    killed_in_moving(tmp_path, monkeypatch, number)
    resumed = recorded(tmp_path, num_epochs=9)
    resumed.load_checkpoint(tmp_path / "end.pt")
    before = resumed.step
    resumed.train()
    assert [each["steps"] for each in read_run(tmp_path).starts] == [0, before]
    assert names_in(tmp_path) > MOVED
    assert names_in(tmp_path / "earlier") == set()


def test_what_was_made_since_a_record_was_moved_in_part_is_kept_with_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_in_moving(tmp_path, monkeypatch, len(MOVED) + 1)  # it has no number yet
    (tmp_path / MADE_OF_IT).write_text("new")
    recorded(tmp_path).train()
    found = (tmp_path / "earlier").glob(f"*/{MADE_OF_IT}")
    assert sorted(path.read_text() for path in found) == ["new", "{}"]
