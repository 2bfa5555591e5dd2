"""Another configured rate on resuming is never passed over in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Callback, CheckpointError, Trainer


def scheduled(*rates: float, **options: Any) -> Trainer:
    """Return a trainer of 4 steps whose rate a schedule moves; of type None: none."""
    model = nn.Linear(1, 1)
    parts = [[model.weight], [model.bias]] if rates[1:] else [[*model.parameters()]]
    optimizer = torch.optim.SGD(
        [{"params": each, "lr": r} for each, r in zip(parts, rates, strict=True)]
    )
    kind = options.pop("type")
    plugins = []
    if kind == "object":
        made: Any = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        plugins.append(LearningRateSchedulerCallback(made, **options))
    elif kind is not None:
        if kind == "step":
            options |= {"step_size": 2, "gamma": 0.5}
        plugins.append(LearningRateSchedulerCallback(type=kind, **options))
    return Trainer(
        model=model,
        train_dataloader=[(torch.ones(1, 1),)] * 2,
        optimizer=optimizer,
        num_epochs=2,
        device="cpu",
        step_fn=lambda model, batch: model(batch[0]).square().mean(),
        callbacks=plugins,
        seed=0,
    )


def saved(folder: Path, kind: str, *rates: float) -> Path:
    trainer = scheduled(*(rates or [0.1]), type=kind)
    trainer.max_steps = 2
    trainer.train()
    trainer.num_epochs, trainer.max_steps = 2, None
    return trainer.save_checkpoint(folder / "a.pt")


KINDS = ["constant", "object"]


@pytest.mark.parametrize("kind", KINDS)
def test_another_rate_is_refused_with_both_values_and_the_way_out(
    tmp_path: Path, kind: str
) -> None:
    path = saved(tmp_path, kind)
    trainer = scheduled(0.2, type=kind)
    trainer.load_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"\[0\.2\].*\[0\.1\].*on_schedule_ch"):
        trainer.train()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rate_is_taken(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, kind)
    trainer = scheduled(0.1, type=kind)
    trainer.load_checkpoint(path)
    trainer.train()
    assert trainer.step == 4


@pytest.mark.parametrize(
    ("choice", "rate"), [("keep", 0.1), ("new", 0.2), ("rescale", 0.2)]
)
def test_with_consent_the_rate_is_the_chosen_one(
    tmp_path: Path, choice: Any, rate: float
) -> None:
    path = saved(tmp_path, "constant")
    trainer = scheduled(0.2, type="constant", on_schedule_change=choice)
    trainer.load_checkpoint(path)
    trainer.train()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(rate)


#: Two of four steps have halved the rates.
HALVED = ["step", "object"]


@pytest.mark.parametrize("kind", HALVED)
def test_where_the_schedule_is_dropped_the_rate_it_left_is_a_setting_like_any_other(
    tmp_path: Path, kind: str
) -> None:
    path = saved(tmp_path, kind, 0.2, 0.4)
    without = ["plugins.lr_scheduling"]
    told = r"optimizer.lr was \[0.1, 0.2\] \(as a schedule left it\), is \[0.03, 0.2\]"
    trainer = scheduled(0.03, 0.2, type=None)
    with pytest.raises(CheckpointError, match=told):
        trainer.load_checkpoint(path, allow_changes=without)
    receipt = trainer.load_checkpoint(path, allow_changes=[*without, "optimizer.lr"])
    assert "as a schedule left it" in str(receipt)
    trainer.train()
    groups = trainer.optimizer.param_groups
    assert [group["lr"] for group in groups] == [0.03, 0.2]
    # From here on it is a run without a schedule, whose rates are compared.
    later = trainer.save_checkpoint(tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"lr was \[0.03, 0.2\], is 0.5"):
        scheduled(0.5, 0.5, type=None).load_checkpoint(later)


class Own(Callback):
    """Moves the rates by a schedule of its own, and declares nothing."""

    def on_setup(self, trainer: Trainer) -> None:
        self.schedule = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 2, gamma=0.5)

    def on_step_end(self) -> None:
        self.schedule.step()

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.schedule.last_epoch}

    def load_state_dict(self, state: Any) -> None:
        self.schedule.last_epoch = state["epoch"]


class Other(Callback):
    """Alters training, and no rate."""

    name = "other"
    alters_training = True


def test_a_rate_that_a_plugin_which_stays_has_moved_is_no_change(
    tmp_path: Path,
) -> None:
    def build(*callbacks: Callback) -> Trainer:
        trainer = scheduled(0.1, type=None)
        trainer.bus.register_all([(None, each) for each in callbacks])
        return trainer

    first = build(Own(), Other())
    first.max_steps = 2
    first.train()
    first.max_steps = None
    path = first.save_checkpoint(tmp_path / "a.pt")
    resumed = build(Own())
    receipt = resumed.load_checkpoint(path, allow_changes=["plugins.other"])
    assert receipt is not None
    assert "optimizer.lr" not in str(receipt)
    resumed.train()
    assert resumed.optimizer.param_groups[0]["lr"] == pytest.approx(0.025)


@pytest.mark.parametrize("kind", HALVED)
def test_where_another_schedule_moves_the_rates_they_are_no_change(
    tmp_path: Path, kind: str
) -> None:
    path = saved(tmp_path, kind)
    trainer = scheduled(0.1, type="constant", on_schedule_change="new")
    receipt = trainer.load_checkpoint(path)
    assert receipt is not None
    assert not receipt.changes
    trainer.train()
    assert trainer.optimizer.param_groups[0]["lr"] == 0.1
