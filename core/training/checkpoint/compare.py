"""Compare two states to the bit, and name the first thing that differs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

#: Differ between two equal runs.
CLOCKS = frozenset({"seconds"})


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
            return f"{where} has {len(left)} items and {len(right)}"
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


def _tensors(left: Tensor, right: Tensor, where: str) -> str | None:
    if left.dtype != right.dtype or left.shape != right.shape:
        return (
            f"{where} is {left.dtype} {tuple(left.shape)} and {right.dtype} "
            f"{tuple(right.shape)}"
        )
    ours, theirs = _bytes(left), _bytes(right)
    if torch.equal(ours, theirs):
        return None
    # Counted by value: the sentence is for people, the verdict was by bits.
    wrong = int((left.detach().cpu() != right.detach().cpu()).sum())
    return f"{where} differs in {wrong} of {left.numel()} values"


def _bytes(tensor: Tensor) -> Tensor:
    """Return the bits, so that NaN equals NaN and 0.0 is not -0.0."""
    plain = tensor.detach().cpu().contiguous()
    return plain.reshape(-1).view(torch.uint8) if plain.numel() else plain


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    return bool(left == right)
