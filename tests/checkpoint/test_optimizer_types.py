"""Each tensor of an optimizer's state comes back in the type that it was saved in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import ASGD, SGD, NAdam, Optimizer

from training import Trainer


class MasterWeights(Optimizer):
    """Steps fp32 copies of its weights, leaving out elements that a mask names."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.01})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["master"] = parameter.detach().float().clone()
                    state["mask"] = parameter > 0
                    state["past"] = [torch.zeros_like(state["master"])]
                    state["pair"] = (state["master"] / 3, 1)
                state["past"][0].add_(parameter.grad.float())
                moved = state["past"][0] * group["lr"]
                moved[state["mask"]] *= 0.5
                state["master"].sub_(moved).add_(state["pair"][0], alpha=1e-3)
                parameter.copy_(state["master"])


class Accumulated(SGD):
    """Keeps sums in double beside weights in single precision."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                total = state.setdefault("total", torch.zeros(parameter.shape).double())
                total += parameter.double() / 3
                parameter.sub_((total * 1e-3).to(parameter.dtype))


class Compressed(SGD):
    """Saves its momentum scaled and in half precision, and loads it as it was."""

    def state_dict(self) -> Any:
        saved = super().state_dict()
        states = saved["state"].items()
        return saved | {
            "state": {
                number: {"momentum_buffer": (state["momentum_buffer"] * 64).half()}
                for number, state in states
            }
        }

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state["momentum_buffer"] = state["momentum_buffer"].float() / 64


MAKERS: dict[str, tuple[torch.dtype, Callable[[Any], Optimizer]]] = {
    "master weights": (torch.bfloat16, MasterWeights),
    "sums in double": (torch.float32, lambda p: Accumulated(p, lr=0.05)),
    "NAdam": (torch.bfloat16, lambda p: NAdam(p, lr=0.01)),
    "ASGD": (torch.bfloat16, lambda p: ASGD(p, lr=0.01)),
}


def trainer_of(
    kind: torch.dtype, make: Callable[[Any], Optimizer], max_steps: int
) -> Trainer:
    torch.manual_seed(0)
    model = nn.Linear(6, 4).to(kind)
    rows = torch.randn(4, 6, 10).to(kind)
    return Trainer(
        model,
        [(each[:, :6], each[:, 6:]) for each in rows],
        optimizer=make(model.parameters()),
        loss_fn=nn.functional.mse_loss,
        num_epochs=9,
        max_steps=max_steps,
        seed=1,
        device="cpu",
        plugins=["no:progress", "no:run_record"],
    )


def everything(trainer: Trainer) -> list[Tensor]:
    found: list[Tensor] = []

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, dict):
            for each in value.values():
                add(each)
        elif isinstance(value, (list, tuple)):
            for each in value:
                add(each)

    add(trainer.model.state_dict())
    add(trainer.optimizer.state_dict()["state"])
    return found


@pytest.mark.parametrize("name", MAKERS)
def test_a_state_of_other_types_than_its_weights_goes_on_bit_for_bit(
    name: str, tmp_path: Path
) -> None:
    straight = trainer_of(*MAKERS[name], max_steps=11)
    straight.train()
    first = trainer_of(*MAKERS[name], max_steps=5)
    first.train()
    first.save_checkpoint(tmp_path / "a.pt")
    second = trainer_of(*MAKERS[name], max_steps=11)
    second.train(resume=tmp_path / "a.pt")
    expected, found = everything(straight), everything(second)
    assert [each.dtype for each in found] == [each.dtype for each in expected]
    assert all(map(torch.equal, found, expected))


def test_where_the_weights_have_another_type_the_state_is_cast_along(
    tmp_path: Path,
) -> None:
    first = trainer_of(torch.float32, lambda p: SGD(p, lr=0.1, momentum=0.9), 5)
    first.train()
    first.save_checkpoint(tmp_path / "a.pt")
    second = trainer_of(torch.bfloat16, lambda p: SGD(p, lr=0.1, momentum=0.9), 6)
    second.load_checkpoint(tmp_path / "a.pt")
    assert {each.dtype for each in everything(second)} == {torch.bfloat16}
    second.train()


def test_an_optimizer_that_loads_by_itself_is_left_to_that(tmp_path: Path) -> None:
    first, second = (
        trainer_of(torch.float32, lambda p: Compressed(p, lr=0.1, momentum=0.9), 5)
        for _ in range(2)
    )
    first.train()
    first.save_checkpoint(tmp_path / "a.pt")
    second.load_checkpoint(tmp_path / "a.pt")
    for one, other in zip(
        first.optimizer.state.values(), second.optimizer.state.values(), strict=True
    ):
        momentum = other["momentum_buffer"]
        assert momentum.dtype == torch.float32
        assert torch.allclose(momentum, one["momentum_buffer"], rtol=1e-3)


def test_a_group_that_joins_again_leaves_the_others_types_alone(tmp_path: Path) -> None:
    def joining(max_steps: int) -> Trainer:
        trainer = trainer_of(*MAKERS["master weights"], max_steps)
        weight, bias = trainer.model.parameters()
        trainer.optimizer = MasterWeights([weight])
        trainer.bus.register(Joins(bias), name="joins")
        return trainer

    class Joins:
        alters_training = True

        def __init__(self, parameter: Any) -> None:
            self.parameter = parameter

        def on_epoch_begin(self, trainer: Any) -> None:
            if trainer.epoch == 1 and len(trainer.optimizer.param_groups) == 1:
                trainer.optimizer.add_param_group({"params": [self.parameter]})

    straight, first, second = joining(11), joining(6), joining(11)
    straight.train()
    first.train()
    first.save_checkpoint(tmp_path / "a.pt")
    second.train(resume=tmp_path / "a.pt")
    assert all(map(torch.equal, everything(second), everything(straight)))


def test_hooks_on_loading_have_the_last_word_and_find_the_own_types(
    tmp_path: Path,
) -> None:
    def halved(optimizer: Any, state: Any) -> Any:
        states = state["state"].items()
        halves = {n: s | {"master": s["master"] * 0.5} for n, s in states}
        return state | {"state": halves}

    def see(optimizer: Any) -> None:
        seen.extend(each["master"].dtype for each in optimizer.state.values())

    seen: list[torch.dtype] = []
    first = trainer_of(*MAKERS["master weights"], max_steps=5)
    first.train()
    first.save_checkpoint(tmp_path / "a.pt")
    second = trainer_of(*MAKERS["master weights"], max_steps=5)
    second.optimizer.register_load_state_dict_pre_hook(halved)
    second.optimizer.register_load_state_dict_post_hook(see)
    second.load_checkpoint(tmp_path / "a.pt")
    assert seen == [torch.float32] * 2
    for one, other in zip(
        first.optimizer.state.values(), second.optimizer.state.values(), strict=True
    ):
        assert torch.equal(other["master"], one["master"] * 0.5)


def test_an_optimizer_that_ran_with_a_schedule_loads_each_type_too(
    tmp_path: Path,
) -> None:
    trainer = trainer_of(*MAKERS["master weights"], max_steps=5)
    schedule = torch.optim.lr_scheduler.ExponentialLR(trainer.optimizer, 0.9)
    scheduled = Trainer(
        trainer.model,
        trainer.train_dataloader,
        optimizer=trainer.optimizer,
        scheduler=schedule,
        loss_fn=nn.functional.mse_loss,
        max_steps=5,
        num_epochs=9,
        device="cpu",
        save_dir=tmp_path,
        plugins=["no:progress", "no:run_record"],
    )
    scheduled.train()
    scheduled.save_checkpoint(tmp_path / "b.pt")
    saved = everything(scheduled)
    scheduled.load_checkpoint(tmp_path / "b.pt")
    found = everything(scheduled)
    assert [each.dtype for each in found] == [each.dtype for each in saved]
    assert all(map(torch.equal, found, saved))


def test_a_state_that_an_optimizer_made_before_its_weights_changed_type_is_taken(
    tmp_path: Path,
) -> None:
    def made(num_epochs: int) -> Trainer:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
        model.to(torch.bfloat16)
        batches = [(torch.ones(2, 3).bfloat16(), torch.ones(2, 1).bfloat16())] * 2
        how = {"loss_fn": torch.nn.functional.mse_loss, "device": "cpu"}
        return Trainer(
            model, batches, optimizer=optimizer, num_epochs=num_epochs, **how
        )

    straight, first, rest = made(2), made(1), made(2)
    straight.train()
    first.train()
    first.save_checkpoint(tmp_path / "a.pt")
    rest.train(resume=tmp_path / "a.pt")
    assert torch.equal(rest.model.weight, straight.model.weight)
