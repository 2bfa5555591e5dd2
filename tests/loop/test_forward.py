"""What a loss function, a step function and a model may return, and what is said."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from toy import Regression, make_trainer, regression_batches

from training import Callback, ConfigError
from training.errors import TrainbusError
from training.loop.forward import make_forward

X, CLASSES = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
BATCHES = [(X, CLASSES)] * 2


def refusal(model: nn.Module, batches: list[Any], **options: Any) -> str:
    """Return what a run is refused with, before its first step."""
    trainer = make_trainer(model, batches, **options)
    with pytest.raises(TrainbusError) as refused:
        trainer.train()
    assert trainer.step == 0
    return str(refused.value)


def of_loss(returned: Callable[[Tensor], Any]) -> Callable[[Any, Any], Any]:
    """Return a loss function that returns something made of the right loss."""

    def crooked(outputs: Any, targets: Any) -> Any:
        return returned(cross_entropy(outputs, targets))

    return crooked


@pytest.mark.parametrize(
    ("loss_fn", "told"),
    [
        pytest.param(
            nn.CrossEntropyLoss(reduction="none"),
            r"loss_fn (CrossEntropyLoss) returned a tensor of shape (4,)",
            id="a loss for each sample",
        ),
        pytest.param(
            of_loss(lambda loss: loss[None]), "a tensor of shape (1,)", id="a vector"
        ),
        pytest.param(
            of_loss(lambda loss: (loss, {})),
            "loss_fn (crooked) returned a tuple of Tensor, dict",
            id="a tuple",
        ),
        pytest.param(
            of_loss(lambda loss: {"loss": loss}), "a mapping of 'loss'", id="a mapping"
        ),
        pytest.param(of_loss(lambda loss: None), "is a return missing?", id="None"),
        pytest.param(
            of_loss(lambda loss: loss.detach()),
            "a loss without a gradient",
            id="a loss cut off from the weights",
        ),
        pytest.param(
            of_loss(lambda loss: loss.long()), "a loss of torch.int64", id="a count"
        ),
        pytest.param(
            of_loss(lambda loss: loss * (1 + 0j)),
            "a loss of torch.complex64; return the mean loss of the batch, a 0-d "
            "tensor, of a real type",
            id="a complex number",
        ),
        pytest.param(
            functools.partial(cross_entropy, reduction="none"),
            "loss_fn (cross_entropy) returned a tensor",
            id="a partial function by its name",
        ),
    ],
)
def test_a_loss_that_is_none_is_told_with_the_function_that_returned(
    loss_fn: Any, told: str
) -> None:
    message = refusal(nn.Linear(3, 2), BATCHES, loss_fn=loss_fn)
    assert "loss_fn (" in message
    assert told in message


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        pytest.param(
            lambda loss: {"los": loss}, "of 'los' (did you mean 'loss'?)", id="misspelt"
        ),
        pytest.param(lambda loss: {}, "a mapping of", id="an empty mapping"),
        pytest.param(lambda loss: {"logits": loss}, "'logits' without", id="no slip"),
        pytest.param(lambda loss: {"loss": loss[None]}, "shape (1,)", id="a vector"),
        pytest.param(lambda loss: None, "is a return missing?", id="None"),
        pytest.param(lambda loss: (loss, 4), "a tuple of Tensor, int", id="a tuple"),
    ],
)
def test_a_step_without_a_loss_is_told_with_its_function(
    returned: Callable[[Tensor], Any], told: str
) -> None:
    def my_step(model: nn.Module, batch: Any) -> Any:
        return returned(cross_entropy(model(batch[0]), batch[1]))

    message = refusal(nn.Linear(3, 2), BATCHES, step_fn=my_step)
    assert "step_fn (my_step) returned" in message
    assert told in message


@pytest.mark.parametrize("kind", ["pair", "list", "mapping", "three"])
def test_outputs_that_a_loss_lets_go_of_are_free_at_once(kind: str) -> None:
    freed: list[bool] = []

    def lets_go(outputs: Any, targets: Any) -> Tensor:
        known = weakref.ref(outputs)
        outputs = outputs.double()
        freed.append(known() is None)
        return cross_entropy(outputs, targets)

    class Rounds(nn.Linear):
        def forward(self, x: Tensor, more: Any = None) -> Tensor:
            return super().forward(x)

    batch: Any = {
        "pair": (X, CLASSES),
        "list": [X, CLASSES],
        "mapping": {"x": X, "labels": CLASSES},
        "three": (X, X, CLASSES),
    }[kind]
    model = Rounds(3, 2)
    make_forward(lets_go, None)(model, batch, 1.0)
    assert freed == [True]


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_training_where_gradients_are_off_is_refused(off: Any) -> None:
    with off():
        message = refusal(nn.Linear(3, 2), BATCHES, loss_fn=cross_entropy)
    assert "call train() outside of that" in message


def test_a_batch_of_weight_zero_needs_no_gradient() -> None:
    def step(model: nn.Module, batch: Any) -> dict[str, Any]:
        loss = mse_loss(model.layers(batch[0]), batch[1])
        is_empty = bool(batch[0][0, 0] > 0)
        return {
            "loss": loss.detach() if is_empty else loss,
            "weight": int(not is_empty),
        }

    trainer = make_trainer(Regression(), regression_batches(8), step_fn=step)
    trainer.train()
    assert 0 < trainer.update < trainer.step == 8


@pytest.mark.parametrize(
    ("options", "told"),
    [
        pytest.param(
            {"loss_fn": nn.CrossEntropyLoss}, "such as CrossEntropyLoss()", id="a class"
        ),
        pytest.param({"loss_fn": "mse"}, "'mse'; pass a function", id="text"),
        pytest.param(
            {"loss_fn": lambda outputs: outputs.sum()},
            "cannot be called as loss_fn(outputs, targets): too many",
            id="a loss of the outputs alone",
        ),
        pytest.param(
            {"step_fn": lambda trainer, model, batch: None},
            "step_fn(model, batch): missing a required argument: 'batch'",
            id="a step that wants the trainer",
        ),
    ],
)
def test_a_function_that_cannot_be_called_is_refused_when_it_is_passed(
    options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        make_trainer(**options)
    assert told in str(refused.value)


class Named(nn.Module):
    """Takes entries by name."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": cross_entropy(self.linear(pixels), labels)}


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize(
    ("model", "batch", "told"),
    [
        pytest.param(
            nn.Linear(3, 2),
            (X, CLASSES),
            "the model Linear takes (input), but a batch gives it (Tensor, Tensor): "
            "too many positional arguments; pass a loss_fn",
            id="a tuple without a loss_fn",
        ),
        pytest.param(
            Named(),
            {"pixel": X, "labels": CLASSES},
            "the model Named takes (pixels, labels), but a batch has the entries "
            "'pixel', 'labels': missing a required argument: 'pixels' (did you mean "
            "'pixels'?)",
            id="an entry of another name",
        ),
        pytest.param(
            Named(),
            {"pixels": X, "labels": CLASSES, "name": X},
            "got an unexpected keyword argument 'name'",
            id="an entry too many",
        ),
        pytest.param(Named(), X, "gives it (Tensor)", id="a tensor alone"),
    ],
)
def test_a_batch_that_the_model_does_not_take_is_told_with_both(
    model: nn.Module, batch: Any, told: str, compiled: bool
) -> None:
    trainer = make_trainer(model, [batch], compile=compiled and {"backend": "eager"})
    with pytest.raises(ConfigError) as refused:
        trainer.train()
    assert told in str(refused.value)
    assert isinstance(refused.value.__cause__, TypeError)


