"""A value that is not finite on one rank ends, or drops, the window on all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from toy import Regression, make_trainer, regression_batches

from training import Callback, NonFiniteError, PluginError, Trainer

pytestmark = pytest.mark.distributed

#: The step that is spoilt, counted from 0.
AT = 2


class OwnWindow(Callback):
    """Makes the window of a run, and comes first: by its name."""

    name = "accumulates"
    hook_api = ">=1.1,<2"

    def make_window(self, default: type[Any]) -> type[Any]:
        return type("Mine", (default,), {})


def refused() -> str:
    plugins = [{"distributed": {}}]
    trainer = make_trainer(None, regression_batches(2, 4), OwnWindow(), plugins=plugins)
    with pytest.raises(PluginError) as caught:
        trainer.train()
    return str(caught.value)


def test_a_window_of_each_process_alone_is_refused_on_all(two: Ranks) -> None:
    for said in two.run(refused):
        assert said.startswith("plugin 'accumulates' has made the window of the run")


class Norm(nn.Module):
    """A net with running statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"loss": nn.functional.mse_loss(self.layers(x), y)}


class Spoils(Callback):
    """Spoils one window of one rank.

    Args:
        what: ``"loss"``, ``"gradient"``, ``"input"``, ``"large"`` or ``"shift"``.
        rank: of that process.
    """

    def __init__(self, what: str, rank: int) -> None:
        self.what, self.rank = what, rank
        self.heard: list[Any] = []
        self.weights: list[Tensor] = []

    def is_here(self, trainer: Trainer) -> bool:
        return trainer.rank == self.rank and trainer.step == AT

    def on_batch_begin(self, trainer: Trainer, inputs: Any) -> None:
        self.weights = [p.detach().clone() for p in trainer.model.parameters()]
        factors = {"loss": float("inf"), "input": float("nan"), "large": 1e4}
        if self.what in factors and self.is_here(trainer):
            inputs[0 if self.what == "input" else 1].mul_(factors[self.what])

    def on_before_step(self, trainer: Trainer) -> None:
        if self.is_here(trainer) and self.what in ("gradient", "shift"):
            weight = next(trainer.model.parameters())
            assert weight.grad is not None
            weight.grad.mul_(float("nan") if self.what == "gradient" else 1.5)

    def on_step_end(self, trainer: Trainer, applied: bool) -> None:
        scaler = trainer.grad_scaler
        scale = scaler.get_scale() if scaler is not None else 1.0
        self.heard.append((trainer.step, trainer.update, bool(applied), scale))


class Quiet(Spoils):
    """As ``Spoils``, and does not listen before a step."""

    on_before_step = None  # type: ignore[assignment]


def spoilt(
    what: str, rank: int, options: Mapping[str, Any], net: str = "Regression"
) -> dict[str, Any]:
    """Train with one bad window; return the error, steps, weights before and after."""
    model: nn.Module = Norm() if net == "Norm" else Regression()
    spoils = Spoils(what, rank)
    trainer = make_trainer(
        *(model, [tuple(t.clone() for t in b) for b in regression_batches(5, 8)]),
        spoils,
        plugins=[{"distributed": {}}],
        **options,
    )
    error = None
    try:
        trainer.train()
    except NonFiniteError as caught:
        error = str(caught)
    after = [p.detach().clone() for p in model.parameters()]
    return {
        "error": error,
        "heard": spoils.heard,
        "counts": (
            trainer.step,
            trainer.update,
            trainer.state.progress.nonfinite_windows,
        ),
        "weights": after,
        "is_untouched": all(
            torch.equal(a, b) for a, b in zip(after, spoils.weights, strict=True)
        ),
    }


