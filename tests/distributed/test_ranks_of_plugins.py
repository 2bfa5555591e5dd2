"""Collectives belong where all processes are; a hook of one process alone has none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Ranks
from toy import Fails, make_trainer

from training import (
    Callback,
    ConfigError,
    EarlyStoppingCallback,
    LearningRateSchedulerCallback,
    PluginError,
    TrainbusError,
    Trainer,
)
from training.plugin import capture, heard_if

pytestmark = pytest.mark.distributed

#: Name -> what a hook asks of a strategy.
ASKED: Mapping[str, Callable[[Any], Any]] = {
    "sum": lambda strategy: strategy.sum([1.0]),
    "gather": lambda strategy: strategy.gather(1),
    "on_main": lambda strategy: strategy.on_main(lambda: 1),
    "nested": lambda strategy: strategy.on_main(lambda: strategy.sum([1.0])),
}


class Asks(Callback):
    """Calls a collective once, and keeps the answer, or what it says against it."""

    name = "asks"

    def __init__(self, what: str) -> None:
        self.what = what
        self.answers: list[Any] = []

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == 1:
            try:
                self.answers.append(ASKED[self.what](trainer.strategy))
            except PluginError as error:
                self.answers.append(str(error))


class AsksOnMain(Asks):
    ranks = "main"


def run_of(*callbacks: Callback, **options: Any) -> Trainer:
    options = {"plugins": ["distributed"], "device": "cpu", **options}
    return make_trainer(None, None, *callbacks, **options)


def asked(what: str, is_main_only: bool) -> list[Any]:
    plugin = (AsksOnMain if is_main_only else Asks)(what)
    run_of(plugin).train()
    return plugin.answers


@pytest.mark.parametrize("what", ["sum", "gather", "on_main"])
def test_d26_a_collective_in_a_hook_of_main_alone_is_refused_at_once(
    two: Ranks, what: str
) -> None:
    (words,), none = two.run(asked, what, True)
    assert f"plugin 'asks' calls trainer.strategy.{what}" in words
    assert "says ranks = 'main'" in words
    assert none == []


def test_d26_a_collective_inside_of_what_main_does_for_all_is_refused(
    two: Ranks,
) -> None:
    for (words,) in two.run(asked, "nested", False):
        assert "sum is called inside of on_main(work)" in words


@pytest.mark.parametrize(
    ("what", "answer"), [("sum", [2.0]), ("gather", [1, 1]), ("on_main", 1)]
)
def test_d26_a_plugin_that_all_call_may_ask_all(
    two: Ranks, what: str, answer: Any
) -> None:
    assert two.run(asked, what, False) == [[answer]] * 2


class Measures(Callback):
    """Evaluates where it is called, and notes what all are told of it."""

    def __init__(self) -> None:
        self.calls = 0

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        self.calls += 1
        return {"mine": 0.5}

    def metric_names(self) -> list[str]:
        return ["mine"]


class MeasuresOnMain(Measures):
    name = "measures"
    ranks = "main"


def measured() -> tuple[int, bool]:
    """Return how often it was called here, and whether its metric is known."""
    plugin = MeasuresOnMain()
    trainer = run_of(plugin)
    trainer.train()
    return plugin.calls, "mine" in (trainer.state.metrics.known_names or ())


def test_d25_a_metric_that_main_alone_measures_is_known_to_all(two: Ranks) -> None:
    assert two.run(measured) == [(1, True), (0, True)]


def refused(options: Mapping[str, Any]) -> str:
    try:
        run_of(**options)
    except ConfigError as error:
        return str(error)
    return ""


def test_d40_recorded_steps_are_refused_on_several_processes(two: Ranks) -> None:
    for words in two.run(refused, {"cuda_graphs": True}):
        assert words.startswith("cuda_graphs is on and the run is of 2 processes")
    assert two.run(refused, {}) == ["", ""]


class LooksOnMain(Callback):
    """Looks at gradients, in the main process alone."""

    ranks = "main"

    def __init__(self) -> None:
        self.looks = 0

    def on_before_step(self, trainer: Trainer) -> None:
        self.looks += all(p.grad is not None for p in trainer.model.parameters())


def looked_at(is_looked_at: bool) -> tuple[int, list[Any]]:
    """Return how often gradients were looked at, and the weights."""
    looks = LooksOnMain()
    trainer = run_of(*([looks] if is_looked_at else []))
    trainer.train()
    return looks.looks, [p.tolist() for p in trainer.model.parameters()]


def test_d25_main_alone_may_look_at_gradients_before_a_step(two: Ranks) -> None:
    (looks, weights), (none, others) = two.run(looked_at, True)
    assert looks > 1
    assert none == 0
    assert weights == others
    assert [each[1] for each in two.run(looked_at, False)] == [weights, weights]


class Wakes(Callback):
    """Would act at steps from the moment on at which a run has begun."""

    name = "wakes"
    acts = False

    def __init__(self) -> None:
        self.heard: list[int] = []

    def on_train_begin(self) -> None:
        self.acts = True

    @heard_if(lambda self: self.acts)
    def on_step_end(self, trainer: Trainer) -> None:
        self.heard.append(trainer.step)


class FailsOnMain(Fails):
    """Hears each step on the main process alone, until it is switched off there."""

    ranks = "main"


def heard_by_wakes() -> list[list[int]]:
    plugin = Wakes()
    trainer = run_of(plugin, FailsOnMain())
    trainer.train()
    first = list(plugin.heard)
    trainer.train()
    return [first, plugin.heard]


def test_d26_a_plugin_hears_on_all_processes_what_it_hears_on_one(two: Ranks) -> None:
    main, other = two.run(heard_by_wakes)
    assert main == other
    assert main[0] == []
    assert main[1]


class Draws(Callback):
    """Keeps a generator that is seeded by rank, or by none."""

    name = "draws"

    def __init__(self, seeds_by_rank: bool) -> None:
        self.seeds_by_rank = seeds_by_rank

    def on_setup(self, trainer: Trainer) -> None:
        self.rank = trainer.rank
        seed = trainer.rank if self.seeds_by_rank else 0
        self.generator = torch.Generator().manual_seed(seed)

    def state_dict(self) -> dict[str, Any]:
        names = {"a": 1, "b": 2}  # in an order of each process
        counts = dict(sorted(names.items(), reverse=self.rank == 1))
        rest = [1, 0.5, "a", None]
        return {"generator": self.generator.get_state(), "by": counts, "rest": rest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.generator.set_state(state["generator"])


class Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())


class Counts(Callback):
    """Has a state that moves in each step, where it is called."""

    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]


class CountsOnMain(Counts):
    name = "counts_on_main"
    ranks = "main"


def heard_words() -> list[str]:
    """Return a list to which is added what is said of the states of plugins."""
    heard, log = Heard(), logging.getLogger("training.checkpoint.plugin_states")
    log.addHandler(heard)
    return heard.words


def words_of_saves(seeds_by_rank: bool) -> list[str]:
    """Return what two saves say of the states of plugins."""
    words = heard_words()
    trainer = run_of(Draws(seeds_by_rank), *shipped())
    trainer.train()
    for _ in range(2):
        capture(trainer)
    return words


def words_of_resumed(path: Path) -> list[str]:
    """Return what is said where a run goes on from ``path``, and saves."""
    words = heard_words()
    earlier = run_of(CountsOnMain(), max_steps=2)
    earlier.train()
    earlier.save_checkpoint(path)
    resumed = run_of(CountsOnMain())
    resumed.load_checkpoint(path)
    resumed.train()
    capture(resumed)
    return words


def shipped() -> list[Callback]:
    """Return the shipped plugins that all processes call and that keep a state."""
    return [
        EarlyStoppingCallback("train_loss"),
        LearningRateSchedulerCallback(type="linear"),
    ]


def test_d25_a_state_that_differs_by_rank_is_told_once_since_one_is_saved(
    two: Ranks,
) -> None:
    (words,), none = two.run(words_of_saves, True)
    assert words.startswith("the state of plugin 'draws' is not the same on all")
    assert none == []


def test_d25_a_state_that_is_the_same_on_all_is_not_spoken_of(two: Ranks) -> None:
    assert two.run(words_of_saves, False) == [[], []]


def test_d25_nor_is_what_was_loaded_for_a_plugin_that_main_alone_calls(
    two: Ranks, tmp_path: Path
) -> None:
    assert two.run(words_of_resumed, tmp_path / "one.pt") == [[], []]


class FailsHere(Callback):
    """Fails on one process, as for want of a disk, and asks all at the epoch's end."""

    name = "fails"
    failure = "isolate"

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.rank == self.rank:
            raise OSError("no disk")

    def on_epoch_end(self, trainer: Trainer) -> None:
        trainer.strategy.sum([1.0])


