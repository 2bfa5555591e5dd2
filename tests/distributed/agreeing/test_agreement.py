"""What one process asks for holds for all, at the boundary it was made for."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from ranks import Ranks
from toy import make_trainer, regression_batches

from training import Callback, Trainer
from training.plugin import Strategy

distributed = pytest.mark.distributed

HOOKS = ["wrap_model", "wrap_dataloader", "on_setup", "metric_names", "on_train_begin"]
HOOKS += ["on_epoch_begin", "on_batch_begin", "on_batch_end", "on_before_step"]
HOOKS += ["on_step_end", "evaluate", "on_metrics", "on_epoch_end", "on_checkpoint"]
HOOKS += ["on_train_end"]
#: Those in which a boundary is begun, served and ended.
AT_BOUNDARIES = ["on_batch_end", "on_step_end", "evaluate", "on_metrics"]
AT_BOUNDARIES += ["on_epoch_end", "on_checkpoint"]
KINDS = ["stop", "checkpoint", "evaluation"]


class Unmeasured:
    """Batches without a length."""

    def __iter__(self) -> Iterator[Any]:
        return iter(regression_batches(5, 4))


def asking(hook: str, kind: str, at: int, rank: int) -> Callback:
    """Return a plugin that asks once, from step ``at`` on, on one process only.

    Args:
        hook: in which it asks.
        kind: what for.
        at: the least step.
        rank: of the process; -1: the last one.
    """
    left = [1]

    def method(self: Callback, trainer: Trainer) -> None:
        is_one = trainer.rank == rank % trainer.world_size
        if is_one and left[0] and trainer.step >= at:
            left[0] -= 1
            getattr(trainer, f"request_{kind}")("please")

    return type("Asks", (Callback,), {hook: method})()


class Trace(Callback):
    """Notes where what was done."""

    # Who listens later hears at once only what its own process asks for.
    before = ("Asks",)

    def __init__(self) -> None:
        self.done: list[Any] = []

    def note(self, what: str, trainer: Trainer, reason: str) -> None:
        self.done.append((what, trainer.epoch, trainer.step, plainly(reason)))

    def evaluate(self, trainer: Trainer, reason: str) -> dict[str, float]:
        self.note("evaluate", trainer, reason)
        return {"val_loss": 1.0 + trainer.rank}

    def on_metrics(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        self.note("metrics", trainer, str(sorted(metrics)))
        self.done.append(metrics["val_loss"])

    def on_checkpoint(self, trainer: Trainer, reason: str) -> None:
        self.note("checkpoint", trainer, f"{reason}, {trainer.is_stopping}")


def plainly(reason: str) -> str:
    """Return ``reason`` without the process that gave it."""
    return reason.replace(" (rank 1)", "")


def asked(
    hook: str, kind: str, at: int, rank: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Train; return all that the run did, and what was asked of it."""
    options = dict(options)
    batches = Unmeasured() if options.pop("unmeasured", False) else None
    trace = Trace()
    trainer = make_trainer(
        *(None, batches or regression_batches(5, 4)),
        *(trace, asking(hook, kind, at, rank)),
        plugins=[{"distributed": {}}],
        **{"num_epochs": 2, **options},
    )
    trainer.train()
    made = [(r.kind, r.owner, plainly(r.reason), r.step) for r in trainer.requests]
    stop = trainer.stop_owner, plainly(trainer.stop_reason or "")
    at_end = trainer.epoch, trainer.step, len(trainer.history)
    return {"done": trace.done, "made": made, "stop": stop, "at_end": at_end}


