"""The average is what the formula says, and it is there only while others measure."""

import pytest
import torch
from torch import nn

from trainbus_ema import EmaCallback
from training import Callback, ConfigError, ModelCheckpointCallback
from training.plugin import read_checkpoint


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


class Trains(Callback):
    """Has the first layer frozen in some epochs."""

    mutates = ("parameters",)

    def __init__(self, frozen):
        self.frozen = frozen

    def on_epoch_begin(self, trainer):
        trainer.model.layers[0].requires_grad_(trainer.epoch not in self.frozen)


def frozen_at_first(trainer):
    trainer.model.layers[0].requires_grad_(False)
    return trainer


def test_a_layer_that_is_thawed_begins_at_its_weight(tiny_trainer):
    ema = EmaCallback(decay=0.5, warmup=False)
    trainer = frozen_at_first(tiny_trainer(ema, Trains({0}), num_epochs=2))
    thawed = trainer.model.layers[0].weight
    begun = []

    class Looks(Callback):
        after = ("ema",)

        def on_step_end(self, trainer):
            if "layers.0.weight" in ema.average:
                begun.append((ema.average["layers.0.weight"].clone(), thawed.clone()))

    trainer.bus.register(Looks())
    trainer.train()
    (average, weight), (later, moved) = begun[:2]
    assert torch.equal(average, weight)
    torch.testing.assert_close(later, 0.5 * average + 0.5 * moved)


def test_a_layer_that_is_frozen_stays_in_the_average(tiny_trainer):
    ema, watch = EmaCallback(decay=0.9, warmup=False, keep_average=True), Watch()
    trainer = tiny_trainer(ema, watch, Trains({1}), num_epochs=2)
    expected = weights_of(trainer)
    trainer.train()
    for weights in watch.steps:
        expected = [0.9 * a + 0.1 * w for a, w in zip(expected, weights, strict=True)]
    for mine, theirs in zip(weights_of(trainer), expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_resumed_run_has_the_average_of_a_layer_that_was_thawed(
    tiny_trainer, tmp_path
):
    whole, half, rest = (EmaCallback(decay=0.9) for _ in range(3))
    for ema, num_epochs in ((whole, 3), (half, 2)):
        trainer = frozen_at_first(tiny_trainer(ema, Trains({0}), num_epochs=num_epochs))
        trainer.train()
    trainer.save_checkpoint(tmp_path / "half.pt")
    resumed = frozen_at_first(tiny_trainer(rest, Trains({0}), num_epochs=3))
    resumed.load_checkpoint(tmp_path / "half.pt")
    resumed.train()
    assert rest.average.keys() == whole.average.keys()
    assert all(
        torch.equal(rest.average[name], whole.average[name]) for name in rest.average
    )


class OneWeight(nn.Module):
    """Steers one weight of any type to zero."""

    def __init__(self, kind):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, dtype=kind))

    def forward(self, batch):
        return (self.weight.abs().double().square() * batch).mean()


@pytest.mark.parametrize(
    ("kind", "kept_in"),
    [
        pytest.param(torch.bfloat16, torch.float32, id="bfloat16"),
        pytest.param(torch.float16, torch.float32, id="float16"),
        pytest.param(torch.float32, torch.float32, id="float32"),
        pytest.param(torch.float64, torch.float64, id="float64"),
        pytest.param(torch.complex64, torch.complex64, id="complex"),
    ],
)
def test_the_average_of_weights_of_any_type_moves_as_the_formula_says(
    tiny_trainer, tmp_path, kind, kept_in
):
    def trainer(num_epochs):
        ema, watch = EmaCallback(decay=0.9999, warmup=False), Watch()
        return (
            ema,
            watch,
            tiny_trainer(
                *(ema, watch),
                model=OneWeight(kind),
                train_dataloader=[torch.ones(1)] * 20,
                step_fn=lambda model, batch: model(batch),
                metrics={"val_loss": [1.0] * num_epochs},
                num_epochs=num_epochs,
            ),
        )

    ema, watch, whole = trainer(2)
    whole.train()
    expected = torch.ones(3, dtype=torch.promote_types(kind, torch.float64))
    for (weight,) in watch.steps:
        expected = 0.9999 * expected + 0.0001 * weight
    average = ema.average["weight"]
    assert average.dtype == kept_in
    torch.testing.assert_close(average, expected.to(kept_in), rtol=1e-6, atol=0.0)
    # A model in half precision has it rounded while others measure.
    assert torch.equal(watch.seen[-1][0][0], average.to(kind))
    _, _, half = trainer(1)
    half.train()
    half.save_checkpoint(tmp_path / "half.pt")
    rest, _, resumed = trainer(2)
    resumed.load_checkpoint(tmp_path / "half.pt")
    resumed.train()
    assert torch.equal(rest.average["weight"], average)


