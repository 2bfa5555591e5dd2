"""A sampler that ends with the first epoch is refused as it is passed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, TensorDataset

from training import ConfigError
from training.feed.epoch_loader import EpochLoader, refuse_one_shot

ROWS = TensorDataset(torch.ones(6, 4))


def once() -> Any:
    return (index for index in range(6))


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"batch_size": 2, "sampler": once()}, "generator"),
        ({"batch_size": None, "sampler": iter(range(6))}, "range_iterator"),
        ({"batch_sampler": iter([[0, 1], [2, 3]])}, "list_iterator"),
        ({"batch_sampler": BatchSampler(once(), 2, False)}, "generator"),
    ],
)
@pytest.mark.parametrize("name", ["train_dataloader", "val_dataloader"])
def test_a_sampler_that_can_be_iterated_once_is_refused(
    options: dict[str, Any], kind: str, name: str
) -> None:
    loader: Any = DataLoader(ROWS, **options)
    told = rf"a sampler of {name} is an iterator \({kind}\)"
    with pytest.raises(ConfigError, match=told):
        refuse_one_shot(loader, name)


@pytest.mark.parametrize("sampler", [range(6), [0, 3]])
def test_one_that_can_be_iterated_again_is_taken(sampler: Any) -> None:
    loader: Any = DataLoader(ROWS, 2, sampler=sampler)
    reader = EpochLoader(loader, 0)
    counts = [sum(1 for _ in reader.start(epoch)) for epoch in (0, 1)]
    assert counts == [len(loader)] * 2