def asked_everywhere(
    kind: str, at: int, rank: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what ``asked`` returns for each hook."""
    hooks = AT_BOUNDARIES if at else HOOKS
    return {hook: asked(hook, kind, at, rank, options) for hook in hooks}


@distributed
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("at", "options"),
    [
        pytest.param(0, {}, id="at the first chance"),
        pytest.param(3, {}, id="inside an epoch"),
        pytest.param(5, {}, id="at an epoch's end"),
        pytest.param(2, {"gradient_accumulation_steps": 2}, id="with a tail window"),
        pytest.param(3, {"unmeasured": True}, id="without a length"),
        pytest.param(4, {"max_steps": 4}, id="at max_steps"),
    ],
)
def test_d18_what_the_last_rank_asks_for_alone_is_granted_where_one_process_grants_it(
    two: Ranks, kind: str, at: int, options: dict[str, Any]
) -> None:
    alone = asked_everywhere(kind, at, 0, options)
    for each in two.run(asked_everywhere, kind, at, -1, options):
        assert each.keys() == alone.keys()
        for hook, done in alone.items():
            assert each[hook] == done, hook


def noted(kind: str, rank: int | None) -> list[str]:
    """Return the reasons of a run in which one rank asks, or (None) all do."""
    asks = [asking("on_step_end", kind, 2, r) for r in ([rank] if rank else [0, 1])]
    trainer = make_trainer(
        None, None, *asks[:1], plugins=[{"distributed": {}}], num_epochs=1
    )
    if rank is None:
        trainer = make_trainer(
            *(None, None, asking("on_step_end", kind, 2, trainer.rank)),
            plugins=[{"distributed": {}}],
        )
    trainer.train()
    return [f"{r.owner}: {r.reason} at {r.step}" for r in trainer.requests]


@distributed
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rank", "told"),
    [
        pytest.param(1, ["Asks: please (rank 1) at 2"], id="another rank is named"),
        pytest.param(None, ["Asks: please at 2"], id="of all it is one request"),
    ],
)
def test_d18_the_history_tells_who_asked_and_once(
    two: Ranks, kind: str, rank: int | None, told: list[str]
) -> None:
    assert two.run(noted, kind, rank) == [told, told]


class ByTheClock(Callback):
    """Asks for what is due by a clock of its own, which only this process has."""

    def __init__(self, ticks: list[float]) -> None:
        self.ticks = iter(ticks)

    def on_step_end(self, trainer: Trainer) -> None:
        if next(self.ticks) > 1.0:
            trainer.request_checkpoint("a minute is over")
        if next(self.ticks) > 1.0:
            trainer.request_stop("the time is over")


def timed(ticks: list[list[float]]) -> Any:
    """Train where each rank has its own clock."""
    trace = Trace()
    rank = torch.distributed.get_rank()
    trainer = make_trainer(
        *(None, regression_batches(5), ByTheClock(ticks[rank]), trace),
        plugins=[{"distributed": {}}],
    )
    trainer.train()
    return trainer.step, trainer.stop_reason, trace.done


def rank_of() -> int:
    """Join the group; return the rank."""
    trainer = make_trainer(None, None, plugins=[{"distributed": {}}])
    return trainer.rank


@distributed
def test_d18_a_plugin_that_decides_by_the_time_on_one_rank_decides_for_all(
    two: Ranks,
) -> None:
    assert two.run(rank_of) == [0, 1]
    slow, fast = [0.0] * 10, [0, 0, 2, 0, 0, 2.0]
    first, second = two.run(timed, [slow, fast])
    assert first == second
    step, reason, done = first
    assert (step, reason) == (3, "the time is over (rank 1)")
    saved = [each[2:] for each in done if each[0] == "checkpoint"]
    assert saved == [(2, "a minute is over, False"), (3, "stop, True")]


class Measures(Callback):
    """Measures what differs by the process."""

    def __init__(self, keys: Mapping[int, list[str]]) -> None:
        self.keys = keys
        self.heard: list[dict[str, float]] = []

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        return dict.fromkeys(self.keys[trainer.rank], 10.0 + trainer.rank)

    def on_metrics(self, metrics: Mapping[str, float]) -> None:
        self.heard.append(dict(metrics))


class Again(Measures):
    """Another producer."""


def measured(*keys: Mapping[int, list[str]]) -> Any:
    """Return what deciders hear, and whose it is, or the error."""
    plugins = [kind(each) for kind, each in zip((Measures, Again), keys, strict=False)]
    trainer = make_trainer(None, None, *plugins, plugins=[{"distributed": {}}])
    if "watched" in keys:
        trainer.require_metric("f1", "somebody")
    try:
        trainer.train()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    produced = {name: value.producer for name, value in trainer.metrics.items()}
    heard = [{**each, "train_loss": 0.0} for each in plugins[0].heard]
    return heard, produced, {**trainer.history[-1], "seconds": 0.0}


@distributed
@pytest.mark.parametrize(
    "other",
    [
        pytest.param(["val_loss"], id="other values"),
        pytest.param(["val_loss", "f1"], id="more keys"),
        pytest.param([], id="fewer keys"),
    ],
)
def test_d21_all_decide_by_the_numbers_of_the_main_process(
    two: Ranks, other: list[str]
) -> None:
    first, second = two.run(measured, {0: ["val_loss"], 1: other})
    assert first == second
    heard, produced, _ = first
    assert heard == [{"train_loss": 0.0, "val_loss": 10.0}]
    assert produced == {"train_loss": "trainer", "val_loss": "Measures"}


@distributed
def test_d21_a_metric_that_comes_twice_on_main_ends_all_with_one_sentence(
    two: Ranks,
) -> None:
    twice = {0: ["f1"], 1: ["f1"]}, {0: ["f1"], 1: ["em"]}
    first, second = two.run(measured, *twice)
    assert first == second
    assert "metric 'f1' comes from both" in first


class Pair(Strategy):
    """One of two processes that are threads.

    Args:
        rank: which.
        meeting: where both wait.
        told: what each tells, by rank.
        is_deaf: whether it takes its own numbers for those of both.
    """

    def __init__(
        self, rank: int, meeting: threading.Barrier, told: list[Any], is_deaf: bool
    ) -> None:
        self._rank, self._meeting, self._told = rank, meeting, told
        self._is_deaf = is_deaf
        self.sums = self.texts = 0

    rank = property(lambda self: self._rank)
    size = property(lambda self: 2)

    def sum(self, values: Any) -> list[float]:
        self.sums += 1
        if self._is_deaf:
            return list(values)
        return [sum(each) for each in zip(*self._exchanged(values), strict=True)]

    def gather(self, value: Any) -> list[Any]:
        self.texts += 1
        return [value, value] if self._is_deaf else self._exchanged(value)

    def on_main(self, work: Any) -> Any:
        return self._exchanged(work() if self.is_main else None)[0]

    def _exchanged(self, value: Any) -> list[Any]:
        self._told[self._rank] = value
        self._meeting.wait(10)
        both = list(self._told)
        self._meeting.wait(10)
        return both


class Pairs(Callback):
    """Makes a run one of two."""

    hook_api = ">=1.1,<2"

    def __init__(self, strategy: Pair) -> None:
        self.strategy = strategy

    def make_strategy(self) -> Pair:
        return self.strategy


def both(hook: str | None, is_deaf: bool) -> list[tuple[int, int, int]]:
    """Return (step, sums, texts) of two threads, of which the last asks to stop."""
    meeting, told, steps = threading.Barrier(2), [None, None], [0, 0]
    pair = [Pair(rank, meeting, told, is_deaf) for rank in (0, 1)]

    def train(rank: int) -> None:
        asks = [asking(hook, "stop", 2, -1)] if hook else []
        trainer = make_trainer(
            *(None, regression_batches(4, 4), Pairs(pair[rank]), *asks), num_epochs=2
        )
        try:
            trainer.train()
        except threading.BrokenBarrierError:
            pass
        finally:
            steps[rank] = trainer.step
            meeting.abort()

    threads = [threading.Thread(target=train, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [(steps[r], pair[r].sums, pair[r].texts) for r in (0, 1)]


@pytest.mark.parametrize("hook", ["on_step_end", "on_batch_begin", "on_before_step"])
def test_d18_without_the_agreement_the_ranks_part_ways(hook: str) -> None:
    (first, *_), (second, *_) = both(hook, is_deaf=False)
    assert first == second
    (first, *_), (second, *_) = both(hook, is_deaf=True)
    assert first != second


def test_d18_a_step_in_which_nobody_asks_costs_one_sum_and_no_text() -> None:
    (steps, sums, texts), other = both(None, is_deaf=False)
    assert (steps, sums, texts) == other
    assert (steps, texts) == (8, 0)
    epochs, around = 2, 2
    # One a step; at each epoch's begin, its metrics, before and after its checkpoint.
    assert sums == steps + 4 * epochs + around
