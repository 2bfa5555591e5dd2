"""Runs of one process draw from the same generators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import Regression, regression_batches

from training import Callback, Trainer


def built(*callbacks: Any, num_epochs: int = 3, seed: int | None = None) -> Trainer:
    state = torch.get_rng_state()
    model = Regression(dropout=0.5)  # seeds the generators
    torch.set_rng_state(state)
    return Trainer(
        model,
        regression_batches(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        num_epochs=num_epochs,
        callbacks=list(callbacks),
        device="cpu",
        seed=seed,
    )


class Trains(Callback):
    """Runs another trainer in one of its hooks, and maybe fails in that."""

    def __init__(self, seed: int | None, resume: Path | None, fails: bool) -> None:
        self.seed, self.resume, self.fails = seed, resume, fails
        self.ends: list[float] = []

    def run(self) -> None:
        inner = built(*([Fails()] if self.fails else []), seed=self.seed)
        try:
            inner.train(self.resume)
        except ZeroDivisionError:
            assert self.fails
        self.ends.append(sum(p.sum().item() for p in inner.model.parameters()))


class AtEpochEnds(Trains):
    """At each epoch's end."""

    def on_epoch_end(self) -> None:
        self.run()


class AtSteps(Trains):
    """After each step."""

    def on_step_end(self) -> None:
        self.run()


class Fails(Callback):
    """Ends its run with an error."""

    def on_step_end(self) -> None:
        raise ZeroDivisionError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    trainer = built(num_epochs=1)
    trainer.train()
    return trainer.save_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("kind", [AtEpochEnds, AtSteps])
@pytest.mark.parametrize("way", ["seeded", "resumed", "failing"])
def test_a_run_in_a_hook_of_another_leaves_what_that_draws_as_it_was(
    kind: type[Trains], way: str, saved: Path
) -> None:
    alone = built(seed=1)
    alone.train()
    seed = None if way == "resumed" else 7
    trains = kind(seed, saved if way == "resumed" else None, way == "failing")
    outer = built(trains, seed=1)
    outer.train()
    assert len(set(trains.ends)) == 1, "the inner one is as it is alone"
    assert [row["train_loss"] for row in outer.history] == [
        row["train_loss"] for row in alone.history
    ]


def test_runs_without_a_seed_in_a_hook_draw_other_numbers_each_time() -> None:
    trains = AtEpochEnds(None, None, False)
    built(trains, seed=1).train()
    assert len(set(trains.ends)) == 3


def test_a_run_after_another_leaves_the_generators_where_it_came_to() -> None:
    built(seed=1).train()
    after = torch.get_rng_state()
    built(seed=1).train()
    assert torch.equal(torch.get_rng_state(), after)
    torch.manual_seed(1)
    assert not torch.equal(torch.get_rng_state(), after)
