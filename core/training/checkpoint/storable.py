"""What a checkpoint may hold: tensors, plain values, and lists and mappings of them.

Anything else would be written without a complaint and could never be read again, since
reading imports and calls nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

#: Exact types: an ``IntEnum`` or a numpy float is written as an object of its class.
PLAIN = frozenset(
    {type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype}
)
MAPPINGS = frozenset({dict, OrderedDict})
SEQUENCES = frozenset({list, tuple, set})
TENSORS = frozenset({Tensor, torch.nn.Parameter})
#: Lists and mappings inside of one another.
DEEPEST = 100
#: How many of them a part of a checkpoint, and a plugin's state, are inside of there.
OF_PART, OF_STATE = 1, 2
_KEY = "a key of "
_KEPT = "keep tensors, numbers, strings, lists and dicts"


def foreign_value(
    value: Any, path: str = "", depth: int = 0, parts: tuple[type, ...] = ()
) -> tuple[str, Any] | None:
    """Return (path, value) of the first value that a checkpoint cannot hold, or None.

    Args:
        value: what is to be saved.
        path: what leads to it, such as ``"best['scores'][0]"``.
        depth: how many lists and mappings it is inside of.
        parts: kinds of tensors that are made whole before anything is written.
    """
    kind = type(value)
    if kind in PLAIN or kind in TENSORS or kind in parts:
        return None
    # Also what is inside of itself ends here, and not in a RecursionError.
    if depth > DEEPEST and kind in MAPPINGS | SEQUENCES:
        return path, value
    if kind in MAPPINGS:
        for key, item in value.items():
            # A key of a class of its own is pickled as that, like any value.
            if type(key) not in PLAIN:
                return f"{_KEY}{path or 'it'}", key
            inner = f"{path}[{key!r}]" if path or not isinstance(key, str) else key
            found = foreign_value(item, inner, depth + 1, parts)
            if found is not None:
                return found
        return None
    if kind in SEQUENCES:
        for index, item in enumerate(value):
            if type(item) in PLAIN:  # a generator's state is a thousand numbers
                continue
            found = foreign_value(item, f"{path}[{index}]", depth + 1, parts)
            if found is not None:
                return found
        return None
    return path, value


def describe_foreign(path: str, value: Any) -> str:
    """Return a clause that names the value, its class, and what to keep instead."""
    kind, is_key = type(value), path.startswith(_KEY)
    if kind in MAPPINGS | SEQUENCES and not is_key:
        return (
            f"{path[:60]}... is inside of more than {DEEPEST} lists and mappings, or "
            "inside of itself; keep a flat state"
        )
    return (
        f"{path} is {kind.__module__}.{kind.__qualname__} {_short(value)}, which a "
        f"checkpoint cannot hold; {'use texts or numbers as keys' if is_key else _KEPT}"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}..."
