"""What trains, what is refused, and that nothing asks for a base class."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from toy import (
    Recorder,
    Regression,
    assert_equal_weights,
    make_trainer,
    regression_batches,
    shuffled_loader,
    weights_of,
)

from training import Callback, ConfigError, DataError, MetricError, Trainer


class Plain(nn.Module):
    """A classifier that knows no loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)  # type: ignore[no-any-return]


class Pair(NamedTuple):
    x: Tensor
    y: Tensor


class Output:
    def __init__(self, loss: Tensor) -> None:
        self.loss = loss


class Wrapped(nn.Module):
    """Returns its loss in the form asked for."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.inner, self.form = Regression(), form

    def forward(self, x: Tensor, y: Tensor) -> Any:
        loss = self.inner(x, y)["loss"]
        return {"tensor": loss, "mapping": {"loss": loss}}.get(self.form, Output(loss))


X = torch.randn(8, 4, generator=torch.Generator().manual_seed(3))
CLASSES = torch.arange(8) % 3


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param((X, CLASSES), id="tuple"),
        pytest.param([X, CLASSES], id="list"),
        pytest.param(Pair(X, CLASSES), id="named tuple"),
        pytest.param({"x": X, "labels": CLASSES}, id="mapping"),
    ],
)
def test_a_model_without_a_loss_trains_with_loss_fn(batch: Any) -> None:
    model = Plain()
    trainer = make_trainer(
        model, [batch], loss_fn=nn.functional.cross_entropy, num_epochs=20
    )
    trainer.train()
    assert trainer.history[-1]["train_loss"] < trainer.history[0]["train_loss"]


@pytest.mark.parametrize("form", ["tensor", "mapping", "attribute"])
def test_a_model_may_return_its_loss_in_any_usual_form(form: str) -> None:
    trainer = make_trainer(Wrapped(form))
    trainer.train()
    assert trainer.update == 4


@pytest.mark.parametrize(
    ("options", "told"),
    [
        pytest.param({}, "without a scalar loss; pass loss_fn", id="no loss"),
        pytest.param(
            {"step_fn": lambda m, b: {"loss_sum": m(b[0]).sum()}},
            "loss_sum without weight",
            id="sum without weight",
        ),
    ],
)
def test_a_step_without_a_usable_loss_is_refused(
    options: dict[str, Any], told: str
) -> None:
    batches = [X] if not options else [(X, CLASSES)]
    with pytest.raises(ConfigError, match=told):
        make_trainer(Plain(), batches, **options).train()


def test_loss_fn_and_step_fn_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="pass one of them"):
        make_trainer(loss_fn=nn.functional.mse_loss, step_fn=lambda m, b: m(*b))


def test_the_weights_are_those_of_a_loop_written_by_hand() -> None:
    batches, ours, by_hand = regression_batches(6), Regression(), Regression()
    make_trainer(ours, batches, num_epochs=3).train()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    for _ in range(3):
        for x, y in batches:
            by_hand(x, y)["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
    assert_equal_weights(ours, by_hand)


@pytest.mark.parametrize("optimizer", [None, "adamw", torch.optim.AdamW])
def test_an_optimizer_is_required(optimizer: Any) -> None:
    with pytest.raises(ConfigError, match="pass a torch optimizer"):
        Trainer(Regression(), regression_batches(), optimizer=optimizer)


@pytest.mark.parametrize("name", ["val_dataloader", "epoch", "metrics", "plugins"])
def test_what_tells_about_the_run_cannot_be_set_and_that_is_said(name: str) -> None:
    trainer = make_trainer()
    with pytest.raises(AttributeError, match=rf"trainer\.{name} .* cannot be set"):
        setattr(trainer, name, None)


def test_an_iterator_is_refused_since_it_lasts_one_epoch() -> None:
    with pytest.raises(ConfigError, match="exhausted after one epoch"):
        make_trainer(None, iter(regression_batches()))


def test_what_cannot_be_iterated_is_refused() -> None:
    with pytest.raises(ConfigError, match="train_dataloader is a int"):
        make_trainer(None, 5)


def test_a_loader_without_batches_is_an_error() -> None:
    with pytest.raises(DataError, match="yielded no batch in epoch 1;"):
        make_trainer(None, []).train()


def test_the_guides_own_callback_works_as_written(capsys: Any) -> None:
    class MyCallback(Callback):
        def on_batch_end(self, trainer, batch, logs, **kwargs):  # type: ignore[no-untyped-def]
            if batch % 100 == 0:
                print(f"Batch {batch}: {logs}")  # noqa: T201

    make_trainer(None, None, MyCallback()).train()
    assert capsys.readouterr().out.startswith("Batch 0: {'loss': ")


def test_a_history_row_has_the_promised_keys() -> None:
    recorder = Recorder()
    trainer = make_trainer(None, None, recorder)
    trainer.train()
    row = trainer.history[0]
    assert list(row) == [
        "epoch",
        "step",
        "update",
        "lr",
        "train_loss",
        "val_loss",
        "seconds",
    ]
    assert recorder.rows == [row]


def test_a_row_given_to_a_plugin_cannot_be_changed() -> None:
    class Meddles(Callback):
        def on_epoch_end(self, metrics: Any) -> None:
            metrics["train_loss"] = 0.0

    with pytest.raises(TypeError, match="does not support item assignment"):
        make_trainer(None, None, Meddles()).train()


def test_metrics_know_who_measured_them_and_when() -> None:
    trainer = make_trainer(None, None, Recorder(), num_epochs=2)
    trainer.train()
    value = trainer.metrics["val_loss"]
    assert (value.value, value.step, value.epoch) == (1.0, 8, 2)
    assert value.producer == "Recorder"
    assert trainer.metrics["train_loss"].producer == "trainer"


class Watches(Callback):
    def __init__(self, metric: str) -> None:
        self.metric = metric

    def on_train_begin(self, trainer: Trainer) -> None:
        trainer.require_metric(self.metric, "Watches.metric")


def test_a_metric_that_nobody_produces_fails_before_the_first_step() -> None:
    trainer = make_trainer(None, None, Recorder(), Watches("val_los"))
    with pytest.raises(MetricError, match=r"train_loss, val_loss.*mean 'val_loss'"):
        trainer.train()
    assert trainer.step == 0


def test_a_producer_that_does_not_say_its_names_switches_the_check_off() -> None:
    class Silent(Callback):
        def evaluate(self) -> dict[str, float]:
            return {"anything": 1.0}

    make_trainer(None, None, Silent(), Watches("anything")).train()


@pytest.mark.parametrize(
    ("result", "told"),
    [
        pytest.param({"val_loss": 2.0}, "comes from both", id="delivered twice"),
        pytest.param([1.0], "returned list from evaluate", id="not a mapping"),
        pytest.param({"x": "high"}, "returned 'high' as metric 'x'", id="no number"),
    ],
)
def test_a_bad_result_of_evaluate_names_its_plugin(result: Any, told: str) -> None:
    class Second(Callback):
        def evaluate(self) -> Any:
            return result

    with pytest.raises(ConfigError, match=told):
        make_trainer(None, None, Recorder(), Second()).train()


def test_a_second_train_starts_afresh_from_the_current_weights() -> None:
    trainer = make_trainer(None, None, num_epochs=2)
    trainer.train()
    first = [row["train_loss"] for row in trainer.history]
    trainer.train()
    second = [row["train_loss"] for row in trainer.history]
    assert len(second) == 2
    assert second[0] < first[0]
    assert (trainer.epoch, trainer.step) == (2, 8)


def test_a_seed_makes_two_runs_equal() -> None:
    results = []
    for ambient in (1, 2):
        model = Regression(dropout=0.5)
        torch.manual_seed(ambient)
        make_trainer(model, shuffled_loader(), seed=7, num_epochs=2).train()
        results.append(weights_of(model))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_evaluation_in_eval_mode_leaves_training_in_train_mode() -> None:
    seen = []

    class Evaluates(Callback):
        def evaluate(self, trainer: Trainer) -> None:
            trainer.model.eval()

        def on_batch_end(self, trainer: Trainer) -> None:
            seen.append(trainer.model.training)

    make_trainer(None, None, Evaluates(), num_epochs=3).train()
    assert seen == [True] * 12


def test_frozen_modules_stay_in_eval_mode_during_training() -> None:
    seen = []

    class Looks(Callback):
        def on_batch_begin(self, trainer: Trainer) -> None:
            layers = trainer.model.layers
            seen.append((layers[2].training, layers[0].training))

    model = Regression(dropout=0.5)
    model.layers[2]._is_frozen = True  # type: ignore[assignment]
    make_trainer(model, None, Looks()).train()
    assert set(seen) == {(False, True)}


def test_wrappers_replace_what_the_loop_uses_and_not_what_plugins_see() -> None:
    calls = []

    class Doubled(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor, y: Tensor) -> Any:
            calls.append("wrapped")
            return self.inner(x, y)

    class Wraps(Callback):
        def wrap_model(self, model: nn.Module) -> nn.Module:
            return Doubled(model)

        def wrap_dataloader(self, dataloader: Any, stage: str) -> Any:
            return list(dataloader)[:2]

    model = Regression()
    trainer = make_trainer(model, None, Wraps())
    trainer.train()
    assert len(calls) == 2
    assert trainer.model is model
    assert trainer.train_dataloader is not None


def test_a_second_train_wraps_the_loader_that_was_passed() -> None:
    seen = []

    class Wraps(Recorder):
        def wrap_dataloader(self, dataloader: Any, stage: str) -> Any:
            if stage == "validation":
                seen.append(len(dataloader))
            return list(dataloader)[:-1]

    trainer = make_trainer(None, None, Wraps(), val_dataloader=regression_batches(4))
    trainer.train()
    trainer.train()
    assert seen == [4, 4]


def test_an_optimizer_of_another_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="4 parameters, none of this Regres"):
        Trainer(
            Regression(),
            regression_batches(),
            optimizer=torch.optim.SGD(Regression().parameters(), lr=0.1),
        )


@pytest.mark.parametrize("has_length", [True, False])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_max_steps_alone_is_how_long_a_run_is(
    accumulation: int, has_length: bool
) -> None:
    batches = regression_batches(4)
    how = {"gradient_accumulation_steps": accumulation, "max_steps": 11}
    data = batches if has_length else Unsized(batches)
    trainer = make_trainer(None, data, **how)
    trainer.train()
    assert trainer.step == 11
    assert trainer.num_epochs == (-(-11 // -(-4 // accumulation)) if has_length else 11)


def test_max_steps_alone_counts_the_batches_that_a_plugin_leaves() -> None:
    class Halves(Callback):
        def wrap_dataloader(self, dataloader: Any, stage: str) -> Any:
            return list(dataloader)[::2]

    trainer = make_trainer(None, regression_batches(4), Halves(), max_steps=11)
    trainer.train()
    assert (trainer.num_epochs, trainer.step) == (6, 11)
    trainer.max_steps = 13
    trainer.train()
    assert (trainer.num_epochs, trainer.step) == (7, 13)


def test_max_steps_alone_is_reached_whatever_a_loader_says_of_its_length() -> None:
    class SaysMore(Unsized):
        def __len__(self) -> int:
            return 10

    trainer = make_trainer(None, SaysMore(regression_batches(4)), max_steps=11)
    trainer.train()
    assert (trainer.step, trainer.stop_reason) == (11, "max_steps=11 reached")


def test_epochs_that_are_given_end_a_run_before_its_max_steps() -> None:
    trainer = make_trainer(None, regression_batches(4), num_epochs=2, max_steps=11)
    trainer.train()
    assert (trainer.num_epochs, trainer.step) == (2, 8)


def test_a_run_that_is_given_no_length_has_one_epoch() -> None:
    trainer = make_trainer(None, regression_batches(4))
    trainer.train()
    assert (trainer.num_epochs, trainer.step) == (1, 4)


class Unsized:
    """Batches of which nobody knows how many there are."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)
