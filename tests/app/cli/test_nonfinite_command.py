"""A run from the command line that meets NaN: exit code, counts, what is written."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., tuple[int, str, str]]

POISON = """\
import math
from training import Callback

class Poison(Callback):
    def __init__(self, batches: list, loss: bool = False) -> None:
        self.batches, self.loss, self.seen = batches, loss, 0

    def on_batch_begin(self, inputs):
        self.seen += 1
        if self.seen in self.batches:
            inputs["pixel_values"] = inputs["pixel_values"] * math.nan

    def metric_names(self):
        return ["score"]

    def evaluate(self):
        return {"score": math.nan}
"""
ARGUMENTS = (
    *("run", "run.yaml", "-p", "no:evaluation", "-p", "csv", "-p", "tensorboard"),
    *("-p", "./poison.py:Poison", "--set", "plugins.checkpointing.monitor=null"),
    *("--set", "training.num_epochs=2"),
)


@pytest.fixture
def poisoned(workplace: Path) -> Path:
    (workplace / "poison.py").write_text(POISON)
    return workplace


def strict(path: Path) -> Any:
    """Return what a JSON file holds; NaN and Infinity are no JSON."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{path.name} holds {word}")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_the_run_stops_with_exit_code_5_before_the_weights(
    poisoned: Path, command: Command
) -> None:
    code, _, err = command(*ARGUMENTS, "--set", "plugins.Poison.batches=[3]")
    assert code == 5
    assert (
        "trainbus: error: the loss is nan, and batch['pixel_values'] holds 6,1" in err
    )
    assert "; the trainer's optimizer left the weights alone: mend the data, or" in err
    assert "trainbus: note: in step 3: batch 0 of the epoch, samples [0, 2]" in err
    assert "Traceback" not in err
    summary = strict(poisoned / "out/summary.json")
    assert summary["status"].startswith("failed: NonFiniteError")
    assert (summary["steps"], summary["updates"]) == (2, 2)
    assert [row["step"] for row in strict(poisoned / "out/history.json")] == [2]


@pytest.mark.parametrize(
    ("bad", "updates", "has_loss"),
    [
        pytest.param([3], 3, True, id="one window of an epoch"),
        pytest.param([3, 4], 2, False, id="a whole epoch"),
    ],
)
def test_dropped_windows_are_counted_and_never_written_as_numbers(
    poisoned: Path,
    command: Command,
    caplog: pytest.LogCaptureFixture,
    bad: list[int],
    updates: int,
    has_loss: bool,
) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    code, _, _ = command(
        *ARGUMENTS,
        *("--set", f"plugins.Poison.batches={bad}"),
        *("--set", "training.nonfinite=skip"),
        *("--set", "plugins.tensorboard.every_n_steps=1"),
    )
    assert code == 0
    assert "step 3 dropped: loss or gradient not finite" in caplog.text
    summary = strict(poisoned / "out/summary.json")
    assert (summary["steps"], summary["updates"]) == (4, updates)
    assert summary["nonfinite_windows"] == summary["skipped_windows"] == len(bad)
    history = strict(poisoned / "out/history.json")
    assert (history[1]["train_loss"] is not None) == has_loss
    assert history[0]["score"] is None
    with (poisoned / "out/training_log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert "score=nan" in rows[0]["notes"]
    assert "nan" not in "".join(v for k, v in rows[1].items() if k != "notes")
    board = reader.EventAccumulator(str(poisoned / "out/tensorboard/out"))
    board.Reload()
    points = [e.value for tag in board.Tags()["scalars"] for e in board.Scalars(tag)]
    assert points
    assert all(math.isfinite(value) for value in points)
