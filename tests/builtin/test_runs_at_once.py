"""Runs of one process draw from the same generators."""

from __future__ import annotations

import logging
import multiprocessing
import random
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from toy import Regression, regression_batches

from training import Callback, Trainer
from training.builtin.runs_at_once import among_others


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


def test_a_seeded_run_leaves_what_its_caller_draws_as_it_was() -> None:
    torch.manual_seed(5)
    random.seed(5)
    expected = torch.rand(3), random.random()
    torch.manual_seed(5)
    random.seed(5)
    built(seed=1).train()
    assert torch.equal(torch.rand(3), expected[0])
    assert random.random() == expected[1]


def test_a_run_without_a_seed_draws_from_what_its_caller_draws_from() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    built().train()
    assert not torch.equal(torch.get_rng_state(), before)


def test_a_search_draws_another_trial_after_each_seeded_run() -> None:
    drawn = set()
    for _ in range(3):
        drawn.add(torch.rand(()).item())
        built(seed=0).train()
    assert len(drawn) == 3


def test_what_is_saved_after_a_seeded_run_goes_on_as_what_it_saved_itself(
    tmp_path: Path,
) -> None:
    trainer = built(seed=1, num_epochs=1)
    trainer.train()
    torch.rand(7)  # the caller's
    path = trainer.save_checkpoint(tmp_path / "after.pt")
    rest, whole = built(seed=1, num_epochs=3), built(seed=1, num_epochs=3)
    rest.train(resume=path)
    whole.train()
    for own, other in zip(
        rest.model.parameters(), whole.model.parameters(), strict=True
    ):
        assert torch.equal(own, other)


def test_what_is_saved_before_a_run_without_a_seed_begins_as_that_run_does(
    tmp_path: Path,
) -> None:
    trainer = built()
    torch.rand(7)
    path = trainer.save_checkpoint(tmp_path / "before.pt")
    trainer.train()
    torch.rand(7)
    rest = built()
    rest.train(resume=path)
    for own, other in zip(
        rest.model.parameters(), trainer.model.parameters(), strict=True
    ):
        assert torch.equal(own, other)


def orders(*reseeds: int | None) -> list[tuple[int, ...]]:
    """Return the order of the rows in one ``train()`` for each of ``reseeds``."""
    seen: list[int] = []

    class Rows(Dataset[Any]):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> Any:
            seen.append(index)
            return torch.ones(3), torch.ones(1)

    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 1))
    trainer = Trainer(
        model,
        DataLoader(Rows(), batch_size=4, shuffle=True),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=nn.functional.mse_loss,
        loss_per="samples",
        device="cpu",
    )
    found = []
    for seed in reseeds:
        if seed is not None:
            torch.manual_seed(seed)
        seen.clear()
        trainer.train()
        found.append(tuple(seen[-8:]))
    return found


def test_without_a_seed_each_run_has_an_order_of_its_own() -> None:
    assert len(set(orders(None, None, None))) == 3


def test_without_a_seed_that_of_torch_decides_the_order() -> None:
    first, other, again = orders(1, 2, 1)
    assert first == again != other


class InAThread(AtEpochEnds):
    """At each epoch's end, in a thread that is waited for."""

    def run(self) -> None:
        thread = threading.Thread(target=super().run)
        thread.start()
        thread.join()


@pytest.mark.parametrize(("kind", "times"), [(AtEpochEnds, 0), (InAThread, 2)])
def test_a_run_that_begins_while_one_of_another_thread_is_on_is_told_of(
    kind: type[Trains], times: int, caplog: pytest.LogCaptureFixture
) -> None:
    trains = kind(7, None, False)
    built(trains, num_epochs=2).train()
    assert caplog.text.count("a run of another thread of this process is on") == times
    caplog.clear()
    thread = threading.Thread(target=trains.run)  # when no other one is on any more
    thread.start()
    thread.join()
    assert len(trains.ends) == 3
    assert "another thread" not in caplog.text


def told_in_a_thread(trainer: Trainer) -> bool:
    """Return whether a run that began now in a thread would be told of others."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]

    def begin() -> None:
        with among_others(trainer):
            pass

    logger = logging.getLogger("training")
    logger.addHandler(handler)
    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    logger.removeHandler(handler)
    return any("another thread" in each for each in said)


def test_in_a_forked_process_no_run_of_another_thread_is_on() -> None:
    fork, trainer = multiprocessing.get_context("fork"), built()
    said = fork.SimpleQueue()
    process = fork.Process(target=lambda: said.put(told_in_a_thread(trainer)))
    with among_others(trainer):
        assert told_in_a_thread(trainer)
        process.start()
        assert not said.get()
        process.join()
