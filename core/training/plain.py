"""Know numbers; turn those of libraries into Python's own, which are saved."""

from __future__ import annotations

import sys
from collections import OrderedDict
from enum import Enum
from numbers import Complex, Integral, Real
from operator import index
from typing import Any

_OWN = frozenset({type(None), bool, int, float, complex, str, bytes})
_NUMBERS = (int, float)


def plain(value: Any) -> Any:
    """Return ``value`` with each foreign number in it as a Python number.

    A sweep draws learning rates and seeds as scalars of numpy. Their values do not
    change: a ``float32`` is a ``float`` exactly.

    Args:
        value: a number, or dicts, lists and tuples of them; what is no number is
            returned as it is, and so is a container with nothing to turn in it.
    """
    kind = type(value)
    if kind in _OWN or isinstance(value, Enum):  # which may be asked for as such
        return value
    if kind in (list, tuple):
        items = [plain(item) for item in value]
        return value if _are_same(items, value) else kind(items)
    if kind in (dict, OrderedDict):
        pairs = [(plain(key), plain(item)) for key, item in value.items()]
        is_same = _are_same([key for key, _ in pairs], value) and _are_same(
            [item for _, item in pairs], value.values()
        )
        return value if is_same else kind(pairs)
    if isinstance(value, Integral):
        return index(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, Complex):
        return complex(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)):
        return value.item() if value.shape == () else value
    return value


def is_number(value: Any) -> bool:
    """Whether it is a number of Python's or numpy's, and no truth."""
    kind = type(value)
    return kind in _NUMBERS or (kind.__module__ == "numpy" and isinstance(value, Real))


def _are_same(new: Any, old: Any) -> bool:
    return all(a is b for a, b in zip(new, old, strict=True))
