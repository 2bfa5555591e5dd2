"""How much of each unit a batch holds: all that a step pays for weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.errors import DataError
from training.feed.structure import (
    fields_of,
    has_items,
    may_be_second,
    samples_of,
)
from training.messages.tables import count
from training.modules.plain_names import some
from training.weighing.units import (
    ELEMENTS,
    MASK,
    SHIFTED_ELEMENTS,
    SHIFTED_MASK,
    in_words,
)

#: Entries that may hold the targets, the usual one first.
NAMES = ("labels", "label", "targets", "target", "y")
_WHOLE = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}
_WHOLE |= {torch.uint16, torch.uint32, torch.uint64}
IGNORED = -100  # the label that PyTorch's cross entropy leaves out
#: Labels up to this many are counted as a list, which costs 2 us and 30 ns a label
#: between two steps, when all code is in no cache: a kernel costs 5 us, numpy 10.
FEW = 96
#: Up to this many one kernel is tried first, which is wasted where some are ignored.
SOME = 2048


def labels_of(batch: Any) -> Any:
    """Return the targets in ``batch``, a tensor or array, or None.

    They are the entry ``labels`` (or one of NAMES), or the last element of a tuple.
    """
    if type(batch) is tuple and batch and type(batch[-1]) is Tensor:  # the usual one
        return batch[-1] if len(batch) >= 2 and batch[-1].ndim else None
    fields: Mapping[str, Any] | None
    if isinstance(batch, Mapping):
        fields = batch
    else:  # the usual tuple is not looked into
        fields = None if type(batch) is tuple else fields_of(batch)
    if fields is not None:
        found = next((fields[name] for name in NAMES if name in fields), None)
    elif isinstance(batch, (tuple, list)) and len(batch) >= 2:
        found = labels_of(batch[-1]) if isinstance(batch[-1], Mapping) else batch[-1]
    else:
        found = None
    return found if isinstance(found, (Tensor, np.ndarray)) and found.ndim else None


def on_host(value: Any) -> Any:
    """Return an array; waits for the device where the loader yields CUDA tensors."""
    if not isinstance(value, Tensor):
        return value
    if value.requires_grad or not value.is_cpu:  # asked, since the way costs 1 us
        value = value.detach().cpu()
    return (value.float() if value.dtype is torch.bfloat16 else value).numpy()


def num_kept(labels: Any, ignored: int) -> int:
    """Return how many class numbers, a tensor or array of any shape, are not ignored.

    Waits for the device where the loader yields CUDA tensors.
    """
    is_usual = type(labels) is Tensor and labels.dtype is torch.int64
    if is_usual and labels.ndim == 1 and labels.is_cpu:
        number = len(labels)
        if number <= FEW:
            row: list[int] = labels.tolist()
            return number - row.count(ignored)
        # One kernel where none is: between two steps numpy takes twice as long.
        if number <= SOME and ignored < 0 and labels.min().item() > ignored:
            return number
    return int(np.count_nonzero(on_host(labels) != ignored))


def has_classes(labels: Any) -> bool:
    """Whether ``labels`` are class numbers."""
    if isinstance(labels, Tensor):
        return labels.dtype in _WHOLE
    return labels is not None and np.issubdtype(labels.dtype, np.integer)


def _options_of(loss_fn: Any) -> Mapping[str, Any] | None:
    """Return the options of torch's cross entropy, None for any other loss."""
    if isinstance(loss_fn, (nn.CrossEntropyLoss, nn.NLLLoss)):
        return {"ignore_index": loss_fn.ignore_index, "weight": loss_fn.weight}
    options: Mapping[str, Any] = {}
    if isinstance(loss_fn, functools.partial) and not loss_fn.args:
        loss_fn, options = loss_fn.func, loss_fn.keywords
    functions = (nn.functional.cross_entropy, nn.functional.nll_loss)
    return options if loss_fn in functions else None


def _is_plain_mean(loss_fn: Any, options: Mapping[str, Any]) -> bool:
    """Whether torch's cross entropy is a mean, and nobody has changed how it is."""
    if isinstance(loss_fn, nn.Module):
        is_own = type(loss_fn) in (nn.CrossEntropyLoss, nn.NLLLoss)
        hooks = loss_fn._forward_hooks or loss_fn._forward_pre_hooks
        is_changed = bool(hooks) or "forward" in vars(loss_fn)
        return is_own and loss_fn.reduction == "mean" and not is_changed
    is_partial = isinstance(loss_fn, functools.partial)
    if is_partial and type(loss_fn) is not functools.partial:
        return False  # its call may be one of its own
    changed = {"reduce", "size_average"} & set(options)
    return not changed and options.get("reduction", "mean") == "mean"


@dataclass(frozen=True, slots=True)
class LabelUse:
    """How a loss takes class labels, as far as that is known.

    Attributes:
        ignored: the label that it leaves out: -100, unless torch's own says another.
        class_dim: the dimension of logits in which it has classes; None: not known.
        is_shifted: whether it takes logit t for label t + 1; None: not known.
    """

    ignored: int = IGNORED
    class_dim: int | None = None
    is_shifted: bool | None = None


