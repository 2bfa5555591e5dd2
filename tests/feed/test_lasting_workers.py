"""Workers that persist, of loaders that cannot tell them of an epoch."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.runs import SavesEverywhere, assert_same_end, build, end_of, resumed
from torch.utils.data import DataLoader, IterableDataset
from toy import regression_batches

from training.feed.epoch_loader import EpochLoader

SAID = "train_dataloader gets new workers in each epoch"


class Stream(IterableDataset[Any]):
    """Rows in an order that the epoch and torch's generator say, with noise."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        x, y = regression_batches(1, 6)[0]
        chosen = random.Random(self.epoch).sample(range(6), 4)
        for row in torch.randperm(4).tolist():
            yield x[chosen[row]] + random.random(), y[chosen[row]], chosen[row]


class Inside(IterableDataset[Any]):
    """Has the data set in it."""

    def __init__(self) -> None:
        self.dataset = Stream()

    def __iter__(self) -> Any:
        return iter(self.dataset)


class Own(DataLoader[Any]):
    """A class of the user's."""


class Hides:
    """What a plugin may put in the place of the user's loader."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader)


def prepared(loader: Any) -> Any:
    accelerate = pytest.importorskip("accelerate")
    return accelerate.Accelerator(cpu=True).prepare(loader)


def rows_of(reader: EpochLoader, epoch: int) -> list[Any]:
    return [part.tolist() for batch in reader.start(epoch) for part in batch]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda options: DataLoader(Stream(), 2, **options), id="torch's"),
        pytest.param(
            lambda options: DataLoader(Inside(), 2, **options), id="in another"
        ),
        pytest.param(lambda options: Own(Stream(), 2, **options), id="a user's class"),
        pytest.param(
            lambda options: prepared(DataLoader(Stream(), 2, **options)),
            id="accelerate's",
        ),
    ],
)
@pytest.mark.parametrize("is_hidden", [False, True], ids=["", "hidden by a plugin"])
def test_workers_that_persist_yield_in_each_epoch_what_new_ones_would(
    make: Any, is_hidden: bool
) -> None:
    def reader(persistent: bool) -> EpochLoader:
        users = make({"num_workers": 2, "persistent_workers": persistent})
        return EpochLoader(Hides(users) if is_hidden else users, 3, users)

    new, lasting = reader(persistent=False), reader(persistent=True)
    straight = [rows_of(lasting, epoch) for epoch in range(3)]
    assert straight == [rows_of(new, epoch) for epoch in range(3)]
    assert rows_of(reader(persistent=True), 2) == straight[2]


def loader_of_two() -> Any:
    return DataLoader(Stream(), 2, num_workers=1, persistent_workers=True)


def test_a_run_over_such_a_loader_resumes_equal_and_says_it_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = multiprocessing.active_children()
    straight = build(SavesEverywhere(tmp_path), loader=loader_of_two(), num_epochs=3)
    straight.train()
    assert multiprocessing.active_children() == before
    assert caplog.text.count(SAID) == 1
    for path in sorted(tmp_path.iterdir()):
        end = resumed(path, loader=loader_of_two(), num_epochs=3, ambient=7)
        assert_same_end(end, end_of(straight), path.name)


@pytest.mark.parametrize("is_told", [False, True])
def test_a_set_epoch_is_asked_for_only_where_there_is_none(
    is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Untold(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(range(4))

    dataset: Any = Inside() if is_told else Untold()
    EpochLoader(DataLoader(dataset, num_workers=1, persistent_workers=True), 3)
    assert caplog.text.count(SAID) == 1
    assert ("give it a set_epoch" in caplog.text) == (not is_told)


@pytest.mark.parametrize("persistent", [False, True])
def test_of_workers_that_hear_of_each_epoch_nothing_is_said(
    persistent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    rows = list(range(4))
    EpochLoader(DataLoader(rows, num_workers=1, persistent_workers=persistent), 3)  # type: ignore[arg-type]
    EpochLoader(DataLoader(Stream(), num_workers=1), 3)
    assert SAID not in caplog.text
