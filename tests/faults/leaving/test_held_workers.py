"""P6: workers of an iterator that nothing but the error of a run would keep alive."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from faults.leaving.test_lost_workers import Shards
from faults.leaving.test_workers import Bad, FailsInside, Wraps
from faults.runs import Augmented, build, loader_of
from torch.utils.data import DataLoader, Sampler

from training import Callback, DataError
from training.hardware.strategy import Strategy
from training.plugin import share_of


class BreaksOff(Sampler[list[int]]):
    """Gives out one batch and fails: torch asks for more before its iterator is made.

    Args:
        whole: passes before that, which do not fail.
    """

    def __init__(self, whole: int = 0) -> None:
        self.left = whole

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[list[int]]:
        yield [0, 1]
        if not self.left:
            raise ZeroDivisionError
        self.left -= 1
        yield [2, 3]


class Chained(list[Any]):
    """A loader of a user's own, which reads with one inside."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[Any]:
        yield from self.inner


def breaking(persistent: bool = False, whole: int = 0, **options: Any) -> Any:
    given = {"num_workers": 2, "persistent_workers": persistent, **options}
    return DataLoader(Augmented(), batch_sampler=BreaksOff(whole), **given)


def assert_none_is_left(
    kind: type[BaseException] = ZeroDivisionError, **options: Any
) -> Any:
    """Run; fail where a worker lives on while the error is kept; return the error."""
    before = multiprocessing.active_children()
    trainer = build(**options)
    with pytest.raises(kind) as caught:
        trainer.train()
    assert multiprocessing.active_children() == before
    return caught.value


MEASURED: Any = [{"evaluation": {"sanity_batches": 0}}]
PERSISTENT = pytest.mark.parametrize(
    "persistent", [False, True], ids=["new", "that stay"]
)


@PERSISTENT
@pytest.mark.parametrize("whole", [0, 1], ids=["first epoch", "second epoch"])
def test_p6_no_worker_is_left_by_an_iterator_that_fails_as_it_begins(
    persistent: bool, whole: int
) -> None:
    assert_none_is_left(loader=breaking(persistent, whole))


@PERSISTENT
@pytest.mark.parametrize("kind", [Wraps, Chained])
def test_p6_nor_by_one_inside_of_a_loader_of_a_user_s_own(
    kind: Any, persistent: bool
) -> None:
    assert_none_is_left(loader=kind(breaking(persistent)))


@PERSISTENT
@pytest.mark.parametrize("plugins", [["evaluation"], MEASURED], ids=["look", "whole"])
def test_p6_nor_by_one_for_validation(persistent: bool, plugins: Any) -> None:
    loaders = {"whole": loader_of(workers=1), "broken": breaking(persistent)}
    assert_none_is_left(val_dataloader=loaders, plugins=plugins)


def test_p6_nor_where_a_sample_for_validation_cannot_be_loaded() -> None:
    bad = DataLoader(Bad("raises"), batch_size=2, num_workers=2)
    assert_none_is_left(OSError, val_dataloader=bad, plugins=MEASURED)


