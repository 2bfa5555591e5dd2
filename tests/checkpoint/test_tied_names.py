"""A weight with two names is whole in a file under either of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from training import CheckpointError, Trainer
from training.checkpoint_io import read_checkpoint

BOTH = ("head.weight", "words.weight")


class Tied(nn.Module):
    """Words and a head of one weight, and a layer of the same shape between them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.words = nn.Embedding(4, 4)
        self.body = nn.Linear(4, 4, bias=False)
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(self.words(x))).square().mean()
        return out


def trainer_of(model: nn.Module) -> Trainer:
    return Trainer(
        model,
        [torch.tensor([0, 1])],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        step_fn=lambda model, batch: model(batch),
        device="cpu",
        plugins=["no:progress", "no:run_record"],
    )


def without(name: str, weights: dict[str, Any]) -> dict[str, Any]:
    return {n: value.clone() for n, value in weights.items() if n != name}


@pytest.mark.parametrize("left_out", BOTH)
@pytest.mark.parametrize("is_compiled", [False, True])
def test_a_safetensors_file_needs_a_tied_weight_once(
    tmp_path: Path, left_out: str, is_compiled: bool
) -> None:
    saved, model = Tied(1), Tied(2)
    save_file(without(left_out, saved.state_dict()), tmp_path / "w.safetensors")
    given: Any = torch.compile(model) if is_compiled else model
    trainer_of(given).load_checkpoint(tmp_path / "w.safetensors", weights_only=True)
    for name, value in saved.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert model.head.weight is model.words.weight


def test_what_safetensors_writes_of_a_tied_model_is_taken(tmp_path: Path) -> None:
    saved, model = Tied(1), Tied(2)
    save_model(saved, str(tmp_path / "w.safetensors"))
    trainer_of(model).load_checkpoint(tmp_path / "w.safetensors", weights_only=True)
    assert torch.equal(model.head.weight, saved.words.weight)


@pytest.mark.parametrize("left_out", BOTH)
def test_a_checkpoint_needs_a_tied_weight_once(tmp_path: Path, left_out: str) -> None:
    saved, model = Tied(1), Tied(2)
    trainer_of(saved).save_checkpoint(tmp_path / "a.pt")
    state = read_checkpoint(tmp_path / "a.pt")
    state["model"] = without(left_out, state["model"])
    torch.save(state, tmp_path / "b.pt")
    trainer_of(model).load_checkpoint(tmp_path / "b.pt", weights_only=True)
    assert torch.equal(model.head.weight, saved.words.weight)


def test_a_weight_that_is_not_tied_is_missing_still(tmp_path: Path) -> None:
    for name in ("body.weight", *BOTH):
        model = Tied(2)
        if name in BOTH:
            model.head.weight = nn.Parameter(model.head.weight.detach().clone())
        save_file(without(name, Tied(1).state_dict()), tmp_path / "w.safetensors")
        with pytest.raises(CheckpointError, match=f"missing: {name}: build"):
            trainer_of(model).load_checkpoint(
                tmp_path / "w.safetensors", weights_only=True
            )
