"""Parts of a batch, cut in one of four ways.

Rows first: only this shows whether rows depend on one another. Masking labels cannot
tell a sum from a sum over the number of rows, and may crash the process where a loss
ignores no label, so it needs a licence. Batches of types that cannot be cut are
collated again by the loader's own function (``collated``). Without such a loader the
outputs for the whole batch are cut, for a loss function.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import gcd
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.feed.structure import (
    CannotCutError,
    TooFewError,
    fields_of,
    has_items,
    samples_of,
    take,
    transposed,
)
from training.weighing.counts import (
    NAMES,
    Contents,
    Counts,
    has_classes,
    labels_of,
    on_host,
)
from training.weighing.units import OF_LABELS

#: The turn of a cut that no other one accompanies.
ALONE = 3
#: Parts that it makes, where there are as many rows.
MOST_PARTS = 4
#: transformers' losses that leave out labels of -100.
LICENSED = (
    *("ForCausalLM", "ForMaskedLM", "ForConditionalGeneration"),
    *("ForTokenClassification", "ForSequenceClassification"),
    *("ForImageClassification", "ForQuestionAnswering"),
)


@dataclass(frozen=True, slots=True)
class Cut:
    """Two parts of a batch, or up to four.

    Attributes:
        parts: the batches.
        sizes: samples in each, or labels.
        shares: unit -> what each part has of the whole.
    """

    parts: Sequence[Any]
    sizes: Sequence[int]
    shares: dict[str, tuple[float, ...]]


class Way:
    """One way to cut a batch into parts.

    Args:
        batch: on the host.
    Attributes:
        title: of the way, for a sentence.
        whole: what it cuts.
        num_cuts: how many different cuts there are.
        amounts: unit -> what the whole batch holds of it.
    """

    title: str
    num_cuts: int
    amounts: Mapping[str, float]

    def __init__(self, batch: Contents) -> None:
        self.whole, self._counts = batch.batch, batch.counts

    def cut(self, turn: int) -> Cut:
        """Return two parts, others for each ``turn`` below ``num_cuts``.

        ALONE: up to four, which together tell as much as three cuts into two.
        """
        parts, sizes = self._parts(turn)
        shares = {}
        batches = [p.batch if isinstance(p, PartOfOutputs) else p for p in parts]
        for unit, whole in self.amounts.items():
            if whole:
                own = list(map(partial(self._counts, unit), batches, sizes))
                known = [each / whole for each in own if each is not None]
                if len(known) == len(own):
                    shares[unit] = tuple(known)
        return Cut(parts, sizes, {**shares, "sum": (1.0,) * len(parts)})

    def _parts(self, turn: int) -> tuple[Sequence[Any], list[int]]:
        """Return the parts and their sizes."""
        raise NotImplementedError


class Rows(Way):
    """Cut rows.

    Args:
        batch: on the host.
    Raises:
        CannotCutError: the batch cannot be cut.
    """

    title = "cutting the batch into rows"

    def __init__(self, batch: Contents) -> None:
        super().__init__(batch)
        self._is_second = batch.is_second
        self._rows = transposed(self.whole) if self._is_second else self.whole
        structural = samples_of(self._rows)
        num_rows = batch.samples if structural is None else structural
        if num_rows is None:
            kind = type(self.whole).__name__
            raise CannotCutError(f"how many samples a {kind} holds cannot be told")
        self.num_rows = num_rows
        take(self._rows, range(num_rows), num_rows)  # it can be cut
        self._order = batch.counts.labelled(self._rows, num_rows)
        few = "fewer than two of its rows have labels"
        self.num_cuts = num_cuts_of(len(self._order), few)
        # A batch of crops may hold more rows than the sampler issued samples.
        self.amounts = batch.counts.all(self.whole, num_rows)

    def _parts(self, turn: int) -> tuple[Sequence[Any], list[int]]:
        each_rows = rows_of_parts(self._order, turn, self.num_rows)
        parts = [take(self._rows, rows, self.num_rows) for rows in each_rows]
        parts = [transposed(each) for each in parts] if self._is_second else parts
        return parts, list(map(len, each_rows))


def first_half(batch: Contents) -> Contents | None:
    """Return the first half of the rows, or None where that is not to be had."""
    rows = transposed(batch.batch) if batch.is_second else batch.batch
    num_rows = samples_of(rows)
    if num_rows is None or num_rows < 4:  # two of them are cut again
        return None
    try:
        half = take(rows, range(num_rows // 2), num_rows)
    except CannotCutError:
        return None
    half = transposed(half) if batch.is_second else half
    return Contents(batch.counts, half, is_second=batch.is_second)


class Masks(Way):
    """Mask labels: the parts are whole batches with labels of their own.

    Args:
        batch: on the host.
        has_licence: whether the loss is known to leave labels out.
    Raises:
        CannotCutError: there is no licence, or there are no two labels.
    """

    title = "masking labels"

    def __init__(self, batch: Contents, has_licence: bool) -> None:
        super().__init__(batch)
        counts, labels = batch.counts, labels_of(self.whole)
        if labels is None or not has_classes(labels):
            raise CannotCutError("it has no class labels")
        if not has_licence:
            raise CannotCutError(
                f"no label of {counts.ignored} is known to be left out"
            )
        self._labels = labels
        rows = counts.labelled(self.whole, len(labels))
        valid = on_host(labels != counts.ignored).reshape(-1)
        if len(rows) >= 2:
            length = valid.size // len(labels)
            self._order = [[r * length, (r + 1) * length] for r in rows]
        else:
            places = np.flatnonzero(valid)[1:]  # the first may be no target
            blocks = np.array_split(places, min(8, len(places)) or 1)
            self._order = [[int(b[0]), int(b[-1]) + 1] for b in blocks if len(b)]
        few = "it has fewer than two labels that count"
        self.num_cuts = num_cuts_of(len(self._order), few)
        amounts = counts.all(self.whole, None)
        self.amounts = {u: amounts[u] for u in OF_LABELS if u in amounts}

    def _parts(self, turn: int) -> tuple[Sequence[Any], list[int]]:
        left = np.ones(tuple(self._labels.shape), dtype=bool)
        parts = []
        for chosen in chosen_for(self._order, turn):
            own = np.zeros(left.size, dtype=bool)
            for first, last in chosen:
                own[first:last] = True
            own = own.reshape(left.shape)
            left &= ~own
            parts.append(self._with(own))
        parts.append(self._with(left))
        sizes = [int(self._counts("labels", part, None) or 0) for part in parts]
        return parts, sizes

    def thinned(self) -> Any:
        """Return the batch with other amounts of labels: row k keeps 3 + k % 4."""
        kept = on_host(self._labels != self._counts.ignored)
        kept = kept.reshape(len(self._labels), -1).copy()
        for number, row in enumerate(kept):
            places = np.flatnonzero(row)
            row[places[2 + number % 4 + 1 :]] = False
        return self._with(kept.reshape(tuple(self._labels.shape)))

    def shifted(self) -> Any:
        """Return the batch with another label in column 0 of rows that have any."""
        labels = np.array(on_host(self._labels))
        for row in labels:
            valid = row[row != self._counts.ignored]
            if len(valid):
                row[0] = valid[-1] if valid[-1] != row[0] else valid[0]
        if isinstance(self._labels, Tensor):
            return with_labels(self.whole, torch.from_numpy(labels))
        return with_labels(self.whole, labels)

    def _with(self, kept: np.ndarray[Any, Any]) -> Any:
        """Return the batch with the labels of ``kept`` and no other."""
        if isinstance(self._labels, Tensor):
            labels: Any = self._labels.clone()
            labels[torch.from_numpy(~kept).to(labels.device)] = self._counts.ignored
        else:
            labels = np.where(kept, self._labels, self._counts.ignored)
        return with_labels(self.whole, labels)


class Outputs(Way):
    """Cut what the model returns, and the targets beside it, for a ``loss_fn``.

    What rows do to one another in the model is not seen. The model runs on the whole
    batch for each part.

    Args:
        batch: on the host.
    Raises:
        CannotCutError: the targets are not one tensor.
    """

    title = "cutting outputs and targets"

    def __init__(self, batch: Contents) -> None:
        super().__init__(batch)
        self._labels = labels_of(self.whole)
        if self._labels is None:
            raise CannotCutError("its targets are not one tensor")
        self._num_rows = len(self._labels)
        self._order = batch.counts.labelled(self.whole, self._num_rows)
        few = "fewer than two of its targets count"
        self.num_cuts = num_cuts_of(len(self._order), few)
        self.amounts = batch.counts.all(self.whole, batch.samples)
        if self.amounts.get("samples") != self._num_rows:  # a row is something else
            self.amounts.pop("samples", None)

    def _parts(self, turn: int) -> tuple[Sequence[Any], list[int]]:
        each_rows = rows_of_parts(self._order, turn, self._num_rows)
        parts = [
            PartOfOutputs(
                with_labels(self.whole, self._labels[rows]), rows, self._num_rows
            )
            for rows in each_rows
        ]
        return parts, list(map(len, each_rows))


@dataclass(frozen=True, slots=True)
class PartOfOutputs:
    """All inputs, and the targets of some rows.

    Attributes:
        batch: those.
        rows: the rows.
        num_rows: how many there were.
    """

    batch: Any
    rows: list[int]
    num_rows: int

    def cutting(self, model: nn.Module) -> Callable[..., Any]:
        """Return ``model``, whose outputs are those of the rows."""

        def call(*inputs: Any, **entries: Any) -> Any:
            return take(model(*inputs, **entries), self.rows, self.num_rows)

        return call


def has_licence(batch: Any, model: nn.Module, counts: Counts) -> bool:
    """Whether the loss is known to leave out labels of ``counts.ignored``."""
    labels = labels_of(batch)
    if labels is None or not has_classes(labels):
        return False
    info: Any = torch.iinfo if isinstance(labels, Tensor) else np.iinfo
    if not info(labels.dtype).min <= counts.ignored <= info(labels.dtype).max:
        return False  # a byte takes -100 for 156, which is a class
    if counts.is_torch_loss or bool((labels == counts.ignored).any()):
        return True
    is_decoder = type(model).__name__.endswith("LMHeadModel")
    return is_decoder or getattr(model, "loss_type", None) in LICENSED


def with_labels(batch: Any, labels: Any) -> Any:
    """Return ``batch`` with other targets; it shares everything else."""
    if has_items(batch):
        last = batch[-1]
        new = with_labels(last, labels) if isinstance(last, Mapping) else labels
        return type(batch)([*batch[:-1], new])
    fields = fields_of(batch) or {}
    name = next(name for name in NAMES if name in fields)  # as ``labels_of`` takes it
    if isinstance(batch, tuple):
        return batch._replace(**{name: labels})  # type: ignore[attr-defined]
    other: Any = copy.copy(batch)
    if isinstance(batch, Mapping):
        other[name] = labels
    else:
        object.__setattr__(other, name, labels)
    return other


def num_cuts_of(num_rows: int, few: str) -> int:
    """Return how many different cuts there are, at most three.

    Raises:
        TooFewError: there is none; says ``few``.
    """
    if num_rows < 2:
        raise TooFewError(few)
    return 1 if num_rows == 2 else 3


def chosen_for(order: Sequence[Any], turn: int) -> list[list[Any]]:
    """Return what each part but the last has of ``order``; that one has all else.

    For a cut into two three eighths of it, from place ``turn`` on, round the end. Every
    third turn leaves out each second one: of four, neighbours make two cuts only.

    The first part of a cut ALONE has about as many, a number coprime to that of all.
    So of a unit that only ``m`` of ``order`` have, it never has the same share as of
    ``order``: ``k / m = size / total`` has no solution where ``m`` is less than
    ``total``. The others have a third of the rest each.
    """
    total = len(order)
    if turn == ALONE:
        sizes = [each for each in range(1, total) if gcd(each, total) == 1]
        size = min(sizes, key=lambda each: abs(8 * each - 3 * total))
        more = min(MOST_PARTS - 1, total - size)
        ends = [size + (total - size) * number // more for number in range(more)]
        return [list(order[a:b]) for a, b in pairwise([0, *ends])]
    size, stride = max(1, round(total * 3 / 8)), 2 if turn == 2 and total > 3 else 1
    return [[order[(turn + stride * number) % total] for number in range(size)]]


def rows_of_parts(order: Sequence[int], turn: int, num_rows: int) -> list[list[int]]:
    """Return the rows of each part: some of ``order``, and in the last all others."""
    parts = list(map(sorted, chosen_for(order, turn)))
    chosen = {row for part in parts for row in part}
    return [*parts, [row for row in range(num_rows) if row not in chosen]]
