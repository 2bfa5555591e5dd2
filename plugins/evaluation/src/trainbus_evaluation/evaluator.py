"""Evaluate any model on labelled batches: loss, classes, errors, and one's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from trainbus_evaluation.classes import Classes
from trainbus_evaluation.compared import Compared
from trainbus_evaluation.forward import ComputeLoss, ModelRunner
from trainbus_evaluation.metrics import LossMeans
from trainbus_evaluation.own_metrics import (
    METRICS,
    Metric,
    checked_metrics,
    refuse_divided,
)
from trainbus_evaluation.warned import WarnOnce
from training import ConfigError, DataError
from training.plugin import (
    LossFn,
    LossPer,
    StepFn,
    Strategy,
    batch_to_device,
    count,
    portions,
    strategy_of,
)

#: What is told of classes.
OF_CLASSES = ("accuracy", "f1")


class Evaluator:
    """Measure a model on a loader of batches with ``labels``, or of (inputs, targets).

    ``loss`` is the mean over items, not over batches: each batch counts by its
    ``loss_weight``, or by what the loss is found to be a mean over. ``accuracy`` and
    ``f1`` (macro, as in scikit-learn) compare the highest logit with the label, for
    logits (B, C) and labels (B,), or item by item for (B, T, C) or (B, C, T) and
    (B, T), or (B, C, H, W) and (B, H, W), without the labels that the loss ignores:
    ``ignore_index`` of torch's cross entropy, else -100. Where a logit is NaN, a class
    is predicted that no label has. The shape of the labels tells which dimension counts
    the classes, and where two fit, ``class_dim`` must. Labels are shifted as in the
    loss (``shift_labels``). A model that returns no logits but can ``generate``, such
    as BLIP for VQA, answers with greedy decoding; its whole answer (token ids up to the
    end token) is the class.

    ``mae`` and ``mse`` are the means of the absolute and the squared difference over
    all numbers of the targets, for outputs (or ``logits``) and targets of fractions
    that have one shape. A function ``(outputs, targets) -> number`` of your own is
    called once, with those of the whole loader, in its order and on the CPU, and
    delivered by its ``__name__``: so all of them are held in memory at once, by each
    process of several, and twice for as long as batches are joined. An object with
    ``update(outputs, targets)``, ``compute()`` and ``reset()``, as torchmetrics has
    them, is given batch after batch on the CPU, after a ``reset``, and holds what it
    holds; its ``name``, or that of its class, is the metric's, and it is for one
    process. A batch of weight 0 is left out of all these; what else is padding is for
    the function to leave out. Where a ``step_fn`` calls the model more than once, its
    last outputs are taken.

    Args:
        model: any module; measured in eval mode, with modules that the loss uses, and
            every one's mode is as before afterwards.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"``; None: where the model is.
        metrics: which to return: ``loss``, ``accuracy``, ``f1``, ``mae``, ``mse``, and
            functions and objects as above.
        loss_fn: ``(outputs, targets) -> 0-d mean loss``. Without it a mapping's loss is
            the model's own, and that of (inputs, targets) is the cross entropy.
        step_fn: ``(model, batch) -> loss``, as the Trainer's. Of what it returns beside
            the loss ``evaluate`` has the means, as ``val_<name>``.
        compute_loss: ``batch -> (loss, weight)``, such as a trainer's method.
        class_dim: the dimension of the logits that counts the classes, such as 1 or
            -1; None: the one that the labels leave, and where two fit, that of torch's
            cross entropy if this is the loss.
        loss_per: what the loss of a batch is a mean over, as the Trainer's, where batch
            and ``step_fn`` do not say it; None: it is measured on the first batch, or
            defined (torch's own cross entropy).
        shift_labels: whether logit t is of label t + 1, as where the next token is
            told, for logits (B, T, C) or (B, C, T) and labels (B, T); None: as the loss
            of the first batch shows, or with ``loss`` among the metrics its unit; where
            neither does, True for logits of a decoder that generates, else False.
    Raises:
        ConfigError: a metric is unknown or nameless, or the device is not there.
    """

    def __init__(
        self,
        model: nn.Module,
        device: str | torch.device | None = None,
        metrics: Sequence[Metric] = ("loss",),
        loss_fn: LossFn | None = None,
        step_fn: StepFn | None = None,
        *,
        compute_loss: ComputeLoss | None = None,
        class_dim: int | None = None,
        loss_per: LossPer | None = None,
        shift_labels: bool | None = None,
    ) -> None:
        if class_dim == 0:
            raise ConfigError("class_dim is 0, which is the batch; use 1 or -1")
        self.class_dim, self.shift_labels = class_dim, shift_labels
        self._chosen = checked_metrics(metrics, METRICS)
        self.metrics = tuple(self._chosen)
        self._runner = ModelRunner(
            model, device, loss_fn, step_fn, compute_loss, loss_per
        )
        self.model = model
        self._warn_once = WarnOnce()

    @property
    def device(self) -> torch.device | None:
        """The device that was asked for; None: where the model is."""
        return self._runner.device

    def metric_names(self, dataloader: Iterable[Any]) -> tuple[str, ...] | None:
        """Return the keys of what ``evaluate`` returns.

        None before the first batch, where a ``step_fn`` may return more than a loss.
        """
        parts = self._runner.part_names() if "loss" in self.metrics else ()
        return None if parts is None else (*self.metrics, *parts)

    def require_united(self, strategy: Strategy) -> None:
        """Raise ``ConfigError`` for metrics of parts that nobody can unite."""
        refuse_divided(self._chosen, strategy)

    def evaluate(self, dataloader: Iterable[Any]) -> dict[str, float]:
        """Return the asked-for metrics of the model on ``dataloader``.

        Raises:
            DataError: there is no batch, or no label that counts.
            ConfigError: batches or outputs do not fit the metrics, or one of your own
                returns no number.
        """
        device = self._runner.place()
        strategy = strategy_of(dataloader)
        self.require_united(strategy)
        loss, compared = LossMeans(), Compared(self._chosen)
        classes = Classes(self.model, self.class_dim, self.shift_labels)
        use = None
        shipped = {name for name, own in self._chosen.items() if own is None}
        needs_loss = "loss" in shipped
        needs_classes = not shipped.isdisjoint(OF_CLASSES)
        needs_outputs = needs_classes or compared.is_needed
        taps = self._runner.with_outputs() if needs_outputs else nullcontext()
        with self._runner.evaluating(), taps:
            for batch, moved, samples, counts in placed(dataloader, device):
                mean, weight, outputs = self._runner.loss_and_outputs(
                    batch, moved, device, samples, needs_loss, needs_classes
                )
                weight = weight if counts else 0.0
                if needs_loss:
                    loss.add(_required(mean, outputs), weight, self._runner.parts)
                if needs_classes:
                    use = use or self._runner.label_use(batch)
                    classes.add(batch, moved, outputs, mean, use, counts)
                if compared.is_needed:
                    compared.add(batch, moved, outputs, weight > 0)
        loss.unite(strategy)
        if use is not None:
            use = self._runner.label_use(batch)  # further batches may have told more
            classes.unite(strategy, use)
        results = {"loss": loss.value()}
        if use is not None:
            results |= classes.results(shipped, use)
        if compared.is_needed:
            results |= compared.results(strategy)
        if classes.num_nan:
            self._warn_once(
                "the model returned NaN among the logits of %s, counted as wrong, "
                "as a class that no label has; look for what makes it in the "
                "evaluation data, the model or its precision",
                count(classes.num_nan, "label"),
            )
        parts = loss.parts()
        for name in parts.keys() & self._chosen:
            raise ConfigError(
                f"{name!r} is a metric of your own, and the mean of what step_fn "
                f"returns as {name.removeprefix('val_')!r}; rename one of them"
            )
        return {name: results[name] for name in self.metrics} | parts


def placed(
    loader: Iterable[Any], device: torch.device
) -> Iterator[tuple[Any, Any, int | None, bool]]:
    """Yield each batch, the same on ``device``, its samples, and whether it counts.

    Raises:
        DataError: there is none.
    """
    num_batches = 0
    for batch, samples, counts in portions(loader):
        num_batches += 1
        yield batch, batch_to_device(batch, device), samples, counts
    check_not_empty(num_batches)


def check_not_empty(num_batches: int, loader: str = "the loader") -> None:
    """Raise ``DataError`` if a loader gave no batch; it may have given all before."""
    if num_batches == 0:
        raise DataError(
            f"nothing to evaluate: {loader} gave no batch; pass one that gives some "
            "each time that it is iterated, as a DataLoader or a list does"
        )


def _required(loss: Tensor | None, outputs: Any) -> Tensor:
    if loss is None:
        raise ConfigError(
            f"the model returned {type(outputs).__name__} without a scalar loss; pass "
            "loss_fn=... or step_fn=... to the evaluator"
        )
    return loss