def test_a_type_error_inside_a_model_stays_what_it_is() -> None:
    class Broken(Named):
        def forward(self, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"loss": pixels.sum() + str(labels)}  # type: ignore[operator]

    with pytest.raises(TypeError, match="unsupported operand"):
        make_trainer(Broken(), [{"pixels": X, "labels": CLASSES}]).train()


def parts_step(model: nn.Module, batch: Any) -> dict[str, Any]:
    """A loss of two parts, one of them a tensor with a gradient."""
    x, y = batch
    fit = mse_loss(model.layers(x), y)
    parts = {"fit": fit, "rows": len(x), "noise": np.float32(0.5)}
    return {"loss": fit * 2, "weight": len(x), **parts}


class Logs(Callback):
    """Keeps the logs of batches and of steps."""

    def __init__(self) -> None:
        self.batches: list[dict[str, float]] = []
        self.steps: list[dict[str, float]] = []

    def on_batch_end(self, logs: Any) -> None:
        self.batches.append(dict(logs))

    def on_step_end(self, logs: Any) -> None:
        self.steps.append(dict(logs))


def test_parts_of_a_loss_are_logged_as_it_is() -> None:
    logs = Logs()
    batches = [regression_batches(1, size)[0] for size in (3, 1)]
    options = {"gradient_accumulation_steps": 2, "step_fn": parts_step}
    make_trainer(Regression(), batches, logs, **options).train()
    (first, second), (step,) = logs.batches, logs.steps
    assert [each["rows"] for each in logs.batches] == [3.0, 1.0]
    assert step["fit"] == pytest.approx((3 * first["fit"] + second["fit"]) / 4)
    assert step["fit"] == pytest.approx(step["loss"] / 2)
    assert step["rows"] == pytest.approx((3 * 3 + 1) / 4)
    assert step["noise"] == 0.5


