"""P6: workers that are lost while others begin, are measured with, or ended."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any

import pytest
from faults.leaving.test_workers import Bad, FailsInside, breaks
from faults.runs import Augmented, build, loader_of
from torch.utils.data import DataLoader, Sampler
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from training import DataError


@pytest.mark.parametrize(
    ("sanity_batches", "batch"),
    [(0, "batch 0"), (1, "a batch")],
    ids=["measured", "looked at"],
)
def test_p6_a_worker_for_validation_whose_line_breaks_is_told_as_lost(
    monkeypatch: pytest.MonkeyPatch, sanity_batches: int, batch: str
) -> None:
    torchs: Any = _MultiProcessingDataLoaderIter
    error = ConnectionResetError()
    monkeypatch.setattr(torchs, "_try_get_data", lambda self: breaks(self, error))
    plugins = [{"evaluation": {"sanity_batches": sanity_batches}}]
    trainer = build(val_dataloader=loader_of(workers=1), plugins=plugins)
    said = rf"val_dataloader lost a worker .*{batch} arrived"
    with pytest.raises(DataError, match=said) as caught:
        trainer.train()
    words = caught.value.__cause__
    assert isinstance(words, RuntimeError)
    assert words.__cause__ is error
    assert (trainer.step > 0) == (sanity_batches == 0)


def test_p6_one_that_is_lost_as_the_others_are_ended_leaves_none_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch: Any = signal_handling
    real, lost = watch._remove_worker_pids, list[Any]()

    def remove(key: int) -> None:
        if not lost:  # torch's handler is called before anything else
            lost.append(key)
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")
        real(key)

    monkeypatch.setattr(watch, "_remove_worker_pids", remove)
    before = multiprocessing.active_children()
    trainer: Any = build(FailsInside(), loader=loader_of(workers=2))
    with pytest.raises(RuntimeError, match="is killed by signal") as caught:
        trainer.train()
    assert isinstance(caught.value.__context__, ZeroDivisionError)
    assert multiprocessing.active_children() == before


class Shards(list[Any]):
    """A loader of another library, whose first batch cannot be opened."""

    def __iter__(self) -> Any:
        return Reading()


class Reading:
    """Its iterator, which has something that it calls its workers."""

    _workers = ("a thread",)

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        raise FileNotFoundError(2, "no such shard")


def test_p6_an_error_of_another_library_s_loader_stays_whatever_works_for_it() -> None:
    plugins = [{"evaluation": {"sanity_batches": 0}}]
    trainer = build(val_dataloader=Shards([0]), plugins=plugins)
    with pytest.raises(FileNotFoundError, match="no such shard"):
        trainer.train()


def test_p6_one_that_is_lost_before_an_index_is_asked_for_is_told_without_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torchs: Any = _MultiProcessingDataLoaderIter
    real = torchs._try_put_index

    def put(batches: Any) -> None:
        if trainer.epoch == 1:
            pid = batches._workers[0].pid
            raise RuntimeError(f"DataLoader worker (pid {pid}) is killed by signal.")
        real(batches)

    monkeypatch.setattr(torchs, "_try_put_index", put)
    # Of two batches: all indices of the epoch before are known still.
    trainer = build(loader=DataLoader(Augmented(), batch_size=6, num_workers=1))
    with pytest.raises(DataError, match="before batch 0 of the epoch, from worker 0"):
        trainer.train()


class AsksLate(Sampler[list[int]]):
    """Gives out the second batch when a worker has died, from an ``epoch`` on."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def set_epoch(self, epoch: int) -> None:
        self.is_late = epoch >= self.epoch

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[list[int]]:
        yield [5, 6] if self.is_late else [0, 1]
        if self.is_late:
            wait([each.sentinel for each in multiprocessing.active_children()])
        yield [2, 3]


@pytest.mark.parametrize("persistent", [False, True], ids=["new", "that stay"])
@pytest.mark.parametrize("epoch", [0, 1])
def test_p6_a_worker_that_is_lost_while_the_others_begin_is_named_too(
    epoch: int, persistent: bool
) -> None:
    # What is loaded ahead is asked for one by one; it has died of the first before.
    asks = AsksLate(epoch)
    options = {"num_workers": 1, "persistent_workers": persistent}
    loader = DataLoader(Bad("is killed"), batch_sampler=asks, **options)
    said = r"lost a worker .*batch 0 of the epoch, samples \[5, 6\], from worker 0"
    with pytest.raises(DataError, match=said):
        build(loader=loader).train()
