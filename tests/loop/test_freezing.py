"""Frozen means: no gradient, not in the optimizer, never in train mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import assert_equal_weights, make_trainer, regression_batches, weights_of

from trainbus_models.model_utils import freeze_model, unfreeze_model
from training import Callback, Trainer


class WithNorm(nn.Module):
    """A backbone with BatchNorm and dropout, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(
            nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)
        )
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(self.head(self.backbone(x)), y)


def frozen_model() -> WithNorm:
    model = WithNorm()
    model.backbone._is_frozen = True  # type: ignore[assignment]
    return model


def test_weights_and_statistics_of_a_frozen_module_do_not_move() -> None:
    model = frozen_model()
    before, head = weights_of(model.backbone), weights_of(model.head)
    make_trainer(model, regression_batches(4), num_epochs=2).train()
    assert_equal_weights(model.backbone, before)
    assert not torch.equal(weights_of(model.head)[0], head[0])


def test_without_the_mark_the_statistics_move() -> None:
    """The negative control: gradients off alone leaves BatchNorm counting."""
    model = WithNorm()
    model.backbone.requires_grad_(False)
    before = weights_of(model.backbone)
    make_trainer(model, regression_batches(4)).train()
    after = weights_of(model.backbone)
    assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_frozen_parameters_leave_the_optimizer() -> None:
    model = frozen_model()
    trainer = make_trainer(model)
    left = [p for g in trainer.optimizer.param_groups for p in g["params"]]
    assert [p.shape for p in left] == [p.shape for p in model.head.parameters()]


def test_freezing_is_applied_again_at_each_train() -> None:
    model = frozen_model()
    trainer = make_trainer(model)
    trainer.train()
    model.backbone.requires_grad_(True)
    model.train()
    before = weights_of(model.backbone)
    trainer.train()
    assert all(not p.requires_grad for p in model.backbone.parameters())
    assert_equal_weights(model.backbone, before)


def test_a_resumed_run_is_frozen_too(tmp_path: Path) -> None:
    class Save(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            if trainer.step == 2:
                trainer.request_stop("enough")

        def on_checkpoint(self, trainer: Trainer) -> None:
            trainer.save_checkpoint(tmp_path / "a.pt")

    straight = frozen_model()
    make_trainer(straight, regression_batches(4), num_epochs=2, seed=1).train()
    make_trainer(frozen_model(), regression_batches(4), Save(), seed=1).train()
    resumed = frozen_model()
    trainer = make_trainer(resumed, regression_batches(4), num_epochs=2, seed=1)
    trainer.load_checkpoint(tmp_path / "a.pt")
    trainer.train()
    assert_equal_weights(resumed, straight)


def test_a_single_frozen_parameter_leaves_the_optimizer_and_is_frozen_again() -> None:
    model = WithNorm()
    freeze_model(model, ["head.weight"])
    before, bias = model.head.weight.clone(), model.head.bias.clone()
    trainer = make_trainer(model, num_epochs=2)
    steps = [p for g in trainer.optimizer.param_groups for p in g["params"]]
    assert not any(p is model.head.weight for p in steps)
    model.head.weight.requires_grad_(True)
    trainer.train()
    assert not model.head.weight.requires_grad
    assert torch.equal(model.head.weight, before)
    assert not torch.equal(model.head.bias, bias)
    assert model.head.training


def test_what_was_thawed_by_hand_is_frozen_again_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = WithNorm()
    freeze_model(model, ["backbone"])
    trainer = make_trainer(model)
    trainer.train()
    assert "frozen" not in caplog.text
    model.requires_grad_(True)
    make_trainer(model).train()
    told = "marked as frozen and is frozen again: backbone.0.weight, backbone.0.bias, "
    assert caplog.text.count(told) == 1
    assert "call unfreeze_model(model) of trainbus_models" in caplog.text
    model.backbone[0].weight.requires_grad_(True)
    trainer.train()
    assert "frozen again: backbone.0.weight; " in caplog.text


def test_of_what_freeze_model_froze_nothing_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = WithNorm()
    freeze_model(model, ["backbone", "head.bias"])
    trainer = make_trainer(model)  # its optimizer is given all parameters
    trainer.train()
    trainer.train()
    make_trainer(model).train()
    assert "frozen" not in caplog.text


def test_what_is_unfrozen_trains_again(caplog: pytest.LogCaptureFixture) -> None:
    model = WithNorm()
    freeze_model(model, ["backbone"])
    make_trainer(model).train()
    names = unfreeze_model(model)
    assert names == [n for n, _ in model.named_parameters() if n[:8] == "backbone"]
    layer, norm = model.backbone[0], model.backbone[1]
    weight, mean = layer.weight.clone(), norm.running_mean.clone()
    make_trainer(model).train()
    assert not torch.equal(layer.weight, weight)
    assert not torch.equal(norm.running_mean, mean)
    assert all(module.training for module in model.modules())
    assert "frozen" not in caplog.text
    assert "eval mode" not in caplog.text


class Turns(Callback):
    """Trains one layer an epoch, in turns: its parameters take the others' place."""

    alters_training = True
    mutates = ("optimizer",)

    def __init__(self, blocks: list[nn.Module], in_place: bool) -> None:
        self.blocks, self.in_place = blocks, in_place

    def on_epoch_begin(self, trainer: Trainer) -> None:
        turn = list(self.blocks[trainer.epoch % 2].parameters())
        (group,) = trainer.optimizer.param_groups
        if self.in_place:
            group["params"][:] = turn
        else:
            group["params"] = turn


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_layers_that_take_turns_train_as_by_hand(
    accumulation: int, in_place: bool
) -> None:
    def new() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))

    batches, num_epochs = regression_batches(4), 4
    model, by_hand = new(), new()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    Trainer(
        model,
        batches,
        optimizer=optimizer,
        callbacks=[Turns([model[0], model[2]], in_place)],
        device="cpu",
        loss_fn=nn.functional.mse_loss,
        num_epochs=num_epochs,
        gradient_accumulation_steps=accumulation,
        max_grad_norm=0.1,
    ).train()
    for epoch in range(num_epochs):
        turn = list(by_hand[2 if epoch % 2 else 0].parameters())
        optimizer = torch.optim.SGD(turn, lr=0.1)
        for first in range(0, len(batches), accumulation):
            by_hand.zero_grad()
            for inputs, targets in batches[first : first + accumulation]:
                loss = nn.functional.mse_loss(by_hand(inputs), targets)
                (loss / accumulation).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(turn, 0.1)
            optimizer.step()
    for own, right in zip(weights_of(model), weights_of(by_hand), strict=True):
        torch.testing.assert_close(own, right)


def test_names_of_frozen_parameters_leave_the_optimizer_with_them() -> None:
    model = frozen_model()
    named: Any = model.named_parameters()
    trainer = Trainer(
        model,
        regression_batches(4),
        optimizer=torch.optim.SGD(named, lr=0.1),
        device="cpu",
    )
    (group,) = trainer.optimizer.param_groups
    assert group["param_names"] == ["head.weight", "head.bias"]
    assert group["params"] == [*model.head.parameters()]
