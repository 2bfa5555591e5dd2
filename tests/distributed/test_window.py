"""The gradient of a window whose batches are divided, in models of every kind."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from ranks import RankError, Ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from training import Callback, Trainer

pytestmark = pytest.mark.distributed

CLOSE = 1e-6


def rows(number: int = 11) -> TensorDataset:
    """Return rows of (x, y), always the same ones."""
    drawn = torch.Generator().manual_seed(5)
    return TensorDataset(
        torch.randn(number, 4, generator=drawn), torch.randn(number, 1, generator=drawn)
    )


class NoLength:
    """Batches of a loader that does not know how many there are."""

    def __iter__(self) -> Iterator[Any]:
        return iter(DataLoader(rows(), batch_size=3))


class Head(nn.Module):
    """Two layers, and one that only some batches use."""

    def __init__(self, rest: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 8)
        self.last = nn.Linear(8, 1)
        if rest:
            self.unused = nn.Linear(8, 1)
        self.scale = 1.0
        self.is_odd = False

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.tanh(self.first(x))) * self.scale
        return out

    def twice(self, x: Tensor) -> Tensor:
        return self(x) * 2.0


def mse(model: Any, batch: Any) -> Tensor:
    """Return the mean squared error."""
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def by_method(model: Any, batch: Any) -> Tensor:
    """Ask the model for more than its call: a method and an attribute."""
    return nn.functional.mse_loss(model.twice(batch[0]), batch[1] * model.scale)


def as_sum(model: Any, batch: Any) -> dict[str, Any]:
    """Return a sum and what it is a sum over."""
    error = (model(batch[0]) - batch[1]) ** 2
    return {"loss_sum": error.sum(), "weight": len(error)}


def with_parts(model: Any, batch: Any) -> dict[str, Any]:
    """Return a loss with parts, one of them of some batches only."""
    error = ((model(batch[0]) - batch[1]) ** 2).mean()
    found = {"loss": error, "weight": len(batch[0]), "bias": model.last.bias.sum()}
    if model.is_odd:
        found["odd"] = batch[0].mean()
    return found


def nan_over_nothing(model: Any, batch: Any) -> dict[str, Any]:
    """Return a mean over what a mask leaves, whose gradient over nothing is NaN."""
    kept = (batch[1] > 0.0).float()
    error = ((model(batch[0]) - batch[1]) ** 2 * kept).sum() / kept.sum()
    return {"loss": error, "weight": kept.sum().item()}


def sometimes_unused(model: Any, batch: Any) -> Tensor:
    """Use a layer in some batches only."""
    hidden = torch.tanh(model.first(batch[0]))
    out = model.last(hidden)
    if model.is_odd:
        out = out + model.unused(hidden)
    return nn.functional.mse_loss(out, batch[1])


class Scaled(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, out: Tensor, y: Tensor) -> Tensor:
        return ((out - y) ** 2).mean() * torch.exp(-self.log_scale) + self.log_scale


class Alternates(Callback):
    """Lets every other batch be another one."""

    def on_batch_begin(self, trainer: Trainer, batch: int) -> None:
        trainer.model.is_odd = batch % 2 == 1  # type: ignore[assignment]


class Unfreezes(Callback):
    """Lets a layer join the optimizer after an epoch."""

    mutates = ("optimizer",)

    def on_epoch_begin(self, trainer: Trainer) -> None:
        if trainer.epoch == 1:
            layer: Any = trainer.model.first
            for parameter in layer.parameters():
                parameter.requires_grad_(True)
            trainer.optimizer.add_param_group({"params": list(layer.parameters())})


class Freezes(Callback):
    """Puts a layer to rest after an epoch."""

    mutates = ("parameters",)

    def on_epoch_begin(self, trainer: Trainer) -> None:
        if trainer.epoch == 1:
            trainer.model.first.requires_grad_(False)  # type: ignore[operator]


class Reads(Callback):
    """Keeps all logs of steps, and the losses of batches."""

    def __init__(self) -> None:
        self.logs: list[dict[str, float]] = []
        self.of_batches: list[float] = []

    def on_batch_end(self, logs: Any) -> None:
        self.of_batches.append(float(logs["loss"]))

    def on_step_end(self, logs: Any) -> None:
        self.logs.append({name: float(logs[name]) for name in logs})


def build(kind: str, plugin: dict[str, Any]) -> tuple[Trainer, Reads]:
    """Return a trainer of that kind."""
    reads = Reads()
    options: dict[str, Any] = {"loss_per": "samples"}
    model: nn.Module = Head(rest="unused" in kind)
    loader: Any = DataLoader(rows(), batch_size=3, shuffle=True)
    parameters: Any = model.parameters()
    steps: dict[str, Callable[..., Any]] = {
        "a method and an attribute": by_method,
        "a sum": as_sum,
        "parts of the loss": with_parts,
        "a mean over nothing": nan_over_nothing,
        "unused in some": sometimes_unused,
        "unused in some, found": sometimes_unused,
    }
    options["step_fn"] = steps.get(kind, mse)
    if kind == "no length":
        loader = NoLength()
    if kind == "a loss that trains":
        loss = Scaled()
        options |= {"loss_fn": loss, "step_fn": None}
        parameters = [*model.parameters(), *loss.parameters()]
    if kind == "a layer that joins":
        for parameter in model.first.parameters():
            parameter.requires_grad_(False)
        parameters = model.last.parameters()
        options["callbacks"] = [Unfreezes()]
    if kind == "a layer that rests later":
        options["callbacks"] = [Freezes()]
    make: Any = torch.optim.AdamW
    if kind == "fp16":  # AdamW would make as much of rounding as of a gradient
        options["precision"], make = "fp16", torch.optim.SGD
    callbacks = [Alternates(), *options.pop("callbacks", []), reads]
    trainer = Trainer(
        model,
        loader,
        optimizer=make(parameters, 0.01),
        callbacks=callbacks,
        plugins=[{"distributed": plugin}],
        gradient_accumulation_steps=3,
        num_epochs=2,
        seed=1,
        device="cpu",
        **options,
    )
    return trainer, reads


def trained(
    kind: str, plugin: dict[str, Any], divisor: float | None = None
) -> dict[str, Any]:
    """Train; return what can be compared."""
    trainer, reads = build(kind, plugin)
    if divisor is not None:
        trainer.plugins["distributed"]._divisor.value = divisor
    trainer.train()
    weights = [p.detach().clone() for p in trainer.model.parameters()]
    return {
        "weights": weights,
        "logs": reads.logs,
        "of_batches": reads.of_batches,
        "names": _names(trainer),
    }


def _names(trainer: Trainer) -> list[str]:
    return [*trainer.model.state_dict()]


def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the largest difference of weights and logs."""
    pairs = zip(one["weights"], other["weights"], strict=True)
    found = [float((a - b).abs().max()) for a, b in pairs]
    for a, b in zip(one["logs"], other["logs"], strict=True):
        assert a.keys() == b.keys()
        found += [abs(a[name] - b[name]) for name in a]
    return max(found)


