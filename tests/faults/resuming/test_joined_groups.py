"""R11: groups that a run has changed are as they were when it is resumed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.nets import Net, end_of, first_difference, trainer_of
from faults.runs import SavesEverywhere

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Callback, CheckpointError, Trainer


class Joins(Callback):
    """Lets the first layer be trained, too, in the second epoch."""

    def __init__(self, when: str) -> None:
        self.when, self.is_done = when, False

    def join(self, trainer: Trainer) -> None:
        trainer.model.first.requires_grad_(True)
        if self.when != "by its gradients alone":
            parameters: Any = list(trainer.model.first.parameters())
            if "param_names" in trainer.optimizer.param_groups[0]:
                parameters = list(trainer.model.first.named_parameters("first"))
            trainer.optimizer.add_param_group({"params": parameters, "lr": 0.01})

    def on_setup(self, trainer: Trainer) -> None:
        if self.when == "at every set-up once it has begun" and trainer.epoch >= 1:
            self.join(trainer)

    def on_train_begin(self, trainer: Trainer, resumed: bool) -> None:
        if self.when == "again when resumed" and resumed and trainer.epoch >= 1:
            self.is_done = True
            self.join(trainer)

    def on_epoch_begin(self, trainer: Trainer) -> None:
        groups = len(trainer.optimizer.param_groups)
        due = {
            "when its epoch begins": trainer.epoch == 1,
            "by its gradients alone": trainer.epoch == 1,
            "when it is not there": trainer.epoch >= 1 and groups == 1,
            "once, as it remembers": trainer.epoch >= 1 and not self.is_done,
            "again when resumed": trainer.epoch >= 1 and not self.is_done,
            "at every set-up once it has begun": trainer.epoch >= 1 and groups == 1,
        }
        if due.get(self.when):
            self.is_done = True
            self.join(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"is_done": self.is_done} if "remembers" in self.when else {}

    def load_state_dict(self, state: Any) -> None:
        self.is_done = state["is_done"]

    def on_step_end(self, trainer: Trainer) -> None:
        if self.when == "inside an epoch" and trainer.step == 8:
            self.join(trainer)


WAYS = (
    "when its epoch begins",
    "when it is not there",
    "once, as it remembers",
    "again when resumed",
    "at every set-up once it has begun",
    "inside an epoch",
    "by its gradients alone",
)


def gradual(
    when: str, *callbacks: Any, is_named: bool = False, joined: bool = False
) -> Any:
    net = Net()
    if when == "by its gradients alone":
        groups: Any = net.parameters()
    else:
        rest = [net.second, net.last]
        groups = [p for layer in rest for p in layer.parameters()]
    if is_named:
        groups = [
            (name, p) for name, p in net.named_parameters() if "first" not in name
        ]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    if joined:
        optimizer.add_param_group({"params": net.first.parameters(), "lr": 0.01})
    else:
        net.first.requires_grad_(False)
    return trainer_of(net, optimizer, Joins(when), *callbacks, max_grad_norm=0.5)


@pytest.mark.parametrize("when", WAYS)
def test_r11_every_boundary_resumes_a_run_in_which_a_group_joins(
    tmp_path: Path, when: str, record_property: Callable[[str, object], None]
) -> None:
    straight = gradual(when, SavesEverywhere(tmp_path))
    straight.train()
    expected = end_of(straight)
    assert len(expected["moments"]) == 6
    files = sorted(tmp_path.iterdir())
    for path in files:
        trainer = gradual(when)
        trainer.load_checkpoint(path)
        trainer.train()
        found = first_difference(end_of(trainer), expected)
        assert found is None, f"{path.name}: {found}"
    record_property("boundaries", len(files))
    assert len(files) == 18


# One that is there at the set-up is a setting, which the checkpoint has not.
@pytest.mark.parametrize("when", [when for when in WAYS if "set-up" not in when])
def test_r11_a_schedule_takes_in_the_group_in_a_resumed_run_as_in_a_straight_one(
    tmp_path: Path, when: str
) -> None:
    def trainer(*callbacks: Any) -> Any:
        schedule = LearningRateSchedulerCallback(type="linear", interval="epoch")
        return gradual(when, schedule, *callbacks)

    straight = trainer(SavesEverywhere(tmp_path))
    straight.train()
    for path in sorted(tmp_path.iterdir()):
        resumed = trainer()
        resumed.load_checkpoint(path)
        resumed.train()
        found = first_difference(end_of(resumed), end_of(straight))
        assert found is None, f"{path.name}: {found}"


def test_r11_a_script_may_have_the_group_from_its_beginning(tmp_path: Path) -> None:
    straight = gradual("when it is not there", SavesEverywhere(tmp_path))
    straight.train()
    trainer = gradual("when it is not there", joined=True)
    trainer.load_checkpoint(tmp_path / "1-9.pt")
    trainer.train()
    assert first_difference(end_of(trainer), end_of(straight)) is None
    early = gradual("when it is not there", joined=True)
    told = r"groups was \[\], is \['model.first.bias', 'model.first.weight'\]"
    with pytest.raises(CheckpointError, match=told):
        early.load_checkpoint(tmp_path / "0-3.pt")


def test_r11_a_group_joins_an_optimizer_of_named_parameters(tmp_path: Path) -> None:
    straight = gradual("inside an epoch", SavesEverywhere(tmp_path), is_named=True)
    straight.train()
    trainer = gradual("inside an epoch", is_named=True)
    trainer.load_checkpoint(tmp_path / "1-9.pt")
    trainer.train()
    assert first_difference(end_of(trainer), end_of(straight)) is None
    names = trainer.optimizer.param_groups[1]["param_names"]
    assert names == ["first.weight", "first.bias"]


def test_r11_a_trainer_goes_back_to_before_a_group_had_joined(tmp_path: Path) -> None:
    trainer = gradual("when its epoch begins", SavesEverywhere(tmp_path))
    trainer.train()
    expected = copy.deepcopy(end_of(trainer))
    for path in ("0-3.pt", "1-9.pt"):
        trainer.load_checkpoint(tmp_path / path)
        trainer.train()
        assert first_difference(end_of(trainer), expected) is None, path


def test_r11_what_is_yet_to_join_is_in_a_checkpoint_made_before(tmp_path: Path) -> None:
    gradual("inside an epoch", SavesEverywhere(tmp_path)).train()
    loaded = gradual("inside an epoch")
    loaded.load_checkpoint(tmp_path / "1-9.pt")
    loaded.save_checkpoint(tmp_path / "again.pt")
    one, again = (
        torch.load(tmp_path / name, weights_only=True)["optimizer"]
        for name in ("1-9.pt", "again.pt")
    )
    assert first_difference(one, again) is None


def test_r11_what_the_checkpoint_says_of_gradients_is_told_and_may_be_declined(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gradual("by its gradients alone", SavesEverywhere(tmp_path)).train()
    for allowed, is_trained in (([], True), (["trainable"], False)):
        caplog.clear()
        trainer = gradual("by its gradients alone")
        trainer.load_checkpoint(tmp_path / "2-13.pt", allow_changes=allowed)
        trainer.train()
        assert trainer.model.first.weight.requires_grad == is_trained
        told = "trained or not as in the checkpoint, not as this run set them"
        assert (told in caplog.text) == is_trained


class Moves(Callback):
    """Takes the first layer out of its group, into a new one or another, or none."""

    def __init__(self, when: str, to: str) -> None:
        self.when, self.to = when, to

    def move(self, trainer: Trainer) -> None:
        groups, first = trainer.optimizer.param_groups, trainer.model.first
        own = set(first.parameters())
        groups[0]["params"] = [p for p in groups[0]["params"] if p not in own]
        named: Any = list(first.parameters())
        if "param_names" in groups[0]:
            named = list(first.named_parameters("first"))
            groups[0]["param_names"] = groups[0]["param_names"][2:]
        if self.to == "a new group":
            trainer.optimizer.add_param_group({"params": named, "weight_decay": 0.0})
        if self.to == "the other group":
            groups[1]["params"] += first.parameters()

    def on_epoch_begin(self, trainer: Trainer) -> None:
        group = trainer.optimizer.param_groups[0]["params"]
        is_there = trainer.model.first.weight in set(group)
        due = {
            "when its epoch begins": trainer.epoch == 1,
            "when it is there": trainer.epoch >= 1,
            "and back": trainer.epoch == 1,
        }
        if is_there and due.get(self.when):
            self.move(trainer)
        if self.when == "and back" and trainer.epoch == 2 and not is_there:
            group += trainer.model.first.parameters()

    def on_step_end(self, trainer: Trainer) -> None:
        if self.when == "inside an epoch" and trainer.step == 8:
            self.move(trainer)


MOVED = ("no group", "a new group", "the other group")
MOVES = (
    *product(("when its epoch begins", "when it is there", "inside an epoch"), MOVED),
    ("and back", "no group"),
)


def moving(when: str, to: str, *callbacks: Any, is_named: bool = False) -> Any:
    net = Net()
    rows: list[Any] = list(net.named_parameters() if is_named else net.parameters())
    groups = [{"params": rows[:4]}, {"params": rows[4:], "lr": 0.02}]
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.5)
    return trainer_of(net, optimizer, Moves(when, to), *callbacks, max_grad_norm=0.5)


def sizes_of(trainer: Trainer) -> list[int]:
    return [len(group["params"]) for group in trainer.optimizer.param_groups]


@pytest.mark.parametrize(("when", "to"), MOVES)
def test_r11_every_boundary_resumes_a_run_in_which_parameters_move(
    tmp_path: Path, when: str, to: str
) -> None:
    straight = moving(when, to, SavesEverywhere(tmp_path))
    straight.train()
    expected = end_of(straight)
    assert len(expected["moments"]) == 6
    files = sorted(tmp_path.iterdir())
    assert len(files) == 18
    for path in files:
        trainer = moving(when, to)
        trainer.load_checkpoint(path)
        trainer.train()
        found = first_difference(end_of(trainer), expected)
        assert found is None, f"{path.name}: {found}"
        assert sizes_of(trainer) == sizes_of(straight)


@pytest.mark.parametrize("to", MOVED)
def test_r11_a_trainer_goes_back_to_before_parameters_had_moved(
    tmp_path: Path, to: str
) -> None:
    trainer = moving("inside an epoch", to, SavesEverywhere(tmp_path))
    trainer.train()
    expected, sizes = copy.deepcopy(end_of(trainer)), sizes_of(trainer)
    for path in ("0-3.pt", "1-9.pt"):
        trainer.load_checkpoint(tmp_path / path)
        trainer.train()
        assert first_difference(end_of(trainer), expected) is None, path
        assert sizes_of(trainer) == sizes


def test_r11_parameters_move_in_an_optimizer_that_names_them(tmp_path: Path) -> None:
    run = partial(moving, "inside an epoch", "a new group", is_named=True)
    straight = run(SavesEverywhere(tmp_path))
    straight.train()
    trainer = run()
    trainer.load_checkpoint(tmp_path / "1-9.pt")
    trainer.train()
    assert first_difference(end_of(trainer), end_of(straight)) is None
    names, expected = (
        [group["param_names"] for group in each.optimizer.param_groups]
        for each in (trainer, straight)
    )
    assert names == expected


class MovesAtSetUp(Moves):
    """Takes the first layer out of its group as soon as a run goes on."""

    def on_setup(self, trainer: Trainer) -> None:
        if trainer.epoch >= 1:
            self.move(trainer)


def test_r11_names_stay_beside_what_a_hook_of_the_resumed_run_moves(
    tmp_path: Path,
) -> None:
    moving("never", "no group", SavesEverywhere(tmp_path), is_named=True).train()
    mover = MovesAtSetUp("never", "a new group")
    trainer = moving("never", "no group", mover, is_named=True)
    trainer.load_checkpoint(tmp_path / "1-9.pt")
    trainer.train()
    assert sizes_of(trainer) == [2, 2, 2]
    names = {p: name for name, p in trainer.model.named_parameters()}
    for group in trainer.optimizer.param_groups:
        assert group["param_names"] == [names[p] for p in group["params"]]


def test_r11_a_save_leaves_the_states_of_what_is_in_no_group(tmp_path: Path) -> None:
    trainer = moving("when its epoch begins", "no group", SavesEverywhere(tmp_path))
    trainer.train()
    assert trainer.model.first.weight in trainer.optimizer.state
    saved = torch.load(tmp_path / "2-17.pt", weights_only=True)["optimizer"]
    assert saved["names"][2:] == [["model.first.weight", "model.first.bias"]]
    assert [len(group) > 1 for group in saved["param_groups"]] == [True, True, False]


def test_r11_a_run_in_which_parameters_have_moved_is_trained_on(tmp_path: Path) -> None:
    trainer = moving("inside an epoch", "no group", SavesEverywhere(tmp_path))
    trainer.train()
    trainer.train()
    assert trainer.step == 18
    resumed = moving("inside an epoch", "no group")
    resumed.load_checkpoint(tmp_path / "1-9.pt")
    resumed.save_checkpoint(tmp_path / "again.pt")
    one, again = (
        torch.load(tmp_path / name, weights_only=True)["optimizer"]
        for name in ("1-9.pt", "again.pt")
    )
    assert first_difference(one, again) is None
