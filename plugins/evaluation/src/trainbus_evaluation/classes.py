"""Predicted and true classes of labelled batches."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainbus_evaluation.forward import logits_of, refuse_unseen, targets_of
from trainbus_evaluation.generated import AnswerClasses
from trainbus_evaluation.metrics import NO_CLASS, accuracy, macro_f1
from trainbus_evaluation.shifting import IGNORED, Shift, following
from training import ConfigError, DataError
from training.plugin import LabelUse, Strategy

#: Where logits may have their classes: behind the batch, as torch's losses take them,
#: or last, as models of text return them.
PLACES = (1, -1)


class NoLabelError(DataError):
    """No label of what was evaluated counts."""


class Classes:
    """Predicted and true class of everything labelled, on the device until the end.

    Which dimension of the logits counts classes is told by the shape of the labels,
    which is theirs without it. Where two fit, as for (B, C, T) with C = T, the other
    batches decide, or else what torch's own loss takes, or of which the loss of the
    first batch is a cross entropy; nothing is guessed.

    Args:
        model: what returned the logits.
        class_dim: the dimension that the user names; None: as above.
        shift_labels: what the user says of a shift; None: as ``Shift`` finds.
    Attributes:
        num_nan: labels that counted whose logits hold a NaN; known with the results.
    """

    def __init__(
        self,
        model: nn.Module,
        class_dim: int | None = None,
        shift_labels: bool | None = None,
    ) -> None:
        self.num_nan = 0
        self._shift = Shift(model, shift_labels)
        self._is_shifted = False  # until all is counted
        self._answers = AnswerClasses(model)
        places = PLACES if class_dim is None else (class_dim,)
        #: Place of the classes -> predictions of each batch, while all batches fit it.
        self._predicted: dict[int, list[Tensor]] = {place: [] for place in places}
        self._targets: list[Tensor] = []
        self._following: list[Tensor] = []  # the label behind each of them
        self._open: tuple[int, ...] | None = None  # a shape that fits two places
        self._kind: tuple[Any, ...] = ()  # shapes and dtype of the batch before
        self._told_place: int | None = None  # by the loss, once all is counted

    def add(
        self,
        batch: Any,
        moved: Any,
        outputs: Any,
        loss: Tensor | None,
        use: LabelUse,
        counts: bool = True,
    ) -> None:
        """Count a batch whose ``outputs`` are known.

        Args:
            batch: with labels, on the host.
            moved: the same on the device.
            outputs: what the model returned.
            loss: 0-d, of the batch, if there is one.
            use: how the loss takes labels.
            counts: False: it is only looked at; another process counts it.
        Raises:
            ConfigError: logits and labels do not fit.
        """
        logits = logits_of(outputs)
        if logits is None and isinstance(batch, Mapping) and self._answers.is_usable:
            predicted, labels = self._answers.of(moved, targets_of(batch))
            for each in self._predicted.values():
                each.append(predicted)
        else:
            refuse_unseen(outputs)
            labels = self._add_highest(logits, targets_of(moved))
            if use.ignored != IGNORED:  # two kernels, where somebody chose another
                labels = labels.masked_fill(labels == use.ignored, IGNORED)
        self._look_at_shift(loss, logits, labels, use)
        if counts:
            behind = following(labels) if labels.dim() == 2 else labels
            self._targets.append(labels.reshape(-1))
            self._following.append(behind.reshape(-1))
        else:
            for each in self._predicted.values():
                each.pop()

    def unite(self, strategy: Strategy, use: LabelUse) -> None:
        """Count what the other processes counted, too; all of them call it.

        Args:
            strategy: by which processes it was counted.
            use: how the loss takes labels.
        """
        seen = strategy.gather((*self._shift.told(), use.is_shifted))
        told, places, units = zip(*seen, strict=True)
        self._told_place = next((each for each in places if each is not None), None)
        self._is_shifted = self._shift.decided([*told, *units])
        if self._is_shifted:
            self._targets = self._following
        if strategy.size == 1:
            return
        predicted = {place: _on_host(each) for place, each in self._predicted.items()}
        own = predicted, _on_host(self._targets), self._open, self._answers.names()
        found = strategy.gather(own)
        renumbered = self._answers.renumbered([names for *_, names in found])
        self._predicted = {
            place: [
                renumber(each[place])
                for (each, *_), renumber in zip(found, renumbered, strict=True)
            ]
            for place in predicted
            if all(place in each for each, *_ in found)
        }
        self._targets = [
            renumber(each[1]) for each, renumber in zip(found, renumbered, strict=True)
        ]
        self._open = next((each[2] for each in found if each[2] is not None), None)

    def results(self, metrics: Collection[str], use: LabelUse) -> dict[str, float]:
        """Return accuracy and F1, those that ``metrics`` names.

        Args:
            metrics: names.
            use: of the loss, whose place for classes decides where no batch does.
        Raises:
            ConfigError: nothing decides.
            NoLabelError: no label counts.
        """
        predicted = torch.cat(self._predicted[self._place(use)])
        target = torch.cat(self._targets)
        counts = (target != IGNORED).nonzero()[:, 0]  # a wait for the device, here
        predicted, target = predicted[counts], target[counts]
        if len(target) == 0:
            raise NoLabelError(
                f"nothing to evaluate: every label is {use.ignored}, which the loss "
                "ignores; check the evaluation data"
            )
        self.num_nan = int((predicted == NO_CLASS).sum())
        functions = {"accuracy": accuracy, "f1": macro_f1}
        return {
            name: function(predicted, target)
            for name, function in functions.items()
            if name in metrics
        }

    def _place(self, use: LabelUse) -> int:
        if len(self._predicted) > 1 and self._open is not None:
            place = self._told_place if use.class_dim is None else use.class_dim
            if place is None and self._is_shifted and self._shift.is_of_a_decoder():
                return -1  # tokens, one by one
            if place is None:
                raise ConfigError(
                    f"the classes of logits {self._open} may be counted by dimension 1 "
                    "or by the last one; say which with class_dim=1 or class_dim=-1"
                )
            return place
        return next(iter(self._predicted))

    def _add_highest(self, logits: Tensor | None, labels: Any) -> Tensor:
        """Keep the classes of the highest logits; return their labels, as int64."""
        if logits is None or not isinstance(labels, Tensor):
            raise _misfit(logits, labels, list(self._predicted))
        kind = logits.shape, labels.shape, labels.dtype
        if kind != self._kind:  # mostly all batches are alike
            self._find_places(logits, labels)
            self._kind = kind
        highest: dict[int, Tensor] = {}  # of (B, C) both places are one
        for place, kept in self._predicted.items():
            dim = place % logits.dim()
            if dim not in highest:
                best = logits.argmax(dim, keepdim=True)  # a NaN is, to torch
                is_nan = logits.gather(dim, best).isnan()
                highest[dim] = best.masked_fill(is_nan, NO_CLASS).reshape(-1)
            kept.append(highest[dim])
        return labels.long()  # of bytes -100 would be the class 156

    def _find_places(self, logits: Tensor, labels: Tensor) -> None:
        """Leave the places that fit labels of this shape, too."""
        places = [
            p for p in self._predicted if _without(logits.shape, p) == labels.shape
        ]
        if not places or labels.is_floating_point():
            raise _misfit(logits, labels, list(self._predicted))
        if logits.shape[places[0]] == 1:
            raise ConfigError(
                f"accuracy and f1 need a logit for each class, but the logits "
                f"{tuple(logits.shape)} have one, which would always be the highest; "
                "return two, or pass an evaluator of your own"
            )
        if len(places) > 1 and logits.dim() > 2:
            self._open = tuple(logits.shape)
        self._predicted = {place: self._predicted[place] for place in places}

    def _look_at_shift(
        self, loss: Tensor | None, logits: Tensor | None, labels: Tensor, use: LabelUse
    ) -> None:
        if labels.dim() == 2:
            assert logits is not None  # they fit
            fitting = {place: logits.movedim(place, -1) for place in self._predicted}
            self._shift.look(loss, fitting, labels, use)
        elif self._shift.said:
            raise ConfigError(
                f"shift_labels is True, but the labels are {tuple(labels.shape)}, not "
                "(B, T); leave it out"
            )


def _on_host(kept: list[Tensor]) -> Tensor:
    return torch.cat(kept).cpu() if kept else torch.zeros(0, dtype=torch.int64)


def _without(shape: Sequence[int], place: int) -> tuple[int, ...] | None:
    """Return ``shape`` without one dimension; None if it has no such one."""
    if not -len(shape) <= place < len(shape):
        return None
    return tuple(n for i, n in enumerate(shape) if i != place % len(shape))


def _misfit(logits: Tensor | None, labels: Any, places: list[int]) -> ConfigError:
    have = None if logits is None else tuple(logits.shape)
    kind = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels)
    where = "" if len(places) > 1 else f" with the classes in dimension {places[0]}"
    return ConfigError(
        "accuracy and f1 need logits (B, C) and class numbers (B,), or (B, C, T) or "
        f"(B, T, C) and (B, T){where}, but the logits are {have} and the labels "
        f"{kind}; evaluate with metrics=['loss'], or numbers with 'mae' and 'mse'"
    )
