"""What a model returns compared with its targets, as tensors of numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainbus_evaluation.classes import NoLabelError
from trainbus_evaluation.forward import logits_of, refuse_unseen, targets_of
from trainbus_evaluation.metrics import Means
from trainbus_evaluation.own_metrics import checked_number, is_updated, naming
from training import ConfigError
from training.plugin import Strategy

#: Name -> what it is of the differences, in the mean.
ERRORS: dict[str, Callable[[Tensor], Tensor]] = {"mae": torch.abs, "mse": torch.square}


class Compared:
    """Measures ``mae`` and ``mse`` of chosen metrics, and what is somebody's own.

    Errors are added up where the model is. Functions need all outputs and targets:
    copies are kept on the host until the end, in each process those of all, and once
    more while they are joined. Objects get copies on the host and keep what they keep.

    Args:
        metrics: name -> function or object, or None.
    """

    def __init__(self, metrics: Mapping[str, Any]) -> None:
        self._errors = [n for n, own in metrics.items() if own is None and n in ERRORS]
        own = {name: each for name, each in metrics.items() if each is not None}
        self._names = ", ".join([*self._errors, *own])
        self._updated = {name: each for name, each in own.items() if is_updated(each)}
        self._functions = {n: each for n, each in own.items() if n not in self._updated}
        self._has_one = len(own) == 1
        self._means = Means()
        #: Outputs and targets of each batch; None: it does not count here.
        self._kept: list[tuple[Tensor, Tensor] | None] = []
        self._is_empty = True
        for name, metric in self._updated.items():
            with naming(name):
                metric.reset()

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to measure."""
        return bool(self._names)

    def add(self, batch: Any, moved: Any, outputs: Any, counts: bool) -> None:
        """Count a batch.

        Args:
            batch: with targets, on the host.
            moved: the same on the device.
            outputs: what the model returned.
            counts: False: another process counts it, or nothing in it is labelled.
        Raises:
            ConfigError: outputs and targets are no tensors, or do not fit.
        """
        refuse_unseen(outputs)
        found, targets = logits_of(outputs), targets_of(moved)
        bare = outputs if found is None else found
        is_bare = isinstance(bare, Tensor) and bare.dim() == 0
        if is_bare and isinstance(targets, Tensor) and targets.dim() > 0:
            raise ConfigError(
                f"{self._names}: the outputs are of the shape (), but the targets of "
                f"{tuple(targets.shape)}; if forward ends in .squeeze(), which takes "
                "the batch from one of a single row, too, let it name the dimension, "
                "as .squeeze(-1) does"
            )
        if found is None or not isinstance(targets, Tensor):
            has = "no logits" if found is None else "logits"
            raise ConfigError(
                f"{self._names}: what is compared are tensors, but the model returned "
                f"{type(outputs).__name__} with {has} and the targets are "
                f"{type(targets).__name__}; pass an evaluator of your own"
            )
        if self._errors:
            self._add_errors(found, targets, counts)
        if self._functions or self._updated:
            self._add_own(found, targets_of(batch), counts)
        self._is_empty = self._is_empty and not counts

    def results(self, strategy: Strategy) -> dict[str, float]:
        """Return the numbers by name, of what all processes counted; all call it.

        Raises:
            ConfigError: what a metric returned is no number, or batches do not join.
            NoLabelError: nothing counts.
        """
        self._means.unite(strategy)
        everywhere, self._kept = strategy.gather((self._is_empty, self._kept)), []
        if all(is_empty for is_empty, _ in everywhere):
            raise NoLabelError(
                "nothing to evaluate: no batch counts, since all have the weight 0; "
                "check the evaluation data"
            )
        results = {name: self._means.value(name) for name in self._errors}
        # Batch by batch, and in each by rank: that is the loader's order.
        by_batch = zip(*(kept for _, kept in everywhere), strict=True)
        pairs = [pair for parts in by_batch for pair in parts if pair is not None]
        # One process computes, so that all have the same bits.
        return results | strategy.on_main(lambda: self._own_results(pairs))

    def _add_errors(self, outputs: Tensor, targets: Tensor, counts: bool) -> None:
        both = outputs, targets
        are_fractions = all(each.is_floating_point() for each in both)
        if outputs.shape != targets.shape or not are_fractions:
            are = [f"{tuple(each.shape)} of {str(each.dtype)[6:]}" for each in both]
            raise ConfigError(
                f"{' and '.join(self._errors)} need outputs and targets of one shape, "
                f"both of fractions, but the outputs are {are[0]} and the targets "
                f"{are[1]}; let model and data agree, or pass a function (outputs, "
                "targets) that makes them do so"
            )
        if counts:
            least = torch.promote_types(outputs.dtype, torch.float32)
            off = outputs.to(least) - targets
            errors = {name: ERRORS[name](off) for name in self._errors}
            means = {name: e.mean(dtype=torch.float64) for name, e in errors.items()}
            self._means.add(means, targets.numel())

    def _add_own(self, outputs: Tensor, targets: Tensor, counts: bool) -> None:
        pair = None
        if counts:
            # Copies: loader or model may use the memory again. On CUDA it waits.
            pair = outputs.to("cpu", copy=True), targets.to("cpu", copy=True)
            with torch.autocast("cpu", enabled=False):
                for name, metric in self._updated.items():
                    # Its own: one that works in place would change what others get.
                    given = pair if self._has_one else [each.clone() for each in pair]
                    with naming(name):
                        metric.update(*given)
        if self._functions:
            self._kept.append(pair)

    def _own_results(self, pairs: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        found: dict[str, Any] = {}
        with torch.autocast("cpu", enabled=False):
            for name, metric in self._updated.items():
                with naming(name):
                    found[name] = metric.compute()
            for name, function in self._functions.items():
                with naming(name):  # joined anew for each, since one may work in place
                    found[name] = function(*map(self._joined, zip(*pairs, strict=True)))
        return {name: checked_number(name, value) for name, value in found.items()}

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        have_rows = all(part.dim() > 0 for part in parts)
        if not have_rows or len({part.shape[1:] for part in parts}) > 1:
            shapes = list(dict.fromkeys(str(tuple(part.shape)) for part in parts))
            raise ConfigError(
                f"{', '.join(self._functions)}: batches of {' and '.join(shapes[:3])} "
                "cannot be joined for a function; pad them to one shape, or pass an "
                "object with update(outputs, targets), compute() and reset(), which is "
                "given batch after batch"
            )
        return torch.cat(list(parts))
