"""R1: a sampler of whole batches, with ``batch_size=None``, has its order inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.runs import (
    Augmented,
    SavesEverywhere,
    assert_same_end,
    build,
    end_of,
    resumed,
)
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    WeightedRandomSampler,
)

from training.feed.epoch_loader import samplers_of


class Whole(Augmented):
    """Gives a batch for the list of its rows."""

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor, Any]:
        x, y, rows = super().__getitem__(index)
        return x, y, torch.tensor(rows)


def given() -> torch.Generator:
    return torch.Generator().manual_seed(7)


INNER: dict[str, Callable[[], Sampler[Any]]] = {
    "shuffled": lambda: RandomSampler(range(11)),
    "weighted": lambda: WeightedRandomSampler([1.0] * 11, 11),
    "a generator of the user's": lambda: RandomSampler(range(11), generator=given()),
    "one more batch sampler": lambda: RandomSampler(range(11)),
}


def loader(kind: str, workers: int) -> Any:
    sampler: Any = BatchSampler(INNER[kind](), 2, drop_last=False)
    if kind.startswith("one more"):
        sampler = Joined(BatchSampler(INNER[kind](), 1, drop_last=False))
    return DataLoader(Whole(), None, sampler=sampler, num_workers=workers)


class Joined(Sampler[list[int]]):
    """Batches of two of its batch sampler's."""

    def __init__(self, batch_sampler: BatchSampler) -> None:
        self.batch_sampler = batch_sampler

    def __iter__(self) -> Any:
        rows = [row for each in self.batch_sampler for row in each]
        return (rows[at : at + 2] for at in range(0, 11, 2))

    def __len__(self) -> int:
        return 6


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", INNER)
def test_r1_a_sampler_inside_the_sampler_of_whole_batches_resumes(
    tmp_path: Path, kind: str, workers: int
) -> None:
    straight = build(SavesEverywhere(tmp_path), loader=loader(kind, workers))
    straight.train()
    seen = straight.plugins["ids"].seen
    first, second = ([ids for at, *ids in seen if at == each] for each in (0, 1))
    assert first != second
    for step in ("0-1", "0-5", "1-6", "1-9"):
        end = resumed(tmp_path / f"{step}.pt", loader=loader(kind, workers), ambient=5)
        assert_same_end(end, end_of(straight), f"{kind}, {step}")


def test_samplers_that_stand_in_a_circle_are_each_found_once() -> None:
    outer = BatchSampler(Rows(), 2, drop_last=False)
    outer.sampler.sampler = outer  # type: ignore[attr-defined]
    assert samplers_of(DataLoader(Whole(), None, sampler=outer)) == [
        outer,
        outer.sampler,
    ]


class Rows(Sampler[int]):
    """May hold another sampler."""

    def __iter__(self) -> Any:
        return iter(range(11))