def ended(rank: int) -> tuple[str, str]:
    """Return the error that ends the run here, and what is noted on it."""
    try:
        run_of(FailsHere(rank)).train()
    except (OSError, TrainbusError) as error:
        return str(error), "; ".join(getattr(error, "__notes__", ()))
    return "", ""


@pytest.mark.parametrize("rank", [0, 1])
def test_d25_an_isolated_plugin_that_fails_on_one_process_ends_the_run_there(
    parted: Ranks, rank: int
) -> None:
    found = parted.run(ended, rank)
    text, notes = found[rank]
    assert text == "no disk"
    assert "raised by plugin 'fails' (" in notes
    assert "in on_step_end at step 1" in notes
    assert f"on rank {rank} of 2" in notes
    assert "runs on all processes" in notes
    assert f"rank {rank} failed: OSError: no disk" in found[1 - rank][0]


class FailsClosing(Callback):
    """Fails on one process, once the run is over there."""

    name = "fails"
    failure = "isolate"

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_close(self, trainer: Trainer) -> None:
        if trainer.rank == self.rank:
            raise OSError("no disk")


def closed(rank: int) -> tuple[int, list[str]]:
    """Return how many steps were made here, and what the bus says of them."""
    heard, log = Heard(), logging.getLogger("training.bus.bus")
    log.addHandler(heard)
    trainer = run_of(FailsClosing(rank))
    trainer.train()
    return trainer.step, heard.words


@pytest.mark.parametrize("rank", [0, 1])
def test_d25_an_isolated_plugin_that_fails_in_closing_fails_no_finished_run(
    two: Ranks, rank: int
) -> None:
    found = two.run(closed, rank)
    assert found[0][0] == found[1][0] > 0
    (words,) = found[rank][1]
    assert words.startswith("plugin 'fails' failed in on_close, ")
    assert found[1 - rank][1] == []
