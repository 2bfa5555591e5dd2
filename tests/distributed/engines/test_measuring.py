"""What a loss is a mean over is measured on weights in parts as on whole ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from distributed.divided import (
    CLOSE,
    KINDS,
    Language,
    Tokens,
    batches,
    furthest,
    language,
    loader,
    tokens,
    trained,
)
from ranks import Ranks
from torch import Tensor, nn

from training import Trainer

pytestmark = pytest.mark.distributed

FSDP2 = {"engine": "fsdp2"}


class Block(nn.Module):
    """A layer that is gathered by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.linear(x))


class Layered(Language):
    """Has blocks, and refuses eval mode: a pass that raises comes before others."""

    _no_split_modules = ("Block",)

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Sequential(self.inside, Block(), Block())

    def forward(
        self, input_ids: Tensor, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        embedded = self.inside(input_ids)
        if not self.training:
            raise RuntimeError("train mode only")
        answer = {"logits": self.outside(torch.tanh(embedded))}
        if labels is not None:
            answer["loss"] = of_tokens(
                answer["logits"][:, :-1].transpose(1, 2), labels[:, 1:]
            )
        return answer


def of_tokens(outputs: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, labels)


def unweighed_step(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the loss alone."""
    loss: Tensor = model(batch["input_ids"], batch["labels"])["loss"]
    return loss


OTHERS = {
    "a step without a weight": lambda: language(step_fn=unweighed_step),
    "a loss of the user's own": lambda: tokens(of_tokens),
    "blocks, a pass that raises": lambda: language() | {"model": Layered()},
}
#: Of the kinds that say no weight, those that run by default.
DEFAULT = {"causal language model", "rows without labels", "sum", "list of batches"}
SAYS_NOTHING = [kind for kind in KINDS if not kind.startswith(("loss_", "step"))]


def in_parts(kind: str, plugin: Mapping[str, Any]) -> dict[str, Any]:
    """Train with accumulation 2; return what it ends with, weights whole."""
    make = OTHERS.get(kind, KINDS.get(kind))
    assert make is not None
    ended = trained(make, plugin, gradient_accumulation_steps=2)
    ended["weights"] = [whole(p) for p in ended["weights"]]
    return ended


def whole(value: Any) -> Any:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def kinds() -> list[Any]:
    rest = pytest.mark.exhaustive
    names = [*OTHERS, *SAYS_NOTHING]
    shown = {*OTHERS, *DEFAULT}
    return [pytest.param(n, marks=() if n in shown else rest) for n in names]


@pytest.mark.parametrize("kind", kinds())
def test_d6_a_unit_is_measured_on_weights_in_parts(two: Ranks, kind: str) -> None:
    alone = in_parts(kind, {})
    for each in two.run(in_parts, kind, FSDP2):
        assert each["unit"] == alone["unit"]
        assert furthest(alone, each) < CLOSE


@pytest.mark.parametrize("kind", OTHERS)
def test_d6_a_unit_is_measured_on_whole_weights_alike(two: Ranks, kind: str) -> None:
    alone = in_parts(kind, {})
    for each in two.run(in_parts, kind, {"engine": "ddp"}):
        assert furthest(alone, each) < CLOSE


def checked_before(plugin: Mapping[str, Any]) -> list[dict[str, float]]:
    """Return the history of a run whose first evaluation is before its first batch."""
    model = Language()
    trainer = Trainer(
        model,
        loader(),
        batches(size=3),  # parts of two rows and one: of one nothing can be measured
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        plugins=[
            {"distributed": dict(plugin)},
            {"evaluation": {"sanity_batches": 2, "metrics": ["loss"]}},
        ],
        num_epochs=2,
        seed=3,
        device="cpu",
    )
    trainer.train()
    return [{**row, "seconds": 0.0} for row in trainer.history]


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_d22_an_evaluation_before_the_first_batch_waits_for_nobody(
    two: Ranks, engine: str
) -> None:
    alone = checked_before({})
    for each in two.run(checked_before, {"engine": engine}):
        for own, row in zip(alone, each, strict=True):
            assert row == pytest.approx(own, abs=CLOSE)


def kept_gradients() -> list[float]:
    """Return the norms of a waiting gradient before and after others were taken."""
    model = Tokens()
    run = tokens(of_tokens)
    trainer = Trainer(
        model,
        run["loader"],
        loss_fn=of_tokens,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        plugins=[{"distributed": FSDP2}],
        device="cpu",
    )
    parameters = list(model.parameters())
    ids = torch.arange(4).reshape(1, 4)
    norms = []
    for looks in (False, True):
        model.set_requires_gradient_sync(False)
        trainer.strategy.exchanging(False)
        model(ids).square().mean().backward()
        if looks:
            found = trainer.strategy.gradients(model(ids).sum(), parameters)
            assert [g.shape for g in found if g is not None] == [
                p.shape for p in parameters
            ]
        trainer.strategy.exchanging(True)
        model(ids).square().mean().backward()
        norms.append(sum(float(whole(p.grad).norm()) for p in parameters))
        model.zero_grad()
    return norms


def test_d8_gradients_that_wait_are_not_touched_by_a_measurement(two: Ranks) -> None:
    for without, with_a_look in two.run(kept_gradients):
        assert with_a_look == without
