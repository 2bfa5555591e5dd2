"""Compare two states to the bit, and name the first thing that differs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from training.messages.tables import count

#: Differ between two equal runs.
CLOCKS = frozenset({"seconds"})
#: Layouts of sparse tensors that compress the places in a row, or in a column.
_BY_ROW = (torch.sparse_csr, torch.sparse_bsr)
_BY_COLUMN = (torch.sparse_csc, torch.sparse_bsc)


def first_difference(
    left: Any, right: Any, where: str = "", ignored: frozenset[str] = CLOCKS
) -> str | None:
    """Return a sentence about the first difference, or None if there is none.

    Args:
        left: nested mappings, lists, tensors and plain values.
        right: the same.
        where: dotted path of both, for the sentence.
        ignored: names of mapping entries to leave out.
    """
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        # Both sides, in the order of the left one: the first that differs is told.
        for name in {**left, **right}:
            path = f"{where}.{name}" if where else str(name)
            if name in ignored:
                continue
            if name not in left or name not in right:
                return f"{path} is on one side only"
            if found := first_difference(left[name], right[name], path, ignored):
                return found
        return None
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        if len(left) != len(right):
            return f"{where} is of length {len(left)} and {len(right)}"
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            if found := first_difference(one, other, f"{where}[{index}]", ignored):
                return found
        return None
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return _tensors(left, right, where)
    # The type first: 1 == 1.0 == True.
    if type(left) is not type(right) or not _equal(left, right):
        return f"{where} is {left!r:.60} and {right!r:.60}"
    return None


def entries_of_each(left: Mapping[str, Any], right: Mapping[str, Any]) -> set[str]:
    """Return the names of entries that two equal runs have each their own of.

    An id that a run has drawn for itself is one, or a time that it took: of no other
    run can it be expected.
    """
    return {
        name
        for name in {**left, **right}
        if first_difference(left.get(name), right.get(name), ignored=frozenset())
    }


def _tensors(left: Tensor, right: Tensor, where: str) -> str | None:
    if left.dtype != right.dtype or left.shape != right.shape:
        return (
            f"{where} is {left.dtype} {tuple(left.shape)} and {right.dtype} "
            f"{tuple(right.shape)}"
        )
    if left.layout != right.layout:
        return f"{where} is {left.layout} and {right.layout}"
    if left.layout is not torch.strided:
        # As it is stored: who adds up what lies at one place gets other bits.
        stored = _stored(left), _stored(right)
        return first_difference(*stored, where, frozenset())
    ours, theirs = _bytes(left), _bytes(right)
    if torch.equal(ours, theirs):
        return None
    # Counted by value: the sentence is for people, the verdict was by bits.
    wrong = int((left.detach().cpu() != right.detach().cpu()).sum())
    return f"{where} differs in {wrong} of {count(left.numel(), 'value')}"


def _stored(tensor: Tensor) -> dict[str, Tensor]:
    """Return the plain tensors that a sparse one is stored as, by name."""
    names = {
        torch.sparse_coo: ("_indices", "_values"),
        **dict.fromkeys(_BY_ROW, ("crow_indices", "col_indices", "values")),
        **dict.fromkeys(_BY_COLUMN, ("ccol_indices", "row_indices", "values")),
    }[tensor.layout]
    plain = tensor.detach()
    return {name.removeprefix("_"): getattr(plain, name)() for name in names}


def _bytes(tensor: Tensor) -> Tensor:
    """Return the bits, so that NaN equals NaN and 0.0 is not -0.0."""
    plain = tensor.detach().cpu().contiguous()
    return plain.reshape(-1).view(torch.uint8) if plain.numel() else plain


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    same = left == right
    # An array, which a checkpoint cannot hold and a history may, is equal in parts.
    return same if isinstance(same, bool) else repr(left) == repr(right)