def test_a_decay_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"ema\.decay is 1, but must be less than 1"):
        EmaCallback(decay=1)


class Restores(Callback):
    """Says, as early stopping does, whether it puts the best weights back."""

    name = "stopper"

    def __init__(self, restores, monitor="val_loss"):
        self.restore_best_weights, self.monitor = restores, monitor


@pytest.mark.parametrize(
    ("options", "restores", "warns"),
    [
        pytest.param({}, True, True, id="the average is measured"),
        pytest.param({"evaluate_with_average": False}, True, False, id="it is not"),
        pytest.param({"keep_average": True}, False, False, id="nothing is restored"),
    ],
)
def test_best_weights_of_another_loss_than_the_measured_one_are_warned_of(
    tiny_trainer, caplog, options, restores, warns
):
    stopper = Restores(restores)
    trainer = tiny_trainer(EmaCallback(**options), stopper)
    trainer.train()
    said = [each for each in caplog.messages if "but restores" in each]
    assert len(said) == warns
    assert all("turn off ema.evaluate_with_average" in each for each in said)


def test_a_loss_of_training_is_not_measured_with_the_average(tiny_trainer, caplog):
    tiny_trainer(EmaCallback(), Restores(True, "train_loss")).train()
    assert "but restores" not in caplog.text


def test_keeping_the_average_is_refused_where_the_best_weights_are_restored(
    tiny_trainer,
):
    stopper = Restores(True)
    trainer = tiny_trainer(EmaCallback(keep_average=True), stopper)
    with pytest.raises(
        ConfigError,
        match=r"ema\.keep_average and stopper\.restore_best_weights .* turn one off",
    ):
        trainer.train()


@pytest.mark.parametrize(
    ("options", "ranks", "warns"),
    [
        pytest.param({}, {}, True, id="the average is measured"),
        pytest.param({"evaluate_with_average": False}, {}, False, id="it is not"),
        pytest.param({}, {"save_top_k": 0}, False, id="no best is kept"),
        pytest.param({}, {"monitor": None}, False, id="nothing is ranked"),
        pytest.param({}, {"monitor": "train_loss"}, False, id="training is ranked"),
    ],
)
def test_files_that_are_ranked_by_other_weights_than_they_hold_are_warned_of(
    tiny_trainer, tmp_path, caplog, options, ranks, warns
):
    saver = ModelCheckpointCallback(tmp_path, **ranks)
    tiny_trainer(EmaCallback(**options), saver, num_epochs=1).train()
    said = [each for each in caplog.messages if "ranks its files" in each]
    assert len(said) == warns
    assert all("turn off ema.evaluate_with_average" in each for each in said)


def test_the_average_is_taken_out_of_a_file_as_the_readme_says(tiny_trainer, tmp_path):
    ema = EmaCallback(decay=0.5)
    trainer = tiny_trainer(ema, num_epochs=1)
    trainer.train()
    trainer.save_checkpoint(tmp_path / "a.pt")
    model = tiny_trainer().model
    state = read_checkpoint(tmp_path / "a.pt")
    model.load_state_dict(state["model"])
    found = model.load_state_dict(state["plugins"]["ema"]["average"], strict=False)
    assert not found.unexpected_keys
    for name, weight in model.named_parameters():
        assert torch.equal(weight, ema.average[name])
