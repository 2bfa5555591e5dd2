"""A schedule that begins inside a run ends with it, whatever the checkpoint counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Callback, Trainer

ROWS = 16


class Watch(Callback):
    """Notes the rate of each update; saves and stops after ``end`` steps."""

    def __init__(self, path: Path, end: int | None = None) -> None:
        self.path, self.end = path, end
        self.used: list[float] = []

    def on_before_step(self, trainer: Trainer) -> None:
        self.used.append(trainer.optimizer.param_groups[0]["lr"])

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == self.end:
            trainer.request_checkpoint("half")
            trainer.request_stop("half")

    def on_checkpoint(self, trainer: Trainer) -> None:
        if trainer.step == self.end:
            trainer.save_checkpoint(self.path)


def loss_of(model: nn.Module, batch: Any) -> torch.Tensor:
    loss: torch.Tensor = model(batch[0]).square().mean()
    return loss


def rates(
    path: Path,
    schedule: dict[str, Any] | None,
    end: int | None = None,
    batch_size: int = 4,
    is_resumed: bool = True,
    **options: Any,
) -> list[float]:
    """Return the rates used by a run of 10 epochs, of 4 steps at first."""
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    plugins: list[Callback] = [watch := Watch(path, end)]
    if schedule == {"type": "object"}:
        plugins.append(LearningRateSchedulerCallback(StepLR(optimizer, 100)))
    elif schedule is not None:
        plugins.append(LearningRateSchedulerCallback(**schedule))
    trainer = Trainer(
        model,
        torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(torch.zeros(ROWS, 1)), batch_size=batch_size
        ),
        optimizer=optimizer,
        callbacks=plugins,
        device="cpu",
        seed=0,
        **{"num_epochs": 10, "step_fn": loss_of, **options},
    )
    if is_resumed:
        trainer.load_checkpoint(path, allow_changes=["batch_size"])
    trainer.train()
    return watch.used


def falling(number: int, each: int = 1, first: float = 1.0, parts: int = 0) -> list:
    """Return the rates of a linear schedule in ``number`` advances of so many steps."""
    parts = parts or number
    return [first - i / parts for i in range(number) for _ in range(each)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "half.pt"


PER_UPDATE = {"type": "linear", "on_schedule_change": "new"}
PER_EPOCH = {**PER_UPDATE, "interval": "epoch"}
ALL = {
    "updates": {"type": "cosine"},
    "epochs": {"type": "cosine", "interval": "epoch"},
    "a constant": {"type": "constant", "interval": "epoch"},
    "a plateau": {"type": "plateau", "monitor": "train_loss"},
    "an object": {"type": "object"},
}


@pytest.mark.parametrize(
    ("schedule", "each"), [(PER_UPDATE, 1), (PER_EPOCH, 4)], ids=["updates", "epochs"]
)
@pytest.mark.parametrize("end", [16, 18])
def test_a_schedule_that_is_added_when_resuming_ends_with_the_run(
    path: Path, schedule: dict[str, Any], each: int, end: int
) -> None:
    rates(path, None, end, is_resumed=False)
    used = rates(path, schedule)
    left = 40 - end
    whole = falling(-(-left // each), each)
    assert used == pytest.approx(whole[len(whole) - left :])
    rates(path, None, end, is_resumed=False)
    halves = rates(path, schedule, end=30) + rates(path, schedule)
    assert halves == used


@pytest.mark.parametrize("saved", [None, {"type": "cosine"}], ids=["added", "new"])
def test_updates_that_were_skipped_before_it_are_none_that_are_left(
    path: Path, saved: Any
) -> None:
    calls = iter(range(16))

    def skipping(model: nn.Module, batch: Any) -> torch.Tensor:
        return loss_of(model, batch) * (float("nan") if next(calls) < 4 else 1.0)

    rates(path, saved, 16, is_resumed=False, nonfinite="skip", step_fn=skipping)
    assert rates(path, PER_UPDATE, nonfinite="skip") == pytest.approx(falling(24))


@pytest.mark.parametrize("saved", ALL)
def test_a_new_schedule_of_updates_ends_with_the_run(path: Path, saved: str) -> None:
    rates(path, ALL[saved], end=16, is_resumed=False)
    assert rates(path, PER_UPDATE) == pytest.approx(falling(24))


@pytest.mark.parametrize("saved", ALL)
def test_a_new_schedule_of_epochs_ends_with_the_run(path: Path, saved: str) -> None:
    rates(path, ALL[saved], end=16, is_resumed=False)
    assert rates(path, PER_EPOCH) == pytest.approx(falling(6, each=4))


def test_inside_an_epoch_its_rest_is_the_first_advance(path: Path) -> None:
    rates(path, {"type": "cosine"}, end=18, is_resumed=False)
    assert rates(path, PER_EPOCH) == pytest.approx(falling(6, each=4)[2:])


def test_the_end_may_be_that_of_max_steps(path: Path) -> None:
    rates(path, {"type": "cosine", "interval": "epoch"}, end=18, is_resumed=False)
    assert rates(path, PER_UPDATE, max_steps=37) == pytest.approx(falling(19))


def test_epochs_up_to_max_steps_count_the_one_that_is_going_on(path: Path) -> None:
    rates(path, {"type": "cosine"}, end=18, is_resumed=False)
    expected = falling(6, each=4)[2:21]
    assert rates(path, PER_EPOCH, max_steps=37) == pytest.approx(expected)


@pytest.mark.parametrize(("batch_size", "left"), [(8, 12), (2, 48)])
def test_after_steps_of_another_size_the_end_is_still_that_of_the_run(
    path: Path, batch_size: int, left: int
) -> None:
    rates(path, {"type": "linear"}, end=16, is_resumed=False)
    assert rates(path, PER_UPDATE, batch_size=batch_size) == pytest.approx(
        falling(left)
    )
    rescaled = {"type": "linear", "on_schedule_change": "rescale"}
    expected = falling(left, first=0.6, parts=left * 10 // 6)
    assert rates(path, rescaled, batch_size=batch_size) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", [PER_UPDATE, PER_EPOCH], ids=["updates", "epochs"])
@pytest.mark.parametrize("end", [22, 24])
def test_a_schedule_so_begun_resumes_exactly_twice(
    path: Path, schedule: dict[str, Any], end: int
) -> None:
    rates(path, {"type": "plateau", "monitor": "train_loss"}, 16, is_resumed=False)
    whole = rates(path, schedule)
    used = rates(path, schedule, end)
    used += rates(path, schedule, end + 5)
    used += rates(path, schedule)
    assert used == whole


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("saved", [None, {"type": "step", "step_size": 9}])
def test_a_fraction_of_warmup_is_one_of_the_updates_that_are_left(
    path: Path, saved: Any, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    schedule = {"type": kind, "warmup": 0.25, "on_schedule_change": "new"}
    rates(path, saved, 32, is_resumed=False)
    used = rates(path, schedule)  # 8 updates are left, of 40
    assert used[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    if kind == "linear":
        assert used[2:] == pytest.approx(falling(6))
    assert "never reached" not in caplog.text
    rates(path, saved, 32, is_resumed=False)
    halves = rates(path, schedule, end=33) + rates(path, schedule)
    assert halves == used


def test_a_warmup_that_is_longer_than_what_is_left_is_warned_of(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rates(path, None, 32, is_resumed=False)
    rates(path, {"type": "linear", "warmup": 8, "on_schedule_change": "new"})
    assert "lr_scheduling.warmup is 8 advances, but the run has 8 to go" in caplog.text
