"""A worker sees the user's own data set, and its samples draw the same numbers."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, StackDataset, Subset, get_worker_info

from training.feed.epoch_loader import EpochLoader
from training.feed.sample_seeds import epoch_seed
from training.hardware.rng import seed_host

SEED = 3


class Rows(Dataset[Any]):
    """Gives (what a worker opened, whether it knows itself, a random number)."""

    def __init__(self) -> None:
        self.opened = 0.0

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        worker = get_worker_info()
        owner = None if worker is None else worker.dataset
        inner = owner.dataset if isinstance(owner, Subset) else owner
        return torch.tensor([self.opened, float(inner is self), random.random()])


class Batched(Rows):
    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        return [self[index] for index in indices]


def open_in_worker(worker: int) -> None:
    """Open what the data set needs, as people do it once in each worker."""
    info = get_worker_info()
    assert info is not None
    dataset: Any = info.dataset
    if isinstance(dataset, Subset):
        dataset = dataset.dataset
    assert isinstance(dataset, Rows)
    dataset.opened = 7.0 + worker


def keep(samples: list[torch.Tensor]) -> list[torch.Tensor]:
    return samples  # a collate_fn that might draw: such data sets are seeded


def drawn(loader: Any, epoch: int) -> list[list[float]]:
    batches = EpochLoader(loader, SEED).start(epoch)
    return [row.tolist() for batch in batches for row in batch]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param(Rows, {}, id="forked"),
        pytest.param(
            Rows,
            {"multiprocessing_context": "spawn"},
            id="spawned",
            marks=pytest.mark.slow,
        ),
        pytest.param(Rows, {"persistent_workers": True}, id="persistent"),
        pytest.param(Batched, {}, id="loaded by the batch"),
        pytest.param(lambda: Subset(Rows(), range(8)), {}, id="a part"),
    ],
)
def test_what_worker_init_fn_sets_is_seen_and_the_numbers_stay(
    kind: Any, options: dict[str, Any]
) -> None:
    loader: Any = DataLoader(
        kind(),
        batch_size=2,
        num_workers=1,
        worker_init_fn=open_in_worker,
        collate_fn=keep,
        **options,
    )
    rows = drawn(loader, epoch=1)
    assert {row[0] for row in rows} == {7.0}
    assert {row[1] for row in rows} == {1.0}
    size = 2 if kind is Batched else 1
    for index, row in enumerate(rows):
        if index % size == 0:
            seed_host(epoch_seed(epoch_seed(SEED, 1), index))
        assert row[2] == pytest.approx(random.random())


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Subset(Rows(), range(8)), id="a part"),
        pytest.param(lambda: Subset(Subset(Rows(), range(8)), range(8)), id="twice"),
        pytest.param(lambda: StackDataset(Rows(), Rows()), id="pairs"),
        pytest.param(lambda: Subset(StackDataset(a=Rows()), range(8)), id="named"),
    ],
)
def test_a_sample_draws_the_same_however_large_its_batch_is(make: Any) -> None:
    def numbers(batch_size: int) -> list[Any]:
        loader = DataLoader(make(), batch_size=batch_size, collate_fn=keep)
        batches = EpochLoader(loader, SEED).start(1)
        return [repr(row) for batch in batches for row in batch]

    assert numbers(1) == numbers(2) == numbers(4)


@pytest.mark.parametrize("init", [None, open_in_worker], ids=["none", "one"])
def test_without_seeding_torch_itself_shows_it(init: Any) -> None:
    rows = Rows()
    rows.is_deterministic = True  # type: ignore[attr-defined]
    loader: Any = DataLoader(rows, 2, num_workers=1, worker_init_fn=init)
    assert EpochLoader(loader, SEED).reading.worker_init_fn is init
    assert drawn(loader, epoch=0)[0][0] == (0.0 if init is None else 7.0)


def test_the_users_own_loader_is_left_as_it_was() -> None:
    loader: Any = DataLoader(Rows(), 2, num_workers=1, worker_init_fn=open_in_worker)
    drawn(loader, epoch=0)
    assert loader.worker_init_fn is open_in_worker
    assert type(loader.dataset) is Rows


def test_a_rest_of_an_epoch_is_read_by_the_same_workers() -> None:
    loader: Any = DataLoader(Rows(), 2, num_workers=2, worker_init_fn=open_in_worker)
    whole = drawn(loader, epoch=0)
    batches = EpochLoader(loader, SEED).start(0, 2)
    rest = [row.tolist() for batch in batches for row in batch]
    assert rest == whole[4:]
    assert {row[0] for row in rest} == {7.0, 8.0}


class ByEpoch(Dataset[Any]):
    """Gives (index, epoch): another set of rows in each epoch."""

    epoch = 0

    def __init__(self, is_deterministic: bool) -> None:
        self.is_deterministic = is_deterministic

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index, self.epoch])


@pytest.mark.parametrize("first", [0, 2], ids=["from the start", "resumed"])
@pytest.mark.parametrize("known", [False, True], ids=["", "draws nothing"])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_that_persist_hear_of_each_epoch(
    workers: int, known: bool, first: int
) -> None:
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    loader: Any = DataLoader(ByEpoch(known), 2, **options)
    reader = EpochLoader(loader, SEED)
    for epoch in (first, 3, 4):
        rows = [row.tolist() for batch in reader.start(epoch) for row in batch]
        assert rows == [[index, epoch] for index in range(6)]


class AlsoTold:
    """Makes a batch, and adds the epoch that it knows."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __call__(self, rows: list[torch.Tensor]) -> list[list[int]]:
        return [[*row.tolist(), self.epoch] for row in rows]


@pytest.mark.parametrize("first", [0, 2], ids=["from the start", "resumed"])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="forked"),
        pytest.param(
            {"multiprocessing_context": "spawn"}, id="spawned", marks=pytest.mark.slow
        ),
    ],
)
def test_so_do_a_data_set_in_another_one_and_the_collate_function(
    options: dict[str, Any], first: int
) -> None:
    options = {"num_workers": 2, "persistent_workers": True, **options}
    dataset = Subset(ByEpoch(True), range(6))
    loader: Any = DataLoader(dataset, 2, collate_fn=AlsoTold(), **options)
    reader = EpochLoader(loader, SEED)
    for epoch in (first, 3, 4):
        rows = [row for batch in reader.start(epoch) for row in batch]
        assert rows == [[index, epoch, epoch] for index in range(6)]


@pytest.mark.parametrize("draws", [True, False])
def test_what_can_neither_skip_nor_tell_its_place_is_asked_once_for_each_batch(
    draws: bool,
) -> None:
    class Restarts:
        """An iterator that would begin anew behind its end."""

        def __init__(self) -> None:
            self.left = iter(range(3))

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> float:
            try:
                return next(self.left) + (random.random() if draws else 0.0)
            except StopIteration:
                self.left = iter(range(3))
                raise

    class Loader:
        def __iter__(self) -> Any:
            return Restarts()

    read = [int(each) for each in EpochLoader(Loader(), SEED).start(0)]
    assert read == [0, 1, 2]
