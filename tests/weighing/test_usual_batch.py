"""The usual batch weighs what the general way says, or is left to that."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
import torch

from training.weighing.counts import FEW, SOME, Counts
from training.weighing.known_units import KnownUnits
from training.weighing.usual_batch import usual_weight

ROWS = torch.randn(4, 3)
LABELS = torch.tensor([0, 2, -100, 1])
TEXTS = torch.tensor([[1, 2, -100], [-100, 5, 6], [0, 0, 1], [1, -100, -100]])
MANY = torch.arange(FEW + 1) % 7
MANY[3::5] = -100
BATCHES = {
    "pair": (ROWS, LABELS),
    "few pairs": (torch.randn(FEW, 3), MANY[:-1]),
    "many pairs": (torch.randn(FEW + 1, 3), MANY),
    "all kept": (torch.randn(FEW + 1, 3), MANY.clamp(min=0)),
    "most kept": (torch.randn(SOME + 1, 3), torch.arange(SOME + 1) % 7),
    "all kept in a dict": {"labels": MANY.clamp(min=0)},
    "pictures": (torch.randn(4, 30, 30), torch.arange(3600).reshape(4, 30, 30) % 7),
    "nothing": (torch.randn(0, 9), torch.zeros(0, 9, dtype=torch.int64)),
    "few in a dict": {"x": torch.randn(FEW, 3), "labels": MANY[:-1]},
    "texts": {"input_ids": TEXTS, "labels": TEXTS},
    "regression": (ROWS, ROWS),
    "list": [ROWS, LABELS],
    "int32": (ROWS, LABELS.int()),
    "rows that differ": (ROWS[:3], LABELS),
    "one tensor": ROWS,
    "no labels": {"x": ROWS},
    "a scalar": (ROWS, torch.tensor(1)),
    "other name": {"x": ROWS, "target": LABELS},
}
#: Those with class numbers by the name or at the place that a loss takes them from.
WHOLE = {name for name in BATCHES if "pair" in name or "dict" in name}
WHOLE |= {
    "texts",
    "list",
    "rows that differ",
    "all kept",
    "most kept",
    "pictures",
    "nothing",
}
USUAL = {"pair", "list", "texts", "regression"}
#: What weighs any other batch, here as nothing that is a number.
UNUSUAL: Any = lambda batch, source: None  # noqa: E731
UNITS = ["samples", "labels", "shifted_labels", "elements", "class_weights", "sum"]


@pytest.mark.parametrize("issued", [None, range(4), range(3), range(6)])
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", BATCHES)
def test_a_usual_batch_counts_as_any_other_way(
    name: str, unit: str, issued: Any
) -> None:
    counts = Counts(torch.nn.CrossEntropyLoss(torch.arange(1.0, 8.0)))
    found = usual_weight(counts, KnownUnits(unit), UNUSUAL)(
        BATCHES[name], SimpleNamespace(issued=issued)
    )
    samples = None if issued is None else len(issued)
    assert found in (None, counts(unit, BATCHES[name], samples))
    assert type(found) in (type(None), float)  # what a checkpoint can hold


@pytest.mark.parametrize("name", sorted(USUAL))
def test_a_usual_batch_is_counted_at_once(name: str) -> None:
    weight = usual_weight(Counts(), KnownUnits("samples"), UNUSUAL)
    assert weight(BATCHES[name], SimpleNamespace(issued=None)) == 4.0


def test_units_that_no_longer_go_together_are_left_to_the_weigher() -> None:
    source = SimpleNamespace(issued=None)
    known = KnownUnits("labels", {"labels": 3.0, "samples": 4.0}, scale=2.0)
    weight = usual_weight(Counts(), known, UNUSUAL)
    assert weight((ROWS, LABELS), source) == 6.0
    assert weight((ROWS, LABELS.clamp(min=0)), source) is None


def numpy_functions_in(call: Callable[[], object]) -> list[str]:
    """Return the functions of numpy written in Python that ``call`` goes through."""
    seen: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_globals["__name__"].startswith("numpy"):
            seen.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return seen


@pytest.mark.parametrize("ignored", [-100, -1, 0, 3, 6, 255])
@pytest.mark.parametrize("name", BATCHES)
def test_labels_count_as_any_other_way_whatever_is_ignored(
    name: str, ignored: int
) -> None:
    counts = Counts(torch.nn.CrossEntropyLoss(ignore_index=ignored))
    batch = BATCHES[name]
    for unit, column in (("labels", 0), ("shifted_labels", 1)):
        weigh = usual_weight(counts, KnownUnits(unit), UNUSUAL)
        found = weigh(batch, SimpleNamespace(issued=None))
        if name not in WHOLE:
            assert found is None
            continue
        labels = batch["labels"] if isinstance(batch, dict) else batch[-1]
        right = None
        if labels.ndim > column:
            right = (labels[:, column:] if column else labels).ne(ignored).sum().item()
        assert found == right == counts(unit, batch, None)


@pytest.mark.parametrize("live", [{}, {"labels": 205.0, "samples": 256.0}])
@pytest.mark.parametrize(
    "name",
    ["few pairs", "many pairs", "few in a dict", "all kept", "all kept in a dict"],
)
def test_only_many_labels_of_which_some_are_ignored_are_counted_by_numpy(
    name: str, live: dict[str, float]
) -> None:
    weight = usual_weight(Counts(), KnownUnits("labels", live), UNUSUAL)
    source = SimpleNamespace(issued=None)
    seen = numpy_functions_in(lambda: weight(BATCHES[name], source))
    assert bool(seen) == (name == "many pairs")
