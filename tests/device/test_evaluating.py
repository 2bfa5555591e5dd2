"""An evaluation copies each batch once, and waits for the device at its end."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training import Evaluator, VQAEvaluator
from training.testing.meta_device import META, meta_device_as_cuda


class Moved(dict[str, Tensor]):
    """A batch that counts how often it is copied to a device."""

    copies: list[int]
    loss_weight = 2

    def to(self, device: Any, non_blocking: bool = False) -> Moved:
        self.copies.append(1)
        return Moved({k: v.to(device, non_blocking=True) for k, v in self.items()})


class Classifies(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.layer(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Generates(Classifies):
    """Answers two tokens, without a read of its own."""

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": super().forward(x, labels[:, 0])["loss"]}

    def generate(self, x: Tensor, **_: Any) -> Tensor:
        return torch.zeros((len(x), 3), dtype=torch.int64, device=x.device)


class Words:
    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [1]}

    def batch_decode(self, ids: Any, **_: Any) -> list[str]:
        return ["yes" for _ in (ids.tolist() if isinstance(ids, Tensor) else ids)]


def batches(count: int, shape: tuple[int, ...], copies: list[int]) -> list[Any]:
    found = []
    for _ in range(count):
        labels = torch.zeros(shape, dtype=torch.int64)
        batch = Moved(x=torch.randn(2, 4), labels=labels)
        batch.copies = copies
        found.append(batch)
    return found


def classes(model: nn.Module, **options: Any) -> Evaluator:
    return Evaluator(model, metrics=("loss", "accuracy", "f1"), **options)


def texts(model: nn.Module, **options: Any) -> VQAEvaluator:
    return VQAEvaluator(
        model, SimpleNamespace(tokenizer=Words(), batch_decode=0), **options
    )


@pytest.mark.parametrize(
    "has_own_loss", [True, False], ids=["a trainer's loss", "none"]
)
@pytest.mark.parametrize(
    ("make", "model", "shape", "of_a_batch"),
    [
        pytest.param(classes, Classifies, (2,), 0, id="classes: none"),
        pytest.param(
            classes, Generates, (2, 2), 1, id="generated classes: the answers"
        ),
        pytest.param(texts, Generates, (2, 2), 1, id="texts: the answers"),
    ],
)
def test_each_batch_is_copied_once_and_only_answers_are_waited_for(
    make: Any, model: type[nn.Module], shape: Any, of_a_batch: int, has_own_loss: bool
) -> None:
    counts = []
    for count in (2, 5):
        waits: list[str] = []
        copies: list[int] = []
        with meta_device_as_cuda(waits.append):
            module = model().to(META)

            def loss(batch: Any, moved: Any, module: Any = module) -> Any:
                return module(**moved)["loss"], 2.0

            options = {"compute_loss": loss} if has_own_loss else {}
            evaluator = make(module, **options)
            loader = batches(count, shape, copies)
            # The scores of classes depend on numbers that do not exist.
            with contextlib.suppress(NotImplementedError):
                evaluator.evaluate(loader)
        assert len(copies) == count
        counts.append(len(waits))
    assert counts[1] - counts[0] == 3 * of_a_batch