class Counts:
    """Counts the units in batches on the host.

    Args:
        loss_fn: tells ``ignore_index`` and ``weight``, if it is torch's cross entropy:
            a module, the function, or a ``functools.partial`` of it.
    """

    def __init__(self, loss_fn: Any = None) -> None:
        self._loss_fn = loss_fn
        self._read_options()

    def _read_options(self) -> None:
        options = _options_of(self._loss_fn)
        self.is_torch_loss = options is not None
        options = options or {}
        is_plain = _is_plain_mean(self._loss_fn, options)
        self._is_defined = self.is_torch_loss and is_plain
        self.ignored = options.get("ignore_index", IGNORED)
        weight = options.get("weight")
        self._class_weights = None if weight is None else on_host(weight)

    def __call__(
        self, unit: str, batch: Any, samples: int | None, issued: Any = None
    ) -> float | None:
        """Return how many of ``unit`` are in ``batch``; None where it has none.

        Args:
            unit: its name.
            batch: on the host.
            samples: what the sampler issued, where that is known.
            issued: their indices, for messages.
        Raises:
            DataError: torch's own cross entropy has no class weight for a label.
        """
        if unit in ("samples", "sum"):
            return samples_of(batch) if samples is None else _kept(samples, batch)
        if ":" in unit:
            return _in_entry(unit, batch)
        labels = labels_of(batch)
        if labels is None:
            return None
        if unit == "elements":
            return int(labels.numel() if isinstance(labels, Tensor) else labels.size)
        if not has_classes(labels) or (unit == "shifted_labels" and labels.ndim < 2):
            return None
        if unit == "labels":
            return num_kept(labels, self.ignored)
        if unit == "shifted_labels":
            return num_kept(on_host(labels)[:, 1:], self.ignored)
        if self._class_weights is None:
            return None
        labels, weights = on_host(labels), self._class_weights
        kept = labels[labels != self.ignored]
        may_be_off = self._is_defined and kept.size
        if may_be_off and not 0 <= kept.min() <= kept.max() < len(weights):
            raise DataError(self._of_no_class(labels, len(weights), issued))
        try:
            return float(weights[kept].sum(dtype=np.float64))
        except IndexError:  # a loss of one's own may take them in its own way
            return None

    def _of_no_class(self, labels: Any, number: int, issued: Any) -> str:
        """Say which labels have no class weight, and in which rows they are."""
        is_off = (labels != self.ignored) & ((labels < 0) | (labels >= number))
        wrong = some([str(label) for label in np.unique(labels[is_off])])
        rows = np.flatnonzero(is_off.reshape(len(labels), -1).any(1)).tolist()
        where = f"rows {some([str(row) for row in rows])} of a batch"
        if issued is not None and len(issued) == len(labels):
            where += f" (samples {some([str(issued[row]) for row in rows])})"
        return (
            f"{where} have the labels {wrong}, which are no classes of the loss: it "
            f"has {count(number, 'class weight')}, for labels from 0 to {number - 1}, "
            f"and leaves out ignore_index {self.ignored} alone; set ignore_index to "
            "the label that shall not count, give a weight for each class, or mend the "
            "rows"
        )

    def defined(self, batch: Any) -> str | None:
        """Return what torch's own cross entropy is a mean over, by its definition.

        That of class numbers, as https://docs.pytorch.org has it: labels that are not
        ignored, or their class weights. None: it is another loss, or another form.
        """
        self._read_options()  # they may have been set since
        if not self._is_defined:
            return None
        labels = labels_of(batch)
        if isinstance(batch, Mapping):  # what it is called with
            targets = batch.get("labels")
        else:
            targets = batch[-1] if isinstance(batch, (tuple, list)) and batch else None
        if labels is None or labels is not targets or not has_classes(labels):
            return None
        return "labels" if self._class_weights is None else "class_weights"

    def label_use(self, is_shifted: bool | None) -> LabelUse:
        """Return how the loss takes labels.

        Torch's own has classes in dimension 1, and shifts nothing by itself.

        Args:
            is_shifted: what else is known.
        """
        self._read_options()
        class_dim = 1 if self.is_torch_loss else None
        return LabelUse(
            self.ignored, class_dim, False if self._is_defined else is_shifted
        )

    def all(
        self, batch: Any, samples: int | None, issued: Any = None
    ) -> dict[str, float]:
        """Return unit -> amount for all that ``batch`` has, preferred ones first."""
        labels = labels_of(batch)
        units = ["shifted_labels", "labels", "class_weights", "samples", "elements"]
        if labels is not None and labels.ndim < 2:  # one label a sample
            units = ["class_weights", "samples", "labels"]
            known = samples_of(batch) if samples is None else samples
            units += ["elements"] if len(labels) != known else []
        units += ["sum", *_masks(batch)]
        units += _widths(batch) if labels is None else []
        counted = {unit: self(unit, batch, samples, issued) for unit in units}
        return {unit: each for unit, each in counted.items() if each is not None}

    def of_torch(self, units: list[str]) -> list[str]:
        """Return the one unit of torch's cross entropy, if it is among ``units``."""
        own = ("class_weights", "labels") if self.is_torch_loss else ()
        return next(([unit] for unit in own if unit in units), units)

    def labelled(self, batch: Any, num_rows: int) -> list[int]:
        """Return the rows that have labels, those with most first; or all rows."""
        labels = labels_of(batch)
        if labels is None or not has_classes(labels) or len(labels) != num_rows:
            return list(range(num_rows))
        by_row = (on_host(labels) != self.ignored).reshape(num_rows, -1).sum(1)
        return [int(n) for n in np.argsort(-by_row, kind="stable") if by_row[n]]


