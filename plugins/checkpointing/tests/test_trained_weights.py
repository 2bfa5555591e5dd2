"""With ``weights="trained"`` a file holds what training changes, and no less."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainbus_checkpointing import ModelCheckpointCallback
from training import Callback, CheckpointError, Trainer
from training.plugin import read_checkpoint, write_checkpoint


class Adapted(nn.Module):
    """A large frozen layer, a small trained one, and running statistics."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.base = nn.Linear(100, 100).requires_grad_(False)
            torch.manual_seed(1)
            self.adapter = nn.Linear(100, 1, bias=False)
        self.norm = nn.BatchNorm1d(100, affine=False)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.adapter(self.norm(self.base(x)))
        return {"loss": out.square().mean() + out.mean()}


def build(folder: Path, *others: Any, seed: int = 0, **options: Any) -> Trainer:
    model = Adapted(seed)
    options = {"weights": "trained", "monitor": None, **options}
    draws = torch.Generator().manual_seed(2)
    return Trainer(
        model,
        [torch.randn(4, 100, generator=draws) for _ in range(3)],
        optimizer=torch.optim.Adam([model.adapter.weight], lr=0.01),
        callbacks=[ModelCheckpointCallback(**options), *others],
        num_epochs=2,
        device="cpu",
        seed=0,
        save_dir=folder,
    )


def run(folder: Path, *others: Any, **options: Any) -> Path:
    """Train, and return the last checkpoint."""
    trainer = build(folder, *others, **options)
    trainer.train()
    last: Path = trainer.plugins["checkpointing"].last_path
    return last


class Stops(Callback):
    """Ends the run after the first epoch."""

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == 3:
            trainer.request_stop("enough")


@pytest.mark.parametrize("in_a_thread", [False, True], ids=["at once", "in a thread"])
def test_what_is_frozen_is_not_in_the_file(tmp_path: Path, in_a_thread: bool) -> None:
    small = run(tmp_path / "a", async_save=in_a_thread)
    whole = run(tmp_path / "b", weights="all")
    state = read_checkpoint(small)
    assert state["left_out"]["names"] == ["base.bias", "base.weight"]
    kept = {
        "adapter.weight",
        *(f"norm.{name}" for name, _ in Adapted().norm.named_buffers()),
    }
    assert state["model"].keys() == kept
    assert small.stat().st_size < whole.stat().st_size / 2


def test_a_run_goes_on_from_it_bit_for_bit(tmp_path: Path) -> None:
    through = read_checkpoint(run(tmp_path / "through"))["model"]
    stopped = run(tmp_path / "stopped", Stops())
    resumed = build(tmp_path / "resumed")
    resumed.load_checkpoint(stopped)
    resumed.train()
    assert resumed.step == 6
    ended = resumed.model.state_dict()
    assert all(torch.equal(ended[name], value) for name, value in through.items())


def test_its_weights_alone_can_be_taken(tmp_path: Path) -> None:
    source = run(tmp_path / "a")
    trainer = build(tmp_path / "b")
    trainer.load_checkpoint(source, weights_only=True)
    saved = read_checkpoint(source)["model"]["adapter.weight"]
    assert torch.equal(trainer.model.adapter.weight, saved)


@pytest.mark.parametrize("has_part", [False, True], ids=["as written", "empty part"])
def test_with_nothing_frozen_a_file_is_whole_and_a_run_goes_on_from_it(
    tmp_path: Path, has_part: bool
) -> None:
    def thawed(folder: str, *others: Any) -> Trainer:
        trainer = build(tmp_path / folder, *others)
        trainer.model.base.requires_grad_(True)
        return trainer

    through = thawed("through")
    through.train()
    stopped = thawed("stopped", Stops())
    stopped.train()
    source = stopped.plugins["checkpointing"].last_path
    state = read_checkpoint(source)
    assert "left_out" not in state
    if has_part:  # as earlier releases wrote it
        write_checkpoint(source, {**state, "left_out": {"names": [], "digest": ""}})
    resumed = thawed("resumed")
    resumed.load_checkpoint(source)
    resumed.train()
    assert resumed.step == 6
    ended = resumed.model.state_dict()
    assert all(
        torch.equal(ended[name], value)
        for name, value in through.model.state_dict().items()
    )


def other_base(trainer: Trainer) -> None:
    with torch.no_grad():
        trainer.model.base.weight[0, 0] += 1e-6


def other_part(trainer: Trainer) -> None:
    trainer.model.base = nn.Identity()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(other_base, "load the same base model", id="another number"),
        pytest.param(other_part, "lacks base.bias, base.weight", id="another part"),
    ],
)
@pytest.mark.parametrize("weights_only", [False, True], ids=["run", "weights"])
def test_another_base_is_refused(
    tmp_path: Path,
    change: Callable[[Trainer], None],
    message: str,
    weights_only: bool,
) -> None:
    source = run(tmp_path / "a")
    trainer = build(tmp_path / "b")
    change(trainer)
    before = trainer.model.adapter.weight.clone()
    with pytest.raises(CheckpointError, match=message):
        trainer.load_checkpoint(source, weights_only=weights_only)
    assert torch.equal(trainer.model.adapter.weight, before)


class Touches(Callback):
    """Does something to the frozen layer in the first step."""

    mutates = ("parameters",)

    def __init__(self, touch: Callable[[nn.Linear], object]) -> None:
        self.touch = touch

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == 1:
            self.touch(trainer.model.base)


def write(layer: nn.Linear) -> None:
    with torch.no_grad():
        layer.weight.mul_(2)


def replace(layer: nn.Linear) -> None:
    layer.weight.data = layer.weight.data * 2


def follow(layer: nn.Linear) -> None:
    layer.weight.data.mul_(0.9)  # no version counts it


def thaw(layer: nn.Linear) -> None:
    layer.weight.requires_grad_(True)


@pytest.mark.parametrize("touch", [write, replace, follow, thaw])
def test_a_frozen_weight_that_somebody_touches_is_in_the_file(
    tmp_path: Path, touch: Callable[[nn.Linear], None]
) -> None:
    state = read_checkpoint(run(tmp_path, Touches(touch)))
    assert state["left_out"]["names"] == ["base.bias"]
    assert "base.weight" in state["model"]
