"""The average is what the formula says, and it is there only while others measure."""

import pytest
import torch

from trainbus_ema import EmaCallback
from training import Callback


class Watch(Callback):
    """Keeps the weights after each step, and those that evaluations see."""

    def __init__(self):
        self.steps, self.seen = [], []

    def on_step_end(self, trainer):
        self.steps.append(weights_of(trainer))

    def evaluate(self, trainer):
        self.seen.append((weights_of(trainer), trainer.weights_are))
        return {}


def weights_of(trainer):
    return [weight.detach().clone() for weight in trainer.model.parameters()]


def are_equal(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="as it comes"),
        pytest.param({"decay": 0.5, "keep_average": True}, id="keeping the average"),
    ],
)
def test_it_conforms(options, assert_plugin_conforms):
    assert_plugin_conforms(lambda: EmaCallback(**options))


def test_the_average_follows_the_formula(tiny_trainer):
    ema, watch = EmaCallback(decay=0.9, warmup=False), Watch()
    trainer = tiny_trainer(ema, watch, num_epochs=1)
    expected = weights_of(trainer)
    trainer.train()
    for weights in watch.steps:
        expected = [0.9 * a + 0.1 * w for a, w in zip(expected, weights, strict=True)]
    for mine, theirs in zip(ema.average.values(), expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_evaluation_sees_the_average_and_training_does_not(tiny_trainer):
    ema, watch = EmaCallback(decay=0.5), Watch()
    plain = tiny_trainer(num_epochs=2)
    trainer = tiny_trainer(ema, watch, num_epochs=2)
    plain.train()
    trainer.train()
    seen, word = watch.seen[-1]
    assert word == "ema"
    assert are_equal(seen, ema.average.values())
    assert not are_equal(seen, watch.steps[-1])
    assert are_equal(weights_of(trainer), weights_of(plain))


def test_the_weights_are_back_after_an_evaluation_that_fails(tiny_trainer):
    class Fails(Callback):
        def evaluate(self):
            raise RuntimeError("no")

    watch = Watch()
    trainer = tiny_trainer(EmaCallback(decay=0.5), watch, Fails())
    with pytest.raises(RuntimeError, match="no"):
        trainer.train()
    assert are_equal(weights_of(trainer), watch.steps[-1])
    assert trainer.weights_are == "live"


def test_the_model_keeps_the_average_if_asked_to(tiny_trainer):
    ema = EmaCallback(decay=0.5, keep_average=True)
    trainer = tiny_trainer(ema)
    trainer.train()
    assert are_equal(weights_of(trainer), ema.average.values())
    assert trainer.weights_are == "ema"


def test_a_decay_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"ema\.decay is 1, but must be less than 1"):
        EmaCallback(decay=1)
