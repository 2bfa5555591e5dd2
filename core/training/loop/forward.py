"""One forward pass: find the loss of a batch, and the weight of that loss."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from training.errors import ConfigError
from training.feed.structure import attribute_of, is_dict, shallow_copy
from training.loop.forward_checks import (
    Role,
    check_function,
    check_labels,
    check_loss,
    checked_part,
    explain_call,
    explain_outputs,
    refuse_labels,
)
from training.recipes.weight import checked_weight, warn_of_overruled

#: Named values beside the loss, means like it: 0-d tensors or floats.
Parts = Mapping[str, Tensor | float]
#: (model, batch, weight counted on the host) -> (0-d mean loss, weight, parts).
Forward = Callable[[nn.Module, Any, float], tuple[Tensor, float, Parts]]
LossFn = Callable[[Any, Any], Tensor]
StepFn = Callable[[nn.Module, Any], Any]

NO_PARTS: Parts = {}
#: Whatever is less is a finite float.
MANY = 1e300
_WEIGHT = ("step_fn returned the weight", ConfigError)


def make_forward(
    loss_fn: LossFn | None, step_fn: StepFn | None, loss_per: Any = None
) -> Forward:
    """Return the function that computes the loss of a batch.

    - ``step_fn(model, batch)`` returns the loss, or a mapping with ``loss`` (a mean)
      or ``loss_sum``, and optionally ``weight``: the number of items behind it.
      Whatever else it holds, 0-d tensors or numbers by name, are parts for the logs.
      A mapping is its own: what it takes out of it is in the batch of all others.
    - ``loss_fn(outputs, targets)`` is applied to ``model(*inputs)``; targets are the
      last element of a tuple batch, or the entry ``labels`` of a mapping.
    - with neither, the model is called with the batch and returns its loss: as
      ``outputs.loss``, ``outputs["loss"]`` or as the 0-d tensor itself.

    A ``loss_per`` that a ``step_fn`` overrules by its weight is warned of, once.

    Raises:
        ConfigError: both are given, or what is given cannot be called like that.
    """
    if loss_fn is not None and step_fn is not None:
        raise ConfigError("loss_fn and step_fn are both given; pass one of them")
    # Chosen here, once a run: no batch asks which way it goes.
    if step_fn is not None:
        check_function("step_fn", step_fn, "model", "batch")
        return _StepForward(step_fn, loss_per)
    if loss_fn is not None:
        check_function("loss_fn", loss_fn, "outputs", "targets")
        return functools.partial(_with_loss_fn, loss_fn)
    return _own_loss


def call_model(model: nn.Module, batch: Any, has_loss_fn: bool = False) -> Any:
    """Return what ``model`` makes of ``batch``: its entries, elements or itself.

    Args:
        model: that of the run.
        batch: on the device.
        has_loss_fn: whether a ``loss_fn`` took the targets out of it, for messages.
    Raises:
        ConfigError: the model does not take those; says what it takes.
    """
    arguments: tuple[Any, ...] = ()
    entries: Mapping[str, Any] = {}
    if type(batch) is tuple:  # the usual one
        arguments = batch
    elif isinstance(batch, Mapping):
        entries = batch
    else:
        arguments = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
    try:
        return model(*arguments, **entries)
    # The signature is read only now: bound before, each batch would pay for it.
    except TypeError as error:
        explain_call(error, model, arguments, entries, has_loss_fn)
        raise


def loss_in(outputs: Any) -> Any:
    """Return ``outputs.loss``, ``outputs["loss"]``, a tensor itself, or None."""
    loss = outputs if isinstance(outputs, Tensor) else attribute_of(outputs, "loss")
    if loss is None and isinstance(outputs, Mapping):
        loss = outputs.get("loss")
    return loss


def _own_loss(
    model: nn.Module, batch: Any, weight: float
) -> tuple[Tensor, float, Parts]:
    outputs = call_model(model, batch)
    if (loss := loss_in(outputs)) is None:
        check_labels(model, batch)
    return _checked(loss, weight, "model", model, outputs), weight, NO_PARTS


def _with_loss_fn(
    loss_fn: LossFn, model: nn.Module, batch: Any, weight: float
) -> tuple[Tensor, float, Parts]:
    if (type(batch) is tuple or type(batch) is list) and len(batch) == 2:
        inputs, targets = batch  # the usual one, which pays for no call more
        try:
            outputs = [model(inputs)]
        except TypeError as error:
            explain_call(error, model, (inputs,), {}, has_loss_fn=True)
            raise
    else:
        inputs, targets = _without_targets(batch)
        outputs = [call_model(model, inputs, True)]
    kind = type(outputs[0])
    try:
        # Handed over, not kept: what the loss lets go of is free at once.
        loss = loss_fn(outputs.pop(), targets)
    except (TypeError, AttributeError) as error:
        explain_outputs(error, loss_fn, kind)
        raise
    except IndexError as error:
        refuse_labels(error, loss_fn)
        raise
    return _checked(loss, weight, "loss_fn", loss_fn, loss), weight, NO_PARTS


def _without_targets(batch: Any) -> tuple[Any, Any]:
    """Return what the model is called with, and what the loss compares that with."""
    if isinstance(batch, Mapping):
        if "labels" not in batch:
            raise ConfigError(
                f"loss_fn needs targets, but the batch has no 'labels', only: "
                f"{', '.join(map(str, batch))}; rename them or pass a step_fn"
            )
        # A new mapping: the batch stays as plugins have seen it.
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        return inputs, batch["labels"]
    if isinstance(batch, (tuple, list)) and len(batch) >= 2:
        return batch[:-1], batch[-1]
    raise ConfigError(
        f"loss_fn needs (inputs, targets), but a batch is a "
        f"{type(batch).__name__}; pass a step_fn"
    )


def _checked(
    loss: Any, weight: float, role: Role, source: Any, returned: Any
) -> Tensor:
    """Return ``loss`` if it is a 0-d tensor that can be trained on.

    In an evaluation, and where nothing counts, it needs no gradient.
    """
    # Few attributes a batch; what is wrong is found out where one of them fails.
    is_number = isinstance(loss, Tensor) and not loss.dim()
    if not is_number or not loss.requires_grad or loss.dtype.is_complex:
        check_loss(loss, weight, role, source, returned)
    return loss  # type: ignore[no-any-return]  # the check raises for anything else


class _StepForward:
    """Reads what a user's ``step_fn`` returns.

    Args:
        step_fn: as the Trainer's.
        loss_per: likewise.
    """

    def __init__(self, step_fn: StepFn, loss_per: Any = None) -> None:
        self._step_fn, self._loss_per = step_fn, loss_per
        #: Names that were looked at before.
        self._names = {"loss", "loss_sum", "weight"}
        #: A model, and its first parameter that trains.
        self._first: tuple[nn.Module, nn.Parameter | None] | None = None

    def __call__(
        self, model: nn.Module, batch: Any, weight: float
    ) -> tuple[Tensor, float, Parts]:
        if self._first is None or self._first[0] is not model:
            trained = (p for p in model.parameters() if p.requires_grad)
            self._first = model, next(trained, None)
        first = self._first[1]
        # Of the batches before it in the window, which nobody would miss.
        gradient = None if first is None else first.grad
        # It may pop labels, which an evaluation, or the next epoch, looks for.
        kind: Any = type(batch)
        if kind is dict or kind is list:  # the usual ones, which pay for no call more
            batch = batch.copy()
        elif is_dict(kind):
            batch = shallow_copy(batch)
        in_eval = not model.training
        result = self._step_fn(model, batch)
        if in_eval and model.training:
            raise ConfigError(
                "step_fn put the model into train mode where it is measured in eval "
                "mode; leave model.train() out: the trainer does it before it trains; "
                "where train mode alone has a loss, put the mode back behind it"
            )
        if first is not None and gradient is not None and first.grad is None:
            raise ConfigError(
                "step_fn cleared the gradients of its window, as zero_grad() does; "
                "leave that out: the trainer does it between two windows"
            )
        if not isinstance(result, Mapping) or attribute_of(result, "loss") is not None:
            # The loss itself, or a model's outputs with whatever else they hold.
            return self._loss(loss_in(result), weight, result), weight, NO_PARTS
        if "weight" in result:
            given = result["weight"]
            # The usual kinds pay for no call more; a device sync if it is on CUDA.
            is_usual = type(given) in (int, float) and 0 <= given < MANY
            weight = float(given) if is_usual else checked_weight(given, *_WEIGHT)
            if self._loss_per is not None:
                overruled, self._loss_per = self._loss_per, None
                warn_of_overruled(overruled, _WEIGHT[0], weight, "return none")
        if "loss_sum" in result:
            if "weight" not in result:
                raise ConfigError(
                    "step_fn returned loss_sum without weight; return both"
                )
            total = self._loss(result["loss_sum"], weight, result)
            # A batch of weight 0 gives no gradient: any divisor but 0 will do.
            return total / (weight or 1.0), weight, self._parts(result)
        loss = self._loss(result.get("loss"), weight, result)
        return loss, weight, self._parts(result)

    def _loss(self, loss: Any, weight: float, result: Any) -> Tensor:
        return _checked(loss, weight, "step_fn", self._step_fn, result)

    def _parts(self, result: Mapping[str, Any]) -> Parts:
        """Return what is neither loss nor weight; it costs no device sync."""
        names = result.keys() - ("loss", "loss_sum", "weight")
        # Most steps return loss and weight alone: no dict is made for them.
        if not names:
            return NO_PARTS
        return {
            name: checked_part(name, result, self._names, self._step_fn)
            for name in result
            if name in names
        }
