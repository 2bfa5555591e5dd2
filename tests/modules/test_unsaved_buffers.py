"""A buffer that training moves and no checkpoint holds is named as one is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import Saves

from training import Trainer


class Net(nn.Module):
    """Keeps a number beside its weights, and does ``what`` with it in each pass."""

    def __init__(self, what: str, persistent: bool) -> None:
        super().__init__()
        self.what, self.layer = what, nn.Linear(1, 1)
        self.register_buffer("centre", torch.ones(1), persistent=persistent)
        self.centre: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if self.what == "moves it":
            self.centre.mul_(0.9)
        elif self.what == "puts another there":
            self.centre = self.centre + 1
        elif self.what == "writes the same":
            self.centre.copy_(torch.ones(1))
        elif self.what == "lets a cache grow":
            self.centre = torch.cat([self.centre, torch.ones(1)])
        return self.layer(x * self.centre[:1])  # type: ignore[no-any-return]


def distance(predicted: Tensor, wanted: Tensor) -> Tensor:
    return (predicted - wanted).pow(2).mean()


class Measure(nn.Module):
    """A loss that moves a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64), False)
        self.count: Tensor

    def forward(self, predicted: Tensor, wanted: Tensor) -> Tensor:
        self.count += 1
        return distance(predicted, wanted)


def trained(model: nn.Module, path: Path, loss: Any = distance) -> None:
    x = torch.arange(6.0).view(6, 1)
    Trainer(
        model,
        [(x[:3], x[:3]), (x[3:], x[3:])],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        loss_fn=loss,
        callbacks=[Saves(path, each_step=True)],
        device="cpu",
    ).train()


@pytest.mark.parametrize(
    ("what", "persistent", "count"),
    [
        ("moves it", False, 1),
        ("puts another there", False, 1),
        ("moves it", True, 0),
        ("writes the same", False, 0),
        ("lets a cache grow", False, 0),
        ("rests", False, 0),
    ],
)
def test_r8_a_buffer_that_moves_and_is_in_no_checkpoint_is_named_once(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    what: str,
    persistent: bool,
    count: int,
) -> None:
    trained(Net(what, persistent), tmp_path / "a.pt")
    assert caplog.text.count("with persistent=False: model.centre;") == count
    assert caplog.text.count("moves buffers") == count


def test_r8_one_of_the_loss_is_named_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(Net("rests", False), tmp_path / "a.pt", Measure())
    assert "with persistent=False: loss.count;" in caplog.text


def test_r8_a_buffer_of_inference_mode_is_left_alone(tmp_path: Path) -> None:
    """It counts no versions."""
    model = Net("rests", False)
    with torch.inference_mode():
        model.register_buffer("made", torch.ones(1), persistent=False)
    trained(model, tmp_path / "a.pt")
    assert (tmp_path / "a.pt").exists()