def _kept(issued: int, batch: Any) -> int:
    """Return the samples that are left of those issued: a collate may drop some.

    Only rows with one target each, or without any, tell that: the first dimension of
    others may be another one, such as time.
    """
    labels = labels_of(batch)
    if labels is not None and labels.ndim > 1:
        return issued
    own = samples_of(batch)
    if own is None or own >= issued or not (labels is None or len(labels) == own):
        return issued
    return issued if may_be_second(batch, issued) else own


def _entries_of(batch: Any) -> dict[str, Any]:
    """Return the tensors and arrays in ``batch``, by name; one by itself has none."""
    if isinstance(batch, (Tensor, np.ndarray)):
        return {"": batch}
    entries: Mapping[str, Any] = fields_of(batch) or {}
    if has_items(batch):
        entries = {str(place): item for place, item in enumerate(batch)}
    kinds = (Tensor, np.ndarray)
    return {name: each for name, each in entries.items() if isinstance(each, kinds)}


def _masks(batch: Any) -> list[str]:
    """Return units for the entries of zeros and ones that are called masks."""
    units = []
    for name, value in _entries_of(batch).items():
        if "mask" in name and value.ndim:
            array = on_host(value)
            if bool(((array == 0) | (array == 1)).all()):
                units += [f"{MASK}{name}"]
                units += [f"{SHIFTED_MASK}{name}"] if array.ndim > 1 else []
    return units


def _widths(batch: Any) -> list[str]:
    """Return units for what a loss without labels may be a mean over."""
    units = []
    for name, value in _entries_of(batch).items():
        if value.ndim > 1:
            units += [f"{ELEMENTS}{name}"]
            units += [f"{SHIFTED_ELEMENTS}{name}"] if has_classes(value) else []
    return units


def _in_entry(unit: str, batch: Any) -> float | None:
    """Return the ones or elements of the entry that ``unit`` names."""
    value = _entries_of(batch).get(unit.partition(":")[2])
    counts_ones = unit.startswith((MASK, SHIFTED_MASK))
    if value is None or (value.ndim < 2 and not counts_ones):
        return None
    if unit.startswith((SHIFTED_MASK, SHIFTED_ELEMENTS)):
        value = value[:, 1:]
    if counts_ones:
        return float(np.count_nonzero(on_host(value)))
    return float(math.prod(value.shape))


@dataclass(slots=True)
class Contents:
    """What one batch holds.

    Attributes:
        counts: counts units.
        batch: on the host.
        samples: in it, where that is known: as many as are issued.
        issued: their indices, where the sampler of the run issued them.
        stands_in: whether it is there in place of an empty part, and counts nothing.
        is_second: whether its samples are in dimension 1, once it is looked at.
    """

    counts: Counts
    batch: Any
    samples: int | None = None
    issued: Any = None
    stands_in: bool = False
    is_second: bool = False

    def __post_init__(self) -> None:
        if self.issued is not None:
            self.samples = len(self.issued)

    def __call__(self, unit: str) -> float | None:
        """Return how many of ``unit`` are in it; None where it has none."""
        return self.counts(unit, self.batch, self.samples, self.issued)

    def needed(self, unit: str) -> float:
        """Return how many of ``unit`` are in it.

        Raises:
            DataError: the batch does not tell.
        """
        amount = self(unit)
        if amount is None:
            raise DataError(
                f"a batch ({type(self.batch).__name__}) counts by {in_words(unit)}, "
                "and how many it holds cannot be told; give it the attribute "
                "loss_weight, return weight from step_fn, or pass loss_per a function "
                "batch -> float"
            )
        return amount

    def all(self) -> dict[str, float]:
        """Return unit -> amount for all that it has, preferred ones first."""
        amounts = self.counts.all(self.batch, self.samples, self.issued)
        return {unit: float(amount) for unit, amount in amounts.items()}

    def present(self, units: Iterable[str]) -> list[str]:
        """Return the units in ``units`` of which it has any, in their order."""
        return [unit for unit in units if self(unit) != 0]

    def whole(self) -> Contents:
        """Return the contents of the batch that it is."""
        return self

    def defined(self) -> str | None:
        """Return what torch's own cross entropy of it is a mean over, as ``Counts``."""
        return self.counts.defined(self.batch)
