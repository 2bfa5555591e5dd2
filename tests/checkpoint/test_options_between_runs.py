"""What a person sets on an optimizer between two runs is what the second is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import Regression, Saves, assert_equal_weights, regression_batches

from training import Callback, CheckpointError, ConfigError, Trainer


def build(folder: Path, lr: float = 0.1, kind: Any = "SGD", **options: Any) -> Trainer:
    model = Regression()
    make = getattr(torch.optim, kind) if isinstance(kind, str) else kind
    return Trainer(
        model,
        regression_batches(4),
        optimizer=make(model.parameters(), lr=lr),
        num_epochs=2,
        save_dir=folder,
        device="cpu",
        seed=0,
        **options,
    )


def set_rate(trainer: Trainer, lr: float) -> None:
    trainer.optimizer.param_groups[0]["lr"] = lr


def test_who_rolls_back_with_another_rate_consents_and_trains_with_it(
    tmp_path: Path,
) -> None:
    trainer = build(tmp_path, callbacks=[Saves(tmp_path / "{epoch}.pt")])
    trainer.train()
    set_rate(trainer, 0.01)
    with pytest.raises(CheckpointError, match=r"optimizer\.lr was 0\.1, is 0\.01"):
        trainer.load_checkpoint(tmp_path / "1.pt")
    told = trainer.load_checkpoint(tmp_path / "1.pt", allow_changes=["optimizer.lr"])
    assert "optimizer.lr was 0.1, is 0.01" in str(told)
    trainer.train()
    assert [row["lr"] for row in trainer.history] == [0.1, 0.01]


def test_who_rolls_back_and_sets_nothing_goes_on_as_it_was(tmp_path: Path) -> None:
    class Halves(Callback):
        def on_epoch_end(self, trainer: Trainer) -> None:
            set_rate(trainer, trainer.optimizer.param_groups[0]["lr"] / 2)

    trainer = build(tmp_path, callbacks=[Halves(), Saves(tmp_path / "{epoch}.pt")])
    for _ in range(2):
        trainer.train()
        trainer.load_checkpoint(tmp_path / "1.pt")
    trainer.train()
    assert trainer.optimizer.param_groups[0]["lr"] == 0.1 / 4


def test_what_another_trainer_has_moved_nobody_has_set(tmp_path: Path) -> None:
    class Halves(Callback):
        def on_epoch_end(self, trainer: Trainer) -> None:
            set_rate(trainer, 0.05)

    trainer = build(tmp_path, callbacks=[Saves(tmp_path / "{epoch}.pt")])
    trainer.train()
    Trainer(
        trainer.model,
        regression_batches(4),
        optimizer=trainer.optimizer,
        callbacks=[Halves()],
        device="cpu",
    ).train()
    assert trainer.optimizer.param_groups[0]["lr"] == 0.05
    trainer.train(resume=tmp_path / "1.pt")
    assert [row["lr"] for row in trainer.history] == [0.1, 0.1]


def test_checkpoints_of_a_second_run_are_of_the_rate_that_was_set_for_it(
    tmp_path: Path,
) -> None:
    trainer = build(tmp_path, callbacks=[Saves(tmp_path / "{epoch}.pt")])
    trainer.train()
    set_rate(trainer, 0.01)
    trainer.train()
    with pytest.raises(CheckpointError, match=r"optimizer\.lr was 0\.01, is 0\.1"):
        build(tmp_path).load_checkpoint(tmp_path / "1.pt")
    build(tmp_path, lr=0.01).load_checkpoint(tmp_path / "1.pt")


def test_checkpoints_of_a_second_run_are_of_the_optimizer_that_was_set_for_it(
    tmp_path: Path,
) -> None:
    trainer = build(tmp_path, callbacks=[Saves(tmp_path / "{epoch}.pt")])
    trainer.train()
    trainer.optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=0.003)
    trainer.train()
    again = build(tmp_path)
    again.optimizer = torch.optim.AdamW(again.model.parameters(), lr=0.003)
    again.train(resume=tmp_path / "1.pt")
    assert [row["lr"] for row in again.history] == [0.003, 0.003]


def test_an_option_of_what_is_frozen_since_needs_no_state(tmp_path: Path) -> None:
    trainer = build(tmp_path, kind="Adam")
    trainer.train()
    frozen, *others = trainer.model.parameters()
    frozen.requires_grad_(False)
    trainer.optimizer.param_groups[0]["amsgrad"] = True
    for each in others:
        del trainer.optimizer.state[each]
    trainer.train()
    assert "max_exp_avg_sq" not in trainer.optimizer.state[frozen]
    assert all("max_exp_avg_sq" in trainer.optimizer.state[each] for each in others)


class InItsOwnWay(torch.optim.Adam):
    """Makes what it needs whenever that is missing."""

    def step(self, closure: Any = None) -> Any:
        for state in self.state.values():
            if "max_exp_avg_sq" not in state:
                state["max_exp_avg_sq"] = torch.zeros_like(state["exp_avg_sq"])
        return super().step()


@pytest.mark.parametrize(
    ("kind", "option", "value", "kept"),
    [
        pytest.param("Adam", "amsgrad", True, "max_exp_avg_sq", id="Adam"),
        pytest.param("AdamW", "amsgrad", True, "max_exp_avg_sq", id="AdamW"),
        pytest.param("RMSprop", "momentum", 0.9, "momentum_buffer", id="momentum"),
        pytest.param("RMSprop", "centered", True, "grad_avg", id="centered"),
    ],
)
@pytest.mark.parametrize("is_loaded", [True, False])
def test_an_option_whose_state_torch_makes_in_a_first_step_alone_is_refused_later(
    tmp_path: Path, is_loaded: bool, kind: str, option: str, value: Any, kept: str
) -> None:
    trainer = build(tmp_path, callbacks=[Saves(tmp_path / "{epoch}.pt")], kind=kind)
    trainer.train()
    if is_loaded:
        trainer = build(tmp_path, kind=kind)
    trainer.optimizer.param_groups[0][option] = value
    if is_loaded:
        name = f"optimizer.{option}"
        trainer.load_checkpoint(tmp_path / "1.pt", allow_changes=[name])
    before = [each.clone() for each in trainer.model.parameters()]
    says = f"{kind} has the {option} {value}, but .* has no {kept}, .* set {option} "
    with pytest.raises(ConfigError, match=says):
        trainer.train()
    assert_equal_weights(trainer.model, before)
    trainer.optimizer.state.clear()
    trainer.train()
    assert all(kept in state for state in trainer.optimizer.state.values())


def test_an_option_that_finds_its_state_or_makes_it_is_taken(tmp_path: Path) -> None:
    for kind, option, value in (
        ("SGD", "momentum", 0.9),
        (InItsOwnWay, "amsgrad", True),
        ("AdamW", "betas", (0.5, 0.5)),
    ):
        trainer = build(tmp_path, kind=kind)
        trainer.train()
        trainer.optimizer.param_groups[0][option] = value
        trainer.train()
