"""A run goes on with the model that it had, or with another one by consent."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from training.checkpoint_io import read_checkpoint, write_checkpoint

Command = Callable[..., tuple[int, str, str]]
RESUME = ("run", "run.yaml", "--set", "training.num_epochs=2", "--resume")


def newest(workplace: Path) -> Path:
    """Return the newest checkpoint of the run in ``out``."""
    folder = workplace / "out/checkpoints"
    listed = json.loads((folder / "manifest.json").read_text())["checkpoints"]
    return Path(folder, listed[-1]["file"])


@pytest.mark.parametrize(
    ("change", "told", "allowed"),
    [
        pytest.param(
            "model.build.num_attention_heads=1",
            "model.build.num_attention_heads was 2, is 1",
            "model.build.num_attention_heads",
            id="another function of the same weights",
        ),
        pytest.param(
            "model.build.dropout=0.9",
            "model.build.dropout was 0.0, is 0.9",
            "model.build",
            id="one that had its default",
        ),
        pytest.param(
            "model.max_question_length=3",
            "model.max_question_length was 32, is 3",
            "model",
            id="an option of the family",
        ),
    ],
)
def test_another_option_of_the_model_is_refused_unless_it_is_allowed(
    workplace: Path, command: Command, change: str, told: str, allowed: str
) -> None:
    command("run", "run.yaml")
    changed = (*RESUME, "auto", "--set", change)
    code, _, err = command(*changed)
    assert (code, told in err) == (4, True), err
    code, out, err = command(*changed, "--allow-change", allowed)
    assert (code, f"setting {told}" in out) == (0, True), err


@pytest.mark.parametrize(
    "same", ["model.build.dropout=0.0", "model.build.seed=7", "model.freeze=[]"]
)
def test_a_default_that_is_written_out_and_a_seed_of_the_weights_are_no_change(
    workplace: Path, command: Command, same: str
) -> None:
    command("run", "run.yaml")
    code, out, err = command(*RESUME, "auto", "--set", same)
    assert (code, "setting model" in out) == (0, False), err


def test_a_checkpoint_that_knows_no_options_of_its_model_is_resumed_with_any(
    workplace: Path, command: Command
) -> None:
    command("run", "run.yaml")
    state = read_checkpoint(newest(workplace))
    settings = state["settings"]
    state["settings"] = {k: v for k, v in settings.items() if k[:6] != "model."}
    state["metadata"] = {}
    write_checkpoint("old.pt", state)
    code, _, err = command(*RESUME, "old.pt", "--set", "model.build.dropout=0.9")
    assert code == 0, err


def test_where_the_weights_came_from_may_change(
    workplace: Path, command: Command
) -> None:
    command("run", "run.yaml")
    command("export", str(newest(workplace)), "here")
    more = ("--set", "training.num_epochs=2")
    code, out, err = command(
        *RESUME, "auto", "--set", "model={name: here, build: null}", *more
    )
    assert (code, "setting model" in out) == (0, False), err
    Path("here").rename("there")
    more = ("--set", "training.num_epochs=3")
    code, out, err = command(
        *RESUME, "auto", "--set", "model={name: there, build: null}", *more
    )
    assert (code, "setting model" in out) == (0, False), err
    assert "config model.name was 'here', is 'there'" in out


@pytest.fixture
def labelled(workplace: Path) -> Path:
    """Rows to train on, and alike to validate on, with labels for answers."""
    rows = workplace / "rows/train.jsonl"
    text = rows.read_text().replace('"answer"', '"label"')
    for name in ("train", "val"):
        (workplace / f"rows/{name}.jsonl").write_text(text)
    return rows


def test_labels_that_other_rows_move_are_refused_unless_it_is_allowed(
    labelled: Path, command: Command
) -> None:
    text, task = labelled.read_text(), ("--set", "task=image_classification")
    command("run", "run.yaml", *task)
    labelled.write_text(text.replace('"label": "red"', '"label": "black"'))
    resume = (*RESUME, "auto", *task, "--allow-change", "dataset")
    told = "model.description was 'blue' (config.id2label.0), is 'black'"
    code, _, err = command(*resume)
    assert (code, told in err) == (4, True), err
    code, out, err = command(*resume, "--allow-change", "model.description")
    assert (code, f"setting {told}" in out) == (0, True), err


def test_a_refusal_of_moved_labels_says_what_consent_costs_and_the_way_that_does_not(
    labelled: Path, command: Command
) -> None:
    text, task = labelled.read_text(), ("--set", "task=image_classification")
    command("run", "run.yaml", *task)
    labelled.write_text(text.replace('"label": "red"', '"label": "black"'))
    told = "export the checkpoint and name that folder in model.name"
    _, _, err = command(*RESUME, "auto", *task)
    assert "--allow-change model.description" in err
    assert told in err
    _, _, err = command(*RESUME, "auto", *task, "--allow-change", "model.description")
    assert ("--allow-change dataset" in err, told in err) == (True, False)


def test_what_made_another_model_is_named_before_the_weights_that_differ(
    labelled: Path, command: Command
) -> None:
    text, task = labelled.read_text(), ("--set", "task=image_classification")
    command("run", "run.yaml", *task)
    resume = (*RESUME, "auto", *task)
    _, _, err = command(*resume, "--set", "model.build.hidden_size=8")
    told = r"this model; model\.build\.hidden_size was \d+, is 8; of another kind:"
    assert re.search(told, err), err
    labelled.write_text(text.replace('"label": "red"', '"label": "blue"'))
    told = r"this model; model\.description was 'red' .*, is 'white'; of another kind:"
    for allowed in ("dataset", "model.description"):
        code, _, err = command(*resume, "--allow-change", allowed)
        assert (code, bool(re.search(told, err))) == (4, True), err
