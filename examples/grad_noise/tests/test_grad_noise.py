"""The numbers are those of the formulas, and nothing is read inside an epoch."""

import math

import pytest
import torch

from trainbus_grad_noise import GradientNoiseCallback
from training import Callback, ConfigError
from training.plugin import Strategy
from training.testing import assert_no_waits


class Gradients(Callback):
    """Keeps every step's gradients, flat; may put others in their place."""

    name = "a_gradients"  # before grad_noise

    def __init__(self, value=None):
        self.value, self.seen = value, []

    def on_before_step(self, trainer):
        weights = [w for w in trainer.model.parameters() if w.grad is not None]
        for weight in weights:
            if self.value is not None:
                weight.grad.fill_(self.value)
        flat = [weight.grad.flatten() for weight in weights]
        self.seen.append(torch.cat(flat).clone())


class Undeclared(GradientNoiseCallback):
    reads_device = ()


def test_it_waits_for_nothing_but_what_fp16_costs_its_hook():
    assert_no_waits(Undeclared(), precision="fp32")
    assert_no_waits(GradientNoiseCallback(), precision="fp16")


def test_it_conforms(assert_plugin_conforms):
    assert_plugin_conforms(GradientNoiseCallback)


def test_the_numbers_are_those_of_the_formulas(tiny_trainer):
    gradients = Gradients()
    trainer = tiny_trainer(gradients, GradientNoiseCallback(), num_epochs=1)
    trainer.train()
    row, each = trainer.history[0], torch.stack(gradients.seen).double()
    norm = each.square().sum(dim=1).mean().sqrt()
    noise = each.var(dim=0).sum()
    signal = each.mean(dim=0).square().sum() - noise / len(each)
    assert row["grad_norm"] == pytest.approx(float(norm), rel=1e-5)
    expected = float(noise / signal) if signal > 0 else math.nan
    assert row["grad_noise"] == pytest.approx(expected, rel=1e-4, nan_ok=True)


def test_equal_gradients_have_no_noise(tiny_trainer):
    trainer = tiny_trainer(Gradients(0.01), GradientNoiseCallback(), num_epochs=1)
    trainer.train()
    assert trainer.history[0]["grad_noise"] == pytest.approx(0, abs=1e-5)


def test_one_step_an_epoch_has_a_norm_and_no_noise(tiny_trainer):
    trainer = tiny_trainer(GradientNoiseCallback(), num_epochs=1, num_batches=1)
    trainer.train()
    assert trainer.history[0]["grad_norm"] > 0
    assert math.isnan(trainer.history[0]["grad_noise"])


def test_a_step_with_gradients_that_are_not_finite_is_left_out(tiny_trainer):
    class Spoils(Callback):
        name = "a_spoils"

        def on_before_step(self, trainer):
            if trainer.step == 1:
                next(trainer.model.parameters()).grad.fill_(math.inf)

    trainer = tiny_trainer(
        Spoils(), GradientNoiseCallback(), num_epochs=1, nonfinite="skip"
    )
    trainer.train()
    assert math.isfinite(trainer.history[0]["grad_norm"])


def test_a_layer_that_is_thawed_counts_from_then_on(tiny_trainer):
    class Thaws(Callback):
        mutates = ("parameters",)

        def on_epoch_begin(self, trainer):
            trainer.model.layers[0].requires_grad_(trainer.epoch > 0)

    gradients = Gradients()
    trainer = tiny_trainer(Thaws(), gradients, GradientNoiseCallback(), num_epochs=2)
    trainer.model.layers[0].requires_grad_(False)
    trainer.train()
    for row, epoch in zip(trainer.history, (0, 1), strict=True):
        seen = gradients.seen[4 * epoch : 4 * epoch + 4]
        norm = sum(float(each.square().sum()) for each in seen) / 4
        assert row["grad_norm"] == pytest.approx(norm**0.5, rel=1e-5)


def test_what_the_optimizer_does_not_step_does_not_count(tiny_trainer):
    def norms(groups):
        model = tiny_trainer().model
        first, last = model.layers[0], model.layers[3]
        last.requires_grad_(len(groups) > 1)
        optimizer = torch.optim.SGD(first.parameters(), lr=1e-9)
        trainer = tiny_trainer(
            GradientNoiseCallback(), model=model, optimizer=optimizer, num_epochs=2
        )
        trainer.train()
        return [row["grad_norm"] for row in trainer.history]

    assert norms(["first"]) == norms(["first", "and one that no group has"])


class InParts(Strategy):
    """Of a process that has a part of each tensor."""

    parts = (torch.Tensor,)


class Divides(Callback):
    hook_api = ">=1.1,<2"

    def make_strategy(self):
        return InParts()


def test_parts_of_gradients_are_refused(tiny_trainer):
    trainer = tiny_trainer(Divides(), GradientNoiseCallback(), num_epochs=1)
    with pytest.raises(ConfigError, match="use engine ddp, or leave grad_noise out"):
        trainer.train()


def test_validation_data_are_measured_beside_it(tiny_trainer):
    batches = [torch.zeros(2, 4)]
    callback = GradientNoiseCallback()
    trainer = tiny_trainer(callback, val_dataloader=batches)
    assert "evaluation" in trainer.plugins
