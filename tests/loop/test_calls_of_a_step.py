"""What a step costs beside model and optimizer, as calls, which can be counted."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

import training
from training import Trainer

OWN = str(Path(training.__file__).parent)
#: Python functions of ours that a step without plugins calls at most.
MOST_CALLS = 15
#: Batches that are counted, after those that are measured.
FIRST, COUNTED = 10, 20
LABELS = torch.tensor([0, 1, -100, 1])


class Batches:
    """Counts the calls of ours while it yields some of its batches."""

    def __init__(self, batch: Any) -> None:
        self.batch, self.calls = batch, Counter[str]()

    def __len__(self) -> int:
        return FIRST + COUNTED + 1

    def __iter__(self) -> Iterator[Any]:
        for number in range(len(self)):
            if number == FIRST:
                before = sys.getprofile()
                sys.setprofile(self._note)
            if number == FIRST + COUNTED:
                sys.setprofile(before)
            yield self.batch

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OWN):
            self.calls[frame.f_code.co_qualname] += 1


def calls_of_a_step(batch: Any, folder: Path, **settings: Any) -> float:
    """Return how many functions of ours a step calls."""
    batches, model = Batches(batch), nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(
        *(model, batches),
        **settings,
        optimizer=optimizer,
        num_epochs=1,
        device="cpu",
        callbacks=[],
        save_dir=folder,
    )
    trainer.train()
    return batches.calls.total() / COUNTED


class Named(NamedTuple):
    inputs: torch.Tensor
    labels: torch.Tensor


class OwnCrossEntropy(nn.CrossEntropyLoss):
    """No longer torch's own: it is measured."""


def by_step(model: nn.Module, batch: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        pytest.param({"loss_fn": nn.CrossEntropyLoss()}, 0, id="labels as defined"),
        pytest.param({"loss_fn": OwnCrossEntropy()}, 0, id="labels as measured"),
        pytest.param(
            {"loss_fn": nn.CrossEntropyLoss(), "loss_per": "samples"}, 1, id="said"
        ),
        pytest.param(
            {"step_fn": by_step}, 6, id="a step_fn whose unit need not be told"
        ),
    ],
)
def test_a_step_calls_no_more_functions_than_it_did(
    settings: dict[str, Any], more: int, tmp_path: Path
) -> None:
    batch = (torch.randn(4, 2), LABELS)
    assert 0 < calls_of_a_step(batch, tmp_path, **settings) <= MOST_CALLS + more


def test_a_batch_as_torch_collates_it_calls_no_more(tmp_path: Path) -> None:
    rows = [(torch.randn(2), label) for label in LABELS]
    batch = default_collate(rows)
    assert type(batch) is list
    assert calls_of_a_step(batch, tmp_path, loss_fn=nn.CrossEntropyLoss()) <= MOST_CALLS


def test_a_batch_out_of_the_usual_costs_more_calls_and_is_noticed(
    tmp_path: Path,
) -> None:
    batch = Named(torch.randn(4, 2), LABELS)  # counted in the general way
    assert calls_of_a_step(batch, tmp_path, loss_fn=nn.CrossEntropyLoss()) > MOST_CALLS


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def more_calls(step: Callable[..., Any], num_batches: int, **options: Any) -> int:
    """Return how often a run calls ``step`` beside once a batch."""
    calls = 0

    def counted(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
        nonlocal calls
        calls += 1
        return step(model, batch)

    model = options.pop("model", None) or nn.Linear(4, 2)
    batches = [(torch.randn(8, 4), torch.randint(2, (8,))) for _ in range(num_batches)]
    Trainer(
        model,
        batches,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        step_fn=counted,
        device="cpu",
        **{"gradient_accumulation_steps": 2, **options},
    ).train()
    return calls - num_batches


@pytest.mark.parametrize(
    ("told", "num_batches", "more"),
    [
        pytest.param({}, 8, 23, id="8 batches"),
        pytest.param({}, 600, 58, id="600 batches"),
        pytest.param({"loss_per": "samples"}, 600, 0, id="a unit is said"),
        pytest.param({"gradient_accumulation_steps": 1}, 600, 0, id="a step a batch"),
    ],
)
def test_a_run_looks_again_at_each_power_of_two_and_never_where_it_is_told(
    told: dict[str, Any], num_batches: int, more: int
) -> None:
    assert more_calls(cross_entropy, num_batches, **told) == more


def test_a_weight_that_step_fn_returns_is_compared_once() -> None:
    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        return {"loss": cross_entropy(model, batch), "weight": len(batch[1])}

    assert more_calls(step, 8) == more_calls(step, 600) == 4


class DropsOutputs(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.1, self.training)


def test_where_the_model_draws_a_later_look_takes_one_call_more() -> None:
    torch.manual_seed(0)
    assert more_calls(cross_entropy, 8, model=DropsOutputs(4, 2)) == 23 + 3