def test_a_part_counts_over_the_batches_that_have_it() -> None:
    def step(model: nn.Module, batch: Any) -> dict[str, Any]:
        result: dict[str, Any] = {"loss": model(*batch)["loss"]}
        if len(batch[0]) == 1:
            result["rare"] = 7.0
        return result

    logs = Logs()
    batches = [regression_batches(1, size)[0] for size in (3, 1, 3)]
    options = {"gradient_accumulation_steps": 2, "step_fn": step}
    make_trainer(Regression(), batches, logs, **options).train()
    assert [each.get("rare") for each in logs.steps] == [7.0, None]


def test_parts_of_a_loss_change_no_weight() -> None:
    def bare(model: nn.Module, batch: Any) -> Tensor:
        loss: Tensor = 2 * mse_loss(model.layers(batch[0]), batch[1])
        return loss

    ours, plain = Regression(), Regression()
    make_trainer(ours, step_fn=parts_step).train()
    make_trainer(plain, step_fn=bare).train()
    for mine, its in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, its)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        pytest.param("wieght", 17, "'wieght', which is logged and", id="swapped"),
        pytest.param("weights", 17, "did you mean 'weight'?", id="a letter more"),
        pytest.param("Weight", 17, "did you mean 'weight'?", id="a capital"),
        pytest.param("lr", 0.1, "'lr', which the logs hold already", id="taken"),
        pytest.param("train_loss", 1.0, "it; leave it out, the", id="the run's loss"),
        pytest.param("val_train_loss", 1.0, "it; leave it out", id="its mean twice"),
        pytest.param("train_", 1.0, "it; rename it", id="a beginning alone"),
        pytest.param("val_kl", 1.0, "before it; name it 'kl'", id="named as a mean"),
        pytest.param("logits", X, "of shape (4, 3) as 'logits'", id="no scalar"),
        pytest.param("note", "x", "str as 'note'", id="a text"),
        pytest.param("penalty", None, "None as 'penalty'", id="nothing"),
        pytest.param(3, 1.0, "a value named 3; use a text", id="a name that is none"),
    ],
)
def test_what_cannot_be_a_part_is_refused(name: Any, value: Any, told: str) -> None:
    def my_step(model: nn.Module, batch: Any) -> dict[Any, Any]:
        return {"loss": cross_entropy(model(batch[0]), batch[1]), name: value}

    message = refusal(nn.Linear(3, 2), BATCHES, step_fn=my_step)
    assert message.startswith("step_fn (my_step) returned")
    assert told in message


PARTS = ("loss_cls", "loss2", "weight_norm", "mlm_loss", "n_items", "kl")


@pytest.mark.parametrize(
    ("name", "more"),
    [
        *((name, {}) for name in PARTS),
        pytest.param("weights", {"weight": 2}, id="weights beside a weight"),
    ],
)
def test_a_name_that_may_well_be_a_parts_is_one(name: str, more: Any) -> None:
    logs = Logs()

    def step(model: nn.Module, batch: Any) -> dict[str, Any]:
        return {"loss": model(*batch)["loss"], name: 1.5, **more}

    make_trainer(Regression(), None, logs, step_fn=step).train()
    assert {each[name] for each in logs.steps} == {1.5}


def test_a_batch_with_more_beside_inputs_and_targets_is_told_with_a_loss_fn() -> None:
    trainer = make_trainer(
        nn.Linear(3, 2), [(X, X, CLASSES)], loss_fn=nn.CrossEntropyLoss()
    )
    way = "all but its last element, the targets, are inputs; pass a step_fn"
    with pytest.raises(ConfigError, match=f"it \\(Tensor, Tensor\\): .*; {way}"):
        trainer.train()


class Pairs(Named):
    def forward(self, pixels: Tensor, labels: Tensor) -> Any:
        logits = self.linear(pixels)
        return cross_entropy(logits, labels), logits


def test_a_loss_in_a_tuple_is_told_with_how_to_name_it() -> None:
    trainer = make_trainer(Pairs(), [{"pixels": X, "labels": CLASSES}])
    way = "return a mapping or an object with it as 'loss' .*, or take it out in a step"
    with pytest.raises(ConfigError, match=f"Pairs returned a tuple of .*; {way}"):
        trainer.train()


class Labelled(Named):
    """Has a loss where it is given labels, as models of transformers do."""

    def forward(self, pixels: Tensor, labels: Any = None) -> dict[str, Tensor]:
        loss = {} if labels is None else super().forward(pixels, labels)
        return {**loss, "logits": self.linear(pixels)}


@pytest.mark.parametrize(
    "wrap", [nn.Module.train, functools.partial(torch.compile, backend="eager")]
)
def test_a_batch_without_the_labels_that_a_model_takes_is_told_so(wrap: Any) -> None:
    message = refusal(wrap(Labelled()), [{"pixels": X}])
    told = "Labelled takes 'labels' and returned no loss without them, but a batch has"
    assert f"the model {told} only 'pixels'; add 'labels'" in message
