"""Generators that belong to a validation loader: each evaluation draws the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from faults.runs import Augmented, build
from torch.utils.data import DataLoader, RandomSampler, Sampler

from training import Callback, Trainer

ROWS = Augmented(noise=False)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Passes:
    """Hides the loader that it reads."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __iter__(self) -> Any:
        yield from self.inner


class Noisy(Augmented):
    """Rows with noise from a generator of its own."""

    def __init__(self) -> None:
        super().__init__(noise=False)
        self.rng = np.random.default_rng(0)

    def __getitem__(self, index: int) -> Any:
        x, *rest = super().__getitem__(index)
        return x + self.rng.normal(), *rest


class Chosen(Sampler[int]):
    """A part of the rows, another one each time."""

    def __init__(self) -> None:
        self.rng = random.Random(0)

    def __iter__(self) -> Any:
        return iter(self.rng.sample(range(11), 5))


OWN: dict[str, Callable[[], Any]] = {
    "some rows": lambda: DataLoader(
        ROWS, 2, sampler=RandomSampler(ROWS, num_samples=5, generator=seeded())
    ),
    "shuffle": lambda: DataLoader(ROWS, 2, shuffle=True, generator=seeded()),
    "a sampler's own": lambda: DataLoader(ROWS, 2, sampler=Chosen()),
    "a data set's own": lambda: DataLoader(Noisy(), 2),
    "a data set's own, in workers": lambda: DataLoader(Noisy(), 2, num_workers=1),
}


class Reads(Callback):
    """Measures which rows it is given, in which order."""

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        loader: Any = trainer.val_dataloader
        rows = [(x.sum().item(), i) for x, _, ids in loader for i in ids.tolist()]
        return {"drawn": sum(k * x + k * k * i for k, (x, i) in enumerate(rows))}


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("is_hidden", [False, True], ids=["", "hidden by a plugin"])
def test_r1_each_evaluation_draws_the_same_from_a_generator_of_its_loader(
    kind: str, is_hidden: bool
) -> None:
    class Hides(Callback):
        def wrap_dataloader(self, dataloader: Any, stage: str) -> Any:
            return Passes(dataloader) if is_hidden and stage == "validation" else None

    trainer = build(Hides(), Reads(), val_dataloader=OWN[kind](), num_epochs=3)
    trainer.train()
    assert len({row["drawn"] for row in trainer.history}) == 1


@pytest.mark.parametrize("persistent", [False, True])
def test_r8_a_generator_in_workers_for_validation_that_persist_is_named(
    persistent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    loader = DataLoader(Noisy(), 2, num_workers=1, persistent_workers=persistent)
    build(Reads(), val_dataloader=loader, num_epochs=1).train()
    assert caplog.text.count("the Noisy of val_dataloader keeps") == persistent


def test_a_loader_with_workers_may_say_nothing_of_how_long_they_live() -> None:
    class Own(Passes):
        num_workers = 2

    trainer = build(Reads(), val_dataloader=Own(DataLoader(ROWS, 2)), num_epochs=1)
    trainer.train()
    assert trainer.history