def same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two ranks ended alike, to the bit."""
    rest = [
        {k: v for k, v in each.items() if k != "weights"} for each in (first, second)
    ]
    pairs = zip(first["weights"], second["weights"], strict=True)
    return rest[0] == rest[1] and all(torch.equal(a, b) for a, b in pairs)


def noted(data: str) -> list[str]:
    """Return the notes where row 5 of eight, in batches of four, holds a NaN."""
    x = torch.ones(8, 4)
    x[5, 0] = float("nan")
    rows: Any = TensorDataset(x, torch.ones(8, 1))
    if data == "own":
        rows = Subset(rows, range(int(os.environ["RANK"]), 8, 2))
    loader = DataLoader(rows, batch_size=2 if data == "own" else 4)
    plugins: list[Any] = [{"distributed": {"data": data}}]
    model = nn.Linear(4, 1)
    options = {"loss_fn": nn.MSELoss(), "loss_per": "samples"}
    trainer = make_trainer(model, loader, plugins=plugins, **options)
    with pytest.raises(NonFiniteError, match="the loss is nan on rank") as caught:
        trainer.train()
    return caught.value.__notes__


@pytest.mark.parametrize(
    ("data", "samples"),
    [("split", ("[4, 5]", "[6, 7]")), ("own", ("[2, 3]", "[2, 3]"))],
)
def test_of_a_bad_window_each_process_says_that_the_samples_are_its_own(
    two: Ranks, data: str, samples: tuple[str, str]
) -> None:
    for rank, notes in enumerate(two.run(noted, data)):
        place = f"batch 1 of the epoch, samples {samples[rank]}"
        assert f"in step 2; rank {rank} had {place}" in notes


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("what", "says"),
    [
        pytest.param("loss", "the loss is inf on rank {}", id="loss"),
        pytest.param(
            "gradient",
            "a plugin made a gradient NaN or infinite on rank {}",
            id="a gradient that a plugin spoils",
        ),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_d10_what_is_not_finite_on_one_rank_ends_all_at_that_step(
    two: Ranks, what: str, says: str, precision: str, rank: int
) -> None:
    first, second = two.run(spoilt, what, rank, {"precision": precision})
    assert same(first, second)
    assert says.format(rank) in first["error"]
    assert "left the weights alone" in first["error"]
    assert first["is_untouched"]
    assert [heard[0] for heard in first["heard"]] == [1, AT]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_d10_it_is_dropped_by_all_where_that_is_wanted(
    two: Ranks, what: str, precision: str, accumulation: int, rank: int
) -> None:
    options = {
        "precision": precision,
        "nonfinite": "skip",
        "gradient_accumulation_steps": accumulation,
    }
    first, second = two.run(spoilt, what, rank, options)
    assert same(first, second)
    applied = [heard[2] for heard in first["heard"]]
    assert applied == [step != AT for step in range(len(applied))]
    assert first["counts"][2] == 1


def test_d10_statistics_that_are_spoilt_on_main_end_all(two: Ranks) -> None:
    options = {"nonfinite": "skip"}
    first, second = two.run(spoilt, "input", 0, options, "Norm")
    assert first["error"] == second["error"]
    assert "running statistics" in first["error"]


def test_d17_statistics_that_are_spoilt_elsewhere_are_mended_by_main(
    two: Ranks,
) -> None:
    first, second = two.run(spoilt, "input", 1, {"nonfinite": "skip"}, "Norm")
    assert first["error"] is second["error"] is None
    applied = [heard[2] for heard in first["heard"]]
    assert applied == [step != AT for step in range(len(applied))]


def test_d12_an_overflow_on_one_rank_lowers_the_scale_of_all(two: Ranks) -> None:
    first, second = two.run(spoilt, "large", 1, {"precision": "fp16"})
    assert same(first, second)
    assert [heard[2] for heard in first["heard"]] == [True, True, False, True, True]
    scales = [heard[3] for heard in first["heard"]]
    assert scales[2] == scales[1] / 2, "it had to overflow"
    assert first["error"] is None


def test_d10_gradients_that_a_plugin_changes_on_one_rank_are_those_of_main(
    two: Ranks,
) -> None:
    none = two.run(spoilt, "none", 0, {})
    assert same(*none)
    last = two.run(spoilt, "shift", 1, {})
    assert same(*last)
    assert same(last[0], none[0]), "the last rank's do not count"
    main = two.run(spoilt, "shift", 0, {})
    assert same(*main)
    assert not same(main[0], none[0]), "or it is no control"


class Bypassed(nn.Module):
    """In the window that is spoilt its loss is of what the optimizer does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.other = Regression(), nn.Parameter(torch.ones(()))
        self.calls = 0

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        inner: Tensor = self.inner(x, y)["loss"] * 0.01  # which overflows at no scale
        return self.other * 1.0 if self.calls == AT + 1 else inner


class Adds(Spoils):
    """Gives one rank a bad gradient where there was none."""

    def on_before_step(self, trainer: Trainer) -> None:
        if self.what == "gradient" and self.is_here(trainer):
            weight = trainer.model.inner.layers[0].weight
            weight.grad = torch.full_like(weight, float("nan"))


def bypassed(what: str) -> tuple[list[Any], tuple[int, int]]:
    """Train with a window without a gradient; return what is heard, and counts."""
    model, adds = Bypassed(), Adds(what, 1)
    trainer = Trainer(
        *(model, regression_batches(5, 8)),
        optimizer=torch.optim.SGD(model.inner.parameters(), lr=0.1),
        callbacks=[adds],
        plugins=[{"distributed": {"find_unused_parameters": True}}],
        precision="fp16",
        nonfinite="skip",
        loss_per="samples",
        device="cpu",
    )
    trainer.train()
    return adds.heard, (trainer.update, trainer.state.progress.nonfinite_windows)


def test_d12_a_window_without_a_gradient_leaves_the_scale_alone_on_all(
    two: Ranks,
) -> None:
    first, second = two.run(bypassed, "none")
    assert first == second
    assert first[1] == (5, 0)
    assert {heard[3] for heard in first[0]} == {65536.0}


def test_d10_what_a_plugin_adds_to_such_a_window_on_one_rank_is_refused_on_all(
    two: Ranks,
) -> None:
    first, second = two.run(bypassed, "gradient")
    assert first == second
    assert first[1] == (4, 1)
    assert {heard[3] for heard in first[0]} == {65536.0}
