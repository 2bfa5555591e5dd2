"""One forward pass: find the loss of a batch, and the weight of that loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from training.errors import ConfigError

#: (model, batch, weight counted on the host) -> (0-d mean loss, weight).
Forward = Callable[[nn.Module, Any, float], tuple[Tensor, float]]
LossFn = Callable[[Any, Any], Tensor]
StepFn = Callable[[nn.Module, Any], Any]


def make_forward(loss_fn: LossFn | None, step_fn: StepFn | None) -> Forward:
    """Return the function that computes the loss of a batch.

    - ``step_fn(model, batch)`` returns the loss, or a mapping with ``loss`` (a mean)
      or ``loss_sum``, and optionally ``weight``: the number of items behind it.
    - ``loss_fn(outputs, targets)`` is applied to ``model(*inputs)``; targets are the
      last element of a tuple batch, or the entry ``labels`` of a mapping.
    - with neither, the model is called with the batch and returns its loss: as
      ``outputs.loss``, ``outputs["loss"]`` or as the 0-d tensor itself.

    Raises:
        ConfigError: both are given.
    """
    if loss_fn is not None and step_fn is not None:
        raise ConfigError("loss_fn and step_fn are both given; pass one of them")
    if step_fn is not None:
        return lambda model, batch, weight: _read_step(step_fn(model, batch), weight)
    if loss_fn is not None:
        return lambda model, batch, weight: (
            _with_loss_fn(model, batch, loss_fn),
            weight,
        )
    return lambda model, batch, weight: (_loss_of(_call(model, batch)), weight)


def _call(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, (tuple, list)):
        return model(*batch)
    return model(batch)


def _with_loss_fn(model: nn.Module, batch: Any, loss_fn: LossFn) -> Tensor:
    if isinstance(batch, Mapping):
        if "labels" not in batch:
            raise ConfigError(
                f"loss_fn needs targets, but the batch has no 'labels', only: "
                f"{', '.join(map(str, batch))}; rename them or pass a step_fn"
            )
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return loss_fn(model(**inputs), batch["labels"])
    if isinstance(batch, (tuple, list)) and len(batch) >= 2:
        *arguments, targets = batch
        return loss_fn(model(*arguments), targets)
    raise ConfigError(
        f"loss_fn needs (inputs, targets), but a batch is a {type(batch).__name__}; "
        "pass a step_fn"
    )


def _loss_of(outputs: Any) -> Tensor:
    loss = outputs if isinstance(outputs, Tensor) else getattr(outputs, "loss", None)
    if loss is None and isinstance(outputs, Mapping):
        loss = outputs.get("loss")
    if not isinstance(loss, Tensor) or loss.dim() != 0:
        shape = f" of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else ""
        raise ConfigError(
            f"the model returned {type(outputs).__name__}{shape} without a scalar "
            "loss; pass loss_fn=... or step_fn=... to the Trainer"
        )
    return loss


def _read_step(result: Any, weight: float) -> tuple[Tensor, float]:
    if not isinstance(result, Mapping):
        return _loss_of(result), weight
    if "weight" in result:
        weight = float(result["weight"])  # a device sync if it is a CUDA tensor
        if not 0.0 <= weight < math.inf:
            raise ConfigError(
                f"step_fn returned the weight {weight}; return the number of items "
                "that the mean loss is a mean over, 0 or more"
            )
    if "loss_sum" in result:
        if "weight" not in result:
            raise ConfigError("step_fn returned loss_sum without weight; return both")
        return result["loss_sum"] / (weight or 1.0), weight
    return _loss_of(result), weight
