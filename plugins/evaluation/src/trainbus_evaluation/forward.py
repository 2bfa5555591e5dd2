"""One forward pass of an evaluation: loss, weight, and what the model returned."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from training import ConfigError
from training.plugin import (
    LabelUse,
    LossFn,
    LossPer,
    Parts,
    StepFn,
    Weigher,
    attribute_of,
    call_model,
    choose_device,
    evaluating,
    loss_in,
    make_forward,
)

if TYPE_CHECKING:
    from training import Trainer

#: batch -> (0-d mean loss, weight); the trainer's ``compute_loss`` is one.
ComputeLoss = Callable[[Any], tuple[Tensor, float]]


class ModelRunner:
    """Calls a model with batches, on its device.

    Args:
        model: moved to ``device`` by ``place``, if it is elsewhere.
        device: None stays where the model is.
        loss_fn: ``(outputs, targets) -> 0-d mean loss``.
        step_fn: as the Trainer's.
        compute_loss: replaces both; it is given the batch on the host, and as ``moved``
            on the device, if it takes that, and may fill ``parts``. A trainer's knows
            how labels are taken.
        loss_per: what the loss is a mean over, as the Trainer's, where batches do not
            say it; None: it is measured by the losses of the first one, or defined.
    Attributes:
        parts: what ``step_fn`` returned beside the loss of the batch at hand.
    Raises:
        ConfigError: the device is not there, or two losses are given.
    """

    def __init__(
        self,
        model: nn.Module,
        device: str | torch.device | None = None,
        loss_fn: LossFn | None = None,
        step_fn: StepFn | None = None,
        compute_loss: ComputeLoss | None = None,
        loss_per: LossPer | None = None,
    ) -> None:
        self.model = model
        self.device = None if device is None else choose_device(device)
        if sum(given is not None for given in (loss_fn, step_fn, compute_loss)) > 1:
            raise ConfigError("loss_fn, step_fn and compute_loss exclude one another")
        is_given = loss_fn is not None or step_fn is not None
        self._forward = make_forward(loss_fn, step_fn) if is_given else None
        self._compute_loss = compute_loss
        self._trainer = None if compute_loss is None else _trainer_of(compute_loss)
        self._loss: Any = loss_fn if step_fn is None else step_fn
        if compute_loss is not None:
            trainer = self._trainer
            self._loss = compute_loss if trainer is None else trainer.criterion.function
        taken = inspect.signature(compute_loss).parameters if compute_loss else ()
        self._taken = [n for n in ("samples", "moved", "parts") if n in taken]
        self.parts: Parts = {}
        self._part_names: dict[str, None] | None = None
        self._weigher = Weigher(
            loss_per, self._mean_loss, loss_fn, step_fn is None, by_losses=True
        )
        self._weigher.prepare(model, torch.device("cpu"))
        #: What the model returned for the loss that is computed; None: none is.
        self._outputs: list[Any] | None = None

    def place(self) -> torch.device:
        """Put the model on its device; return that."""
        here = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        wanted = self.device
        if wanted is None or is_same_device(here, wanted):
            return here
        self.model.to(wanted)
        return wanted

    def evaluating(self) -> AbstractContextManager[None]:
        """Measure below this: in eval mode, with what the loss uses; no gradients."""
        return evaluating(self.model, loss=self._loss)

    def loss_and_outputs(
        self,
        batch: Any,
        moved: Any,
        device: torch.device,
        samples: int | None = None,
        is_weighed: bool = True,
        is_looked_at: bool = True,
    ) -> tuple[Tensor | None, float, Any]:
        """Return (mean loss or None, weight, the model's outputs) of a batch.

        What computes a loss keeps the outputs to itself: there they are None, except
        ``with_outputs``.

        Args:
            batch: on the host, where it is weighed: a count costs no wait there.
            moved: the same on the device.
            device: where the model is.
            samples: in the batch, where that is known.
            is_weighed: whether anybody asks for loss and weight; else this is 1, unless
                the batch says it.
            is_looked_at: whether a loss is of use, too, where nobody asks for it; the
                cross entropy of here is spared, where it is not.
        """
        if self._compute_loss is not None:
            compute = self._compute_loss
            parts: dict[str, Tensor | float] = {}
            given = {"samples": samples, "moved": moved, "parts": parts}
            keywords = {name: given[name] for name in self._taken}
            mean, weight, _, outputs = self._compute(compute, batch, **keywords)
            self._take(parts)
            return mean, weight, outputs
        weight = 1.0
        if is_weighed or attribute_of(batch, "loss_weight") is not None:
            self._weigher.prepare(self.model, device)
            weight = self._weigher(batch, samples=samples)
        forward = self._forward
        loss: Tensor | None
        if forward is not None:
            loss, weight, parts, outputs = self._compute(
                forward, self.model, moved, weight
            )
            self._take(parts)
        else:
            loss, outputs = self._loss_and_outputs(moved, is_weighed, is_looked_at)
        if self._weigher.is_sum and weight and loss is not None:
            loss = loss / weight
        return loss, weight, outputs

    def _loss_and_outputs(
        self, moved: Any, is_asked: bool = True, is_looked_at: bool = True
    ) -> tuple[Tensor | None, Any]:
        if isinstance(moved, Mapping):
            outputs = call_model(self.model, moved)
            return _own_loss(outputs), outputs
        targets = targets_of(moved)
        outputs = call_model(self.model, moved[:-1])
        is_of_use = is_looked_at and not _is_of_fractions(targets)
        if not (is_asked or is_of_use):
            return None, outputs  # a cross entropy of numbers is none
        return _cross_entropy(outputs, targets), outputs

    def _mean_loss(
        self, model: nn.Module, moved: Any, weight: float
    ) -> tuple[Tensor, float, Parts]:
        """Return the loss of a batch on the device, for who measures its unit."""
        if self._forward is not None:
            return self._forward(model, moved, weight)
        loss, outputs = self._loss_and_outputs(moved)
        if loss is None:
            raise ConfigError(f"the model returned {type(outputs).__name__}, no loss")
        return loss, weight, {}

    def label_use(self, batch: Any) -> LabelUse:
        """Return how the loss of ``batch`` takes labels, as far as that is known."""
        is_given = self._forward is not None or self._compute_loss is not None
        if not is_given and not isinstance(batch, Mapping):  # the cross entropy of here
            return LabelUse(class_dim=1, is_shifted=False)
        return self._weigher_of_loss.label_use

    @property
    def _weigher_of_loss(self) -> Weigher:
        trainer = self._trainer
        return self._weigher if trainer is None else trainer.state.weigher

    def part_names(self) -> list[str] | None:
        """Return ``val_<name>`` of all parts so far; None where any may yet come."""
        if not self._weigher_of_loss.has_step:
            return []
        names = self._part_names
        return None if names is None else [f"val_{name}" for name in names]

    def _take(self, parts: Parts) -> None:
        self.parts = parts
        self._part_names = {**(self._part_names or {}), **dict.fromkeys(parts)}

    @contextmanager
    def with_outputs(self) -> Iterator[None]:
        """Read what the model returns meanwhile, whatever the loss is made of.

        So predictions cost no second forward. The hook is there for all batches: to put
        it there for each costs more than its calls.
        """
        handle = self.model.register_forward_hook(self._note)
        try:
            yield
        finally:
            handle.remove()

    def _note(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        if self._outputs is not None:  # else it generates, or is measured
            self._outputs[:] = [outputs]

    def _compute(self, compute_loss: Any, *given: Any, **named: Any) -> Any:
        """Return (loss, weight, parts or None, the model's outputs if read)."""
        last: list[Any] = []
        self._outputs = last
        try:
            loss, weight, *more = compute_loss(*given, **named)
            return loss, weight, more[0] if more else None, last[0] if last else None
        finally:
            self._outputs = None  # nothing is kept


def _trainer_of(compute_loss: ComputeLoss) -> Trainer | None:
    """Return the trainer whose method this is, if it is one's."""
    from training import Trainer  # late: an evaluator alone needs none

    owner = getattr(compute_loss, "__self__", None)
    return owner if isinstance(owner, Trainer) else None


def is_same_device(one: torch.device, other: torch.device) -> bool:
    """Whether both name the same device; ``cuda`` is the current one."""
    if one.type != other.type or one.type == "cpu":
        return one.type == other.type
    current = torch.cuda.current_device() if one.type == "cuda" else 0
    indices = [current if d.index is None else d.index for d in (one, other)]
    return indices[0] == indices[1]


def targets_of(batch: Any) -> Any:
    """Return the labels of a mapping, or the last element of a tuple batch.

    Raises:
        ConfigError: the batch has no targets.
    """
    if isinstance(batch, (tuple, list)) and len(batch) >= 2:
        return batch[-1]
    if isinstance(batch, Mapping) and "labels" in batch:
        return batch["labels"]
    found = (
        f"the entries {', '.join(map(str, batch))}"
        if isinstance(batch, Mapping)
        else f"a {type(batch).__name__}"
    )
    raise ConfigError(
        f"the evaluator needs batches with 'labels' or (inputs, targets), but one is "
        f"{found}; rename the entry, or pass a step_fn and metrics=['loss']"
    )


def logits_of(outputs: Any) -> Tensor | None:
    """Return the logits that a model returned, or None if it returned none."""
    if isinstance(outputs, Tensor):
        return outputs if outputs.dim() > 0 else None
    logits = attribute_of(outputs, "logits")
    if logits is None and isinstance(outputs, Mapping):
        logits = outputs.get("logits")
    return logits if isinstance(logits, Tensor) else None


def refuse_unseen(outputs: Any) -> None:
    """Raise ``ConfigError`` if no outputs were seen while the loss was computed."""
    if outputs is None:
        raise ConfigError(
            "metrics compare what the model returns, but it was not called for the "
            "loss, or returned None; let step_fn call the model itself, as model(x), "
            "and not a part or a method of it, or measure the loss alone"
        )


def _own_loss(outputs: Any) -> Tensor | None:
    loss = loss_in(outputs)
    return loss if isinstance(loss, Tensor) and loss.dim() == 0 else None


def _cross_entropy(outputs: Any, targets: Any) -> Tensor:
    logits = logits_of(outputs)
    is_fit = isinstance(targets, Tensor) and not _is_of_fractions(targets)
    if logits is None or not is_fit:
        raise ConfigError(
            "the evaluator's own loss is the cross entropy of logits and class "
            f"numbers, but the model returned {type(outputs).__name__}; pass loss_fn "
            "or step_fn"
        )
    return nn.functional.cross_entropy(logits, targets.long())  # torch takes no int32


def _is_of_fractions(targets: Any) -> bool:
    return isinstance(targets, Tensor) and targets.is_floating_point()
