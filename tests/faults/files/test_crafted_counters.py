"""C13: counters, a history and metrics that no run could have had together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from faults.files.test_crafted import (
    Place,
    assert_refused,
    assert_taken,
    crafted,
    saved,
)

__all__ = ["saved"]  # the fixture

NAN = float("nan")
NEW_EPOCH = {"epoch": 1, "step": 3, "update": 3, "batch": 0, "weight_sum": 0.0}


def with_progress(state: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    changed = crafted(state, ("progress",), {**state["progress"], **values})
    assert changed is not None
    return changed


@pytest.mark.parametrize(
    ("values", "named"),
    [
        pytest.param(NEW_EPOCH | {"loss_sum": NAN}, "loss_sum", id="a loss of NaN"),
        pytest.param(NEW_EPOCH | {"loss_sum": 1e300}, "loss_sum", id="a huge loss"),
        pytest.param({"epoch": 6}, "epoch", id="more epochs than windows"),
        pytest.param({"update": 6}, "update", id="more updates than windows"),
        pytest.param({"weight_sum": -1.0}, "weight_sum", id="a weight below 0"),
        pytest.param(
            {"part_sums": {"a": 1.0}}, "part_sums", id="a part without weight"
        ),
        pytest.param({"part_sums": {"a": [1.0, 0.0]}}, "part_sums", id="weight 0"),
        pytest.param({"part_sums": {"a": ["x", 1.0]}}, "part_sums", id="a sum of text"),
        pytest.param(
            {"part_sums": {1: [1.0, 1.0]}}, "part_sums", id="a part of no name"
        ),
        pytest.param({"part_sums": 3}, "part_sums", id="sums that are none"),
        pytest.param(
            NEW_EPOCH | {"loss_sum": 0.0, "part_sums": {"a": [1.0, 1.0]}},
            *("part_sums",),
            id="a part before the first batch",
        ),
        pytest.param({"served": 1}, "served", id="a flag that is a number"),
        pytest.param({"decided": "x"}, "decided", id="a step that is text"),
    ],
)
def test_c13_counters_that_do_not_fit_one_another_are_named(
    saved: dict[str, Any], tmp_path: Path, values: dict[str, Any], named: str
) -> None:
    state = with_progress(saved, values) | {"metrics": {}, "requests": []}
    assert_refused(tmp_path / "a.pt", state, rf"progress\.{named} is ")


def test_c13_a_rate_is_told_as_what_it_may_be(
    saved: dict[str, Any], tmp_path: Path
) -> None:
    told = r"progress\.lr is .*a finite number(?! of)"
    assert_refused(tmp_path / "a.pt", with_progress(saved, {"lr": NAN}), told)
    assert_taken(tmp_path / "b.pt", with_progress(saved, {"lr": -0.5}))


def test_c13_an_epoch_begins_without_a_loss(
    saved: dict[str, Any], tmp_path: Path
) -> None:
    """The control."""
    state = with_progress(saved, NEW_EPOCH | {"loss_sum": 0.0})
    state["metrics"] = {}
    assert_taken(tmp_path / "a.pt", state)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        pytest.param({"epoch": 0, "step": 3}, "epoch", id="an epoch before the first"),
        pytest.param({"epoch": 3, "step": 5}, "epoch", id="an epoch after this one"),
        pytest.param({"epoch": 2, "step": 2}, "step", id="a step that goes back"),
        pytest.param({"epoch": 2, "step": 6}, "step", id="a step after this one"),
        pytest.param({"epoch": 2}, "step", id="no step"),
        pytest.param({"epoch": 2, "step": 5, "loss": "1"}, "loss", id="text"),
        pytest.param({"epoch": 2, "step": 5, "loss": None}, "loss", id="None"),
    ],
)
def test_c13_a_row_that_the_history_cannot_have_is_named(
    saved: dict[str, Any], tmp_path: Path, more: dict[str, Any], named: str
) -> None:
    state = crafted(saved, ("history",), [*saved["history"], more])
    assert_refused(tmp_path / "a.pt", state, rf"history\[1\]\.{named} is ")


def test_c13_an_epoch_in_which_a_run_ended_and_went_on_has_two_rows(
    saved: dict[str, Any], tmp_path: Path
) -> None:
    """The control."""
    rows = [{"epoch": 1, "step": 2, "loss": NAN}, *saved["history"]]
    state = crafted(saved, ("history",), rows)
    assert_taken(tmp_path / "a.pt", state)


@pytest.mark.parametrize(
    "path", [(1,), (2,)], ids=["a step after this one", "an epoch after this one"]
)
def test_c13_a_metric_of_a_later_time_is_named(
    saved: dict[str, Any], tmp_path: Path, path: Place
) -> None:
    state = crafted(saved, ("metrics", "val_loss", *path), 7)
    assert_refused(tmp_path / "a.pt", state, r"metrics\['val_loss'\]")
