"""The unit of every kind of loss, and what a window makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from weighing.every_kind import FOUND, KINDS, NONE
from weighing.zoo import (
    SPLIT,
    Kind,
    Perceptron,
    difference,
    numbers,
    of_step,
    over_positives,
    stacked,
)

from training.errors import ConfigError

#: Their statistics are those of a batch, which no weight mends.
KNOWN_LIMITS = {"BatchNorm", "a centre that moves"}


def measured(kind: Kind) -> Any:
    """Return the weigher of a run in which two batches of eight rows are a window."""
    trainer = kind.trainer((8,), times=2)
    trainer.train()
    return trainer._weigher


@pytest.mark.parametrize("name", FOUND)
def test_the_unit_is_found_of(name: str) -> None:
    kind, unit = KINDS[name]
    settings = measured(kind).settings()
    assert settings["unit"] == unit
    assert settings["r"] < 1e-6


@pytest.mark.parametrize("name", NONE)
def test_w6_no_unit_is_found_of(name: str) -> None:
    kind, _ = KINDS[name]
    with pytest.raises(ConfigError, match="the loss is no mean over samples"):
        measured(kind)


#: Labels and samples are the same number there.
ONE_LABEL_EACH = {"cross entropy", "a head of zeros", "with dropout", "BatchNorm"}


@pytest.mark.parametrize("name", [n for n in FOUND if n not in KNOWN_LIMITS])
def test_a_split_window_moves_the_weights_as_one_batch(name: str) -> None:
    kind, unit = KINDS[name]
    whole = kind.update((8,))
    assert difference(kind.update(SPLIT), whole) < 1e-5
    if unit != "samples" and name not in ONE_LABEL_EACH:  # the control: a guess
        assert difference(kind.update(SPLIT, loss_per="samples"), whole) > 1e-2


@pytest.mark.parametrize("name", NONE)
def test_w6_a_loss_without_a_unit_is_refused_before_a_window_ends(name: str) -> None:
    kind, _ = KINDS[name]
    trainer = kind.trainer(SPLIT)
    with pytest.raises(ConfigError, match="gradient_accumulation_steps is 3, but"):
        trainer.train()
    assert trainer.step == 0


def test_w1_an_unknown_unit_that_has_the_shares_of_another_in_one_cut() -> None:
    """The first cut has 6 of 16 positives in 3 of 8 rows."""
    positives = (1, 2, 3, 2, 2, 2, 2, 2)
    rows = [
        (x, y.abs() * torch.where(torch.arange(5) < number, 1, -1))
        for (x, y), number in zip(numbers(), positives, strict=True)
    ]
    kind = Kind(Perceptron, rows, stacked, of_step(over_positives))
    with pytest.raises(ConfigError, match="the loss is no mean over samples"):
        measured(kind)


def test_w2_losses_that_are_all_equal_hide_nothing() -> None:
    kind, unit = KINDS["a head of zeros"]
    assert measured(kind).settings()["unit"] == unit


def test_w3_buffers_are_put_back_before_every_pass() -> None:
    """A centre that the first pass moved would make the others another loss."""
    kind, unit = KINDS["a centre that moves"]
    assert measured(kind).settings()["unit"] == unit
