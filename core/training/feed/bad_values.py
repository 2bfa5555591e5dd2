"""Say of a loss that is not finite whether its batch was not: looked at only then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.feed.structure import fields_of, has_items
from training.messages.tables import count
from training.modules.plain_names import some

#: Entries that are told by name.
MOST_ENTRIES = 5


def refusal(what: str, batch: Any = None) -> str:
    """Return the sentence that ends a run over a value that is not finite.

    Args:
        what: was not finite.
        batch: what it was computed from, where that is known and still here. All of it
            is read, so on CUDA the host waits.
    """
    try:
        found = list(_found(batch, "batch"))
    except Exception:  # of somebody's own type, or one that torch cannot ask for NaN
        found = []
    told = [sentence for sentence, _ in found[:MOST_ENTRIES]]
    if len(found) > MOST_ENTRIES:
        told.append(f"more in {count(len(found) - MOST_ENTRIES, 'entry')}")
    ways = "lower the learning rate, set max_grad_norm"
    if batch is None:
        ways = f"see whether the data hold NaN, {ways}"
    elif any(is_nan for _, is_nan in found):
        ways = "mend the data"
    elif found:
        ways = f"mend the data, or if that is meant, as in a mask, {ways}"
    cause = f", and {', '.join(told)}" if told else ""
    return (
        f"{what}{cause}; the trainer's optimizer left the weights alone: {ways}, or "
        "pass nonfinite='skip' to drop such windows"
    )


def _found(value: Any, place: str, levels: int = 8) -> Iterator[tuple[str, bool]]:
    """Yield where there are any, as "batch['x'] holds 3 NaN (row 2)", and if NaN."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fc":
        value = torch.from_numpy(value)
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            yield from _told(value.detach(), place)
        return
    # A mapping is entered by its keys, whatever they are; an object by its attributes.
    if isinstance(value, Mapping):
        parts = [(f"{place}[{key!r}]", item) for key, item in value.items()]
    elif has_items(value):
        parts = [(f"{place}[{number}]", item) for number, item in enumerate(value)]
    else:
        fields = fields_of(value) or {}
        parts = [(f"{place}.{name}", item) for name, item in fields.items()]
    for at, item in parts if levels else ():  # an object may lead back to itself
        yield from _found(item, at, levels - 1)


def _told(value: Tensor, place: str) -> Iterator[tuple[str, bool]]:
    for kind, bad in (("NaN", value.isnan()), ("infinite value", value.isinf())):
        if not (total := int(bad.sum())):
            continue
        is_nan = kind == "NaN"
        held = f"{total:,} NaN" if is_nan else count(total, kind)
        yield f"{place} holds {held}{_rows(bad)}", is_nan


def _rows(bad: Tensor) -> str:
    """Return which rows have one, as " (rows 0, 2)"; "" of a scalar."""
    if not bad.dim():
        return ""
    where = bad.flatten(1).any(1) if bad.dim() > 1 else bad
    numbers = [str(number) for number in where.nonzero().flatten().tolist()]
    return f" ({'row' if len(numbers) == 1 else 'rows'} {some(numbers)})"