@pytest.mark.parametrize(
    "kind",
    [
        "a mean",
        "a sum",
        "parts of the loss",
        "no length",
        "a loss that trains",
        "a layer that joins",
    ],
)
def test_d6_a_window_divided_moves_the_weights_as_one_process_does(
    two: Ranks, kind: str
) -> None:
    alone = trained(kind, {})
    first, second = two.run(trained, kind, {})
    assert apart(alone, first) < CLOSE
    assert apart(first, second) == 0.0
    assert first["names"] == alone["names"]


def test_d7_what_weights_are_divided_by_shows_in_no_bit(two: Ranks) -> None:
    found = [two.run(trained, "a mean", {}, c)[0] for c in (None, 1.0, 0.25, 4096.0)]
    assert [apart(found[0], each) for each in found] == [0.0] * 4


def test_d9_a_part_that_weighs_nothing_moves_nothing(two: Ranks) -> None:
    alone = trained("a mean over nothing", {})
    found = two.run(trained, "a mean over nothing", {})
    assert all(apart(alone, each) < CLOSE for each in found)
    # There are such parts: their mean is one over nothing.
    assert any(math.isnan(loss) for each in found for loss in each["of_batches"])


def test_d14_a_step_logs_what_all_computed_and_a_batch_its_own_part(
    two: Ranks,
) -> None:
    alone, (first, second) = trained("a mean", {}), two.run(trained, "a mean", {})
    assert first["logs"] == second["logs"]
    assert apart(alone, first) < CLOSE
    assert first["of_batches"] != second["of_batches"]


def test_d15_a_step_function_gets_the_model_itself(two: Ranks) -> None:
    kind = "a method and an attribute"
    alone = trained(kind, {})
    for each in two.run(trained, kind, {}):
        assert apart(alone, each) < CLOSE
        assert each["names"] == alone["names"]


@pytest.mark.parametrize("kind", ["unused in some, found", "a layer that rests later"])
def test_d8_parameters_of_some_batches_are_exchanged_where_that_is_asked(
    two: Ranks, kind: str
) -> None:
    alone = trained(kind, {})
    for each in two.run(trained, kind, {"find_unused_parameters": True}):
        assert apart(alone, each) < CLOSE


def test_d12_a_loss_scale_is_that_of_one_process(two: Ranks) -> None:
    alone = trained("fp16", {})
    first, second = two.run(trained, "fp16", {})
    assert len(first["logs"]) == len(alone["logs"])
    assert apart(alone, first) < 1e-3
    assert apart(first, second) == 0.0


def random_start() -> list[Tensor]:
    """Build a model from another seed on each rank; return what is trained."""
    model = Head()
    for parameter in model.parameters():
        nn.init.constant_(parameter, float(os.environ["RANK"]) + 0.5)
    trainer = Trainer(
        model,
        DataLoader(rows(), batch_size=3),
        optimizer=torch.optim.SGD(model.parameters(), 0.0),
        step_fn=mse,
        plugins=["distributed"],
        device="cpu",
    )
    return [p.detach().clone() for p in trainer.model.parameters()]


def test_d16_the_weights_of_main_hold_at_the_start(two: Ranks) -> None:
    for found in two.run(random_start):
        assert all(torch.equal(each, torch.full_like(each, 0.5)) for each in found)


def test_d8_a_parameter_left_out_is_told_with_the_way_out(two: Ranks) -> None:
    with pytest.raises(RankError, match="find_unused_parameters"):
        two.run(trained, "unused in some", {})


def test_d8_a_layer_frozen_in_mid_run_is_told_by_name(two: Ranks) -> None:
    words = r"first\.weight was frozen after the run had begun.*before train\(\)"
    with pytest.raises(RankError, match=words):
        two.run(trained, "a layer that rests later", {})
