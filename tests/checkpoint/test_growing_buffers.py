"""Buffers that grow with what they see: of observers of ranges, and of queues."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import assert_equal_weights

from training import CheckpointError, Trainer


class Queue(nn.Module):
    """Has the latest rows in a buffer that grows up to seven of them."""

    seen: Tensor

    def __init__(self, effect: float = 1.0) -> None:
        super().__init__()
        self.effect = effect
        self.linear = nn.Linear(2, 2)
        self.register_buffer("seen", torch.empty(0, 2))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            kept = torch.cat([self.seen, x])[-7:]
            self.seen.resize_(kept.shape).copy_(kept)
        out: Tensor = self.linear(x) + self.seen.mean() * self.effect
        return out


class LoadsItself(Queue):
    """Takes a queue of any length."""

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        self.seen.resize_(state[f"{prefix}seen"].shape)
        super()._load_from_state_dict(state, prefix, *rest)


def trainer_of(queue: nn.Module, max_steps: int, **options: Any) -> Trainer:
    torch.manual_seed(0)
    for parameter in queue.parameters():
        nn.init.normal_(parameter)
    batches = [torch.randn(size, 2, 2) for size in (2, 3, 2, 1)]
    return Trainer(
        nn.Sequential(queue),
        [(each[:, 0], each[:, 1]) for each in batches],
        optimizer=torch.optim.SGD(queue.parameters(), lr=0.1),
        loss_fn=nn.functional.mse_loss,
        max_steps=max_steps,
        num_epochs=9,
        seed=1,
        device="cpu",
        plugins=["no:progress", "no:run_record"],
        **options,
    )


def test_a_run_whose_buffers_grow_goes_on_bit_for_bit(tmp_path: Path) -> None:
    straight, first, second = (trainer_of(LoadsItself(), n) for n in (9, 2, 9))
    straight.train()
    first.train()
    first.save_checkpoint(tmp_path / "a.pt")
    assert len(first.model[0].seen) == 5
    second.train(resume=tmp_path / "a.pt")
    assert_equal_weights(second.model, straight.model)


def test_one_that_does_not_load_another_length_is_refused_and_stays(
    tmp_path: Path,
) -> None:
    first, second = trainer_of(Queue(), 2), trainer_of(Queue(), 9)
    first.train()
    first.save_checkpoint(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"0\.seen is \(5, 2\), the model's \(0"):
        second.load_checkpoint(tmp_path / "a.pt")
    assert len(second.model[0].seen) == 0


def test_measuring_the_loss_leaves_the_buffer_as_long_as_it_was() -> None:
    measured, said = (
        trainer_of(LoadsItself(0.0), 9, gradient_accumulation_steps=2, loss_per=unit)
        for unit in (None, "samples")
    )
    measured.train()
    said.train()
    assert_equal_weights(measured.model, said.model)


def test_what_fits_is_loaded_without_a_copy_of_its_module(tmp_path: Path) -> None:
    def locked() -> LoadsItself:
        queue = LoadsItself()
        queue.lock = threading.Lock()  # which nobody can copy
        return queue

    first, second = trainer_of(locked(), 2), trainer_of(locked(), 9)
    first.save_checkpoint(tmp_path / "a.pt")
    second.load_checkpoint(tmp_path / "a.pt")
    assert_equal_weights(second.model, first.model)


class Late(nn.Module):
    """Has a running mean that is None until the first batch."""

    mean: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("mean", None)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        now = out.detach().mean(0)
        self.mean = now if self.mean is None else self.mean * 0.9 + now * 0.1
        return out - self.mean


def test_a_buffer_that_the_first_batch_makes_comes_back(tmp_path: Path) -> None:
    straight, first, second = (trainer_of(Late(), n) for n in (9, 2, 9))
    straight.train()
    first.train()
    first.save_checkpoint(tmp_path / "a.pt")
    second.train(resume=tmp_path / "a.pt")
    assert_equal_weights(second.model, straight.model)


@pytest.mark.parametrize(
    ("kind", "count"), [(Queue, 1), (LoadsItself, 0), (Late, 0), (nn.BatchNorm1d, 0)]
)
def test_a_buffer_whose_shape_could_not_be_loaded_is_named_when_it_is_saved(
    kind: type[nn.Module],
    count: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    part = kind(2) if kind is nn.BatchNorm1d else kind()
    trainer = trainer_of(part, 3, loss_per="samples")
    trainer.train()
    for name in "ab":
        trainer.save_checkpoint(tmp_path / f"{name}.pt")
    assert caplog.text.count("changes the shape of buffers: model.0.seen;") == count
    assert caplog.text.count("changes the shape") == count
