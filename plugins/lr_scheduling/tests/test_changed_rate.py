"""Another configured rate on resuming is never passed over in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR, StepLR

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Callback, CheckpointError, Trainer

from .fakes import small_trainer


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
    return small_trainer(model, optimizer, *plugins)


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
    told = r"optimizer\.lr is 0\.2 now but 0\.1 in .*on_schedule_ch"
    with pytest.raises(CheckpointError, match=told):
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


class Course(Callback):
    """Notes the rate and the momentum of each step."""

    name = "course"

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def on_batch_begin(self, trainer: Trainer) -> None:
        group = trainer.optimizer.param_groups[0]
        momentum = group["betas"][0] if "betas" in group else group["momentum"]
        self.seen.append((group["lr"], momentum))


def cycling(make: Any, kind: Any, choice: Any, **options: Any) -> tuple[Trainer, Any]:
    """Return a trainer of 8 steps under a scheduler that moves momentum, too."""
    model = nn.Linear(1, 1)
    optimizer = kind(model.parameters(), lr=0.1)
    plugin = LearningRateSchedulerCallback(
        make(optimizer, **options), interval="step", on_schedule_change=choice
    )
    course = Course()
    trainer = Trainer(
        model=model,
        train_dataloader=[(torch.ones(1, 1),)] * 4,
        optimizer=optimizer,
        num_epochs=2,
        device="cpu",
        step_fn=lambda model, batch: model(batch[0]).square().mean(),
        callbacks=[plugin, course],
        seed=0,
    )
    return trainer, course


def one_cycle(optimizer: Any, max_lr: float = 0.2, **options: Any) -> Any:
    return OneCycleLR(optimizer, max_lr, total_steps=8, **options)


def cyclic(optimizer: Any, max_lr: float = 0.2, **options: Any) -> Any:
    return CyclicLR(optimizer, 0.01, max_lr, step_size_up=3, **options)


def momentous(parameters: Any, lr: float) -> Any:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def saved_cycle(folder: Path, make: Any, kind: Any, as_earlier: bool) -> Path:
    trainer, _ = cycling(make, kind, "error")
    trainer.max_steps = 3
    trainer.train()
    trainer.max_steps = None
    path = trainer.save_checkpoint(folder / "a.pt")
    if as_earlier:  # then only the groups held it
        state = torch.load(path, weights_only=True)
        for name in ("max_lr", "base_momentum", "max_momentum", "min_lr"):
            state["plugins"]["lr_scheduling"]["settings"].pop(name, None)
        torch.save(state, path)
    return path


CYCLES: Any = pytest.mark.parametrize(
    ("make", "kind", "options"),
    [
        (one_cycle, momentous, {"max_lr": 0.4}),
        (one_cycle, momentous, {"max_lr": 0.4, "div_factor": 50.0}),
        (one_cycle, momentous, {"final_div_factor": 10.0}),
        (one_cycle, momentous, {"base_momentum": 0.5, "max_momentum": 0.8}),
        (one_cycle, torch.optim.AdamW, {"base_momentum": 0.5, "max_momentum": 0.8}),
        (cyclic, momentous, {"base_momentum": 0.5, "max_momentum": 0.95}),
        (cyclic, momentous, {"max_lr": 0.4}),
    ],
)


@CYCLES
@pytest.mark.parametrize("as_earlier", [False, True])
@pytest.mark.parametrize("choice", ["keep", "rescale"])
def test_a_peak_or_momentum_of_a_scheduler_is_kept_or_changed_as_told(
    tmp_path: Path, make: Any, kind: Any, options: Any, choice: str, as_earlier: bool
) -> None:
    path = saved_cycle(tmp_path, make, kind, as_earlier)
    whole, expected = cycling(make, kind, "error", **options)
    if choice == "keep":
        whole, expected = cycling(make, kind, "error")
    whole.train()
    resumed, course = cycling(make, kind, choice, **options)
    resumed.load_checkpoint(path)
    resumed.train()
    # Kept ones are those of the file to the digit, others come from a replay.
    assert [*map(pytest.approx, course.seen)] == expected.seen[3:]


@CYCLES
@pytest.mark.parametrize("as_earlier", [False, True])
def test_another_peak_or_momentum_of_a_scheduler_is_refused_by_the_schedule(
    tmp_path: Path, make: Any, kind: Any, options: Any, as_earlier: bool
) -> None:
    path = saved_cycle(tmp_path, make, kind, as_earlier)
    trainer, _ = cycling(make, kind, "error", **options)
    # The consent that an earlier release asked for changes nothing.
    receipt = trainer.load_checkpoint(path, allow_changes=["optimizer"])
    assert receipt is not None
    assert not receipt.changes
    with pytest.raises(CheckpointError, match=r"now but .*'keep', 'new' or 'rescale'"):
        trainer.train()


def test_other_betas_than_the_one_that_is_moved_are_still_compared(
    tmp_path: Path,
) -> None:
    def adam(parameters: Any, lr: float) -> Any:
        return torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99))

    path = saved_cycle(tmp_path, one_cycle, torch.optim.AdamW, as_earlier=False)
    trainer, _ = cycling(one_cycle, adam, "keep", max_momentum=0.8)
    with pytest.raises(CheckpointError, match=r"betas was \[0.999\], is \[0.99\]"):
        trainer.load_checkpoint(path)


def stepping(optimizer: Any, **options: Any) -> Any:
    return StepLR(optimizer, 4)


def unmoved(optimizer: Any, **options: Any) -> Any:
    return one_cycle(optimizer, cycle_momentum=False)


@pytest.mark.parametrize(
    ("was", "now", "choice"),
    [
        (one_cycle, stepping, "new"),
        (one_cycle, unmoved, "new"),
        (stepping, one_cycle, "new"),
        (unmoved, one_cycle, "rescale"),
    ],
)
def test_where_one_of_both_schedules_moves_momentum_that_is_a_setting_of_the_run(
    tmp_path: Path, was: Any, now: Any, choice: str
) -> None:
    path = saved_cycle(tmp_path, was, momentous, as_earlier=False)
    whole, expected = cycling(now, momentous, "error")
    whole.train()
    trainer, course = cycling(now, momentous, choice)
    begins_with = trainer.optimizer.param_groups[0]["momentum"]
    with pytest.raises(CheckpointError, match=rf"momentum was .*, is {begins_with}:"):
        trainer.load_checkpoint(path)
    trainer.load_checkpoint(path, allow_changes=["optimizer.momentum"])
    trainer.train()
    momenta = [momentum for _, momentum in expected.seen]
    after = momenta[3:] if choice == "rescale" else momenta[:5]
    assert [momentum for _, momentum in course.seen] == pytest.approx(after)


@pytest.mark.parametrize("mutates", [(), ("optimizer",)])
def test_beside_a_plugin_that_does_not_compare_what_its_scheduler_reads_the_run_does(
    tmp_path: Path, mutates: tuple[str, ...]
) -> None:
    """Nobody else would: the saved values would hold without a word."""

    def built(max_lr: float, **said: Any) -> Trainer:
        trainer = scheduled(0.1, type=None)
        optimizer = trainer.optimizer
        own = type("Own", (Own,), {"mutates": mutates, **said})()
        own.on_setup = lambda: None  # type: ignore[assignment, method-assign]
        own.schedule = OneCycleLR(
            optimizer, max_lr, total_steps=9, cycle_momentum=False
        )
        trainer.bus.register_all([(None, own)])
        return trainer

    path = built(0.2).save_checkpoint(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"optimizer.max_lr was 0.2, is 0.4"):
        built(0.4).load_checkpoint(path)
    receipt = built(0.4, compares_options=("max_lr", "min_lr")).load_checkpoint(path)
    assert receipt is not None
    assert not receipt.changes


@pytest.mark.parametrize("kind", ["constant", "cosine", "step"])
def test_what_a_type_does_not_compare_of_a_group_stays_a_setting_of_the_run(
    tmp_path: Path, kind: str
) -> None:
    def built(floor: float) -> Trainer:
        trainer = scheduled(0.1, type=kind)
        trainer.optimizer.param_groups[0]["min_lr"] = floor
        return trainer

    path = built(1e-3).save_checkpoint(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"optimizer.min_lr was 0.001, is 0.005"):
        built(5e-3).load_checkpoint(path)
    trainer = built(5e-3)
    trainer.load_checkpoint(path, allow_changes=["optimizer.min_lr"])
    trainer.train()
    assert trainer.optimizer.param_groups[0]["min_lr"] == 5e-3