class Reads(Callback):
    """Reads with a loader of its own at each step, as for rows without labels."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self.batches = batches

    def on_step_end(self) -> None:
        next(self.batches)


def test_p6_those_of_an_iterator_that_a_user_s_function_reads_go_on() -> None:
    own: Any = iter(DataLoader(Bad("raises"), batch_size=2, num_workers=1))
    trainer = build(Reads(own))
    with pytest.raises(OSError, match="row 5 is rotten"):
        trainer.train()
    assert len(list(own)) == 3  # of six, after two and the one that is rotten


class Other(Strategy):
    """Of two processes, the other of which reads nothing."""

    size, data = 2, "shared"  # type: ignore[assignment]


@pytest.mark.parametrize("rows", ["by index", "sliced"])
def test_p6_nor_by_the_share_of_a_process_that_the_others_do_not_follow(
    rows: str,
) -> None:
    before = multiprocessing.active_children()
    loader = loader_of(workers=1)
    share = share_of(loader if rows == "by index" else Chained(loader), Other())
    with pytest.raises(DataError, match="ends on 1 of 2 processes") as caught:
        list(share)
    assert multiprocessing.active_children() == before
    del caught


def test_p6_nor_by_an_evaluation_outside_of_a_run() -> None:
    before = multiprocessing.active_children()
    bad = DataLoader(Bad("raises"), batch_size=2, num_workers=2)
    trainer = build(val_dataloader=bad, plugins=MEASURED)
    with pytest.raises(OSError, match="row 5 is rotten") as caught:
        trainer.plugins["evaluation"].measure(trainer)  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == before
    del caught


def test_p6_what_failed_before_the_run_keeps_its_workers() -> None:
    batches = iter(loader_of(workers=1))
    own = batches._workers
    try:
        next(batches)
        raise ZeroDivisionError
    except ZeroDivisionError:
        trainer = build(FailsInside())
        with suppress(ZeroDivisionError):
            trainer.train()
    assert all(each.is_alive() for each in own)
    assert len(list(batches)) == 5


def test_p6_workers_that_ran_before_outlive_a_failure_of_what_they_load() -> None:
    before = multiprocessing.active_children()
    options = {"batch_size": 2, "num_workers": 1, "persistent_workers": True}
    validation = DataLoader(Bad("raises"), **options)
    next(iter(validation))
    (own,) = set(multiprocessing.active_children()) - set(before)
    with pytest.raises(OSError, match="row 5 is rotten"):
        build(val_dataloader=validation, plugins=MEASURED).train()
    assert own in multiprocessing.active_children()
    validation._iterator._shutdown_workers()


def test_p6_what_another_library_calls_its_workers_is_not_ended() -> None:
    with pytest.raises(FileNotFoundError, match="no such shard"):
        build(loader=Shards([0])).train()


class IsKilled:
    """Loses the workers that were not there before while a batch is measured."""

    def __init__(self, before: Any) -> None:
        self.before, self.real = before, None

    def __call__(self, *arguments: Any) -> Any:
        for each in set(multiprocessing.active_children()) - {*self.before}:
            each.kill()
            # Left as it died: torch's handler, which speaks in here, looks for it.
            os.waitid(os.P_PID, each.pid, os.WEXITED | os.WNOWAIT)
        return self.real(*arguments)  # type: ignore[misc]


@PERSISTENT
def test_p6_a_worker_for_validation_that_is_lost_in_measuring_is_named(
    monkeypatch: pytest.MonkeyPatch, persistent: bool
) -> None:
    validation = loader_of(workers=1, persistent_workers=persistent)
    loaders = {"clean": loader_of(), "other": validation}
    trainer = build(val_dataloader=loaders, plugins=MEASURED)
    dies = IsKilled(multiprocessing.active_children())
    dies.real = trainer.compute_loss
    monkeypatch.setattr(trainer, "compute_loss", dies)
    said = r"val_dataloader\['other'\] lost a worker .* before batch 1 arrived"
    with pytest.raises(DataError, match=said):
        trainer.train()


def test_p6_a_worker_for_training_that_is_lost_in_measuring_is_one_of_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plugins = [{"evaluation": {"sanity_batches": 0, "every_n_steps": 1}}]
    trainer = build(
        loader=loader_of(workers=1), val_dataloader=loader_of(), plugins=plugins
    )
    real, dies = trainer.compute_loss, IsKilled(multiprocessing.active_children())
    dies.real = real
    monkeypatch.setattr(trainer, "compute_loss", dies)
    with pytest.raises(DataError, match="train_dataloader lost a worker") as caught:
        trainer.train()
    notes = getattr(caught.value.__cause__, "__notes__", ())
    assert any("in evaluate" in note for note in notes)


def test_p6_one_that_does_not_answer_is_not_taken_for_one_of_training() -> None:
    options = {"batch_size": 2, "num_workers": 2, "timeout": 2}
    late = DataLoader(Bad("hangs"), **options)
    said = r"val_dataloader: batch 2 did not arrive within 2 s;"
    trainer = build(
        loader=loader_of(workers=1, persistent_workers=True),
        val_dataloader=late,
        plugins=MEASURED,
    )
    with pytest.raises(DataError, match=said):
        trainer.train()
