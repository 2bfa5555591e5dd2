"""The rows of a batch: how many there are, and a batch of some of them.

A batch is made of entries. Tensors and arrays are as many rows as their dimension 0,
lists as many as their length; numbers, flags, one text and 0-d tensors belong to the
whole. All entries must agree, or nobody knows.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import inspect
import itertools
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

#: Entries that belong to the batch as a whole.
WHOLE: tuple[type, ...] = (bool, int, float, complex, str, bytes, type(None))
WHOLE += (enum.Enum, type, torch.dtype, torch.device, np.generic)
#: Attributes by which an object tells how many samples it holds.
COUNTED = ("num_graphs", "batch_size")


class CannotCutError(ValueError):
    """A batch that cannot be cut into smaller ones; the message says why."""


class TooFewError(CannotCutError):
    """It has too few rows or labels to be cut; another batch may have more."""


def attribute_of(holder: Any, name: str) -> Any:
    """Return ``holder.name``, None where it has none.

    A mapping whose ``__getattr__`` is ``dict.__getitem__`` says that with a KeyError,
    one whose is ``dict.get`` with None. One in a property of its class is an error.
    """
    try:
        return getattr(holder, name, None)
    except KeyError:
        if inspect.getattr_static(type(holder), name, None) is not None:
            raise
        return None


def deep_copy(batch: Any) -> Any:
    """Return a deep copy, also of mappings that answer attributes with a KeyError.

    They may be anywhere in it.
    """
    try:
        return copy.deepcopy(batch)
    except KeyError:  # they are asked for a ``__deepcopy__`` of their own
        if hasattr(type(batch), "__deepcopy__"):
            raise
        if has_items(batch):
            return type(batch)(map(deep_copy, batch))
        if fields_of(batch) is None:
            raise
        return _with_fields(batch, deep_copy)


@cache
def is_dict(kind: type) -> bool:
    """Whether it is a mapping that entries can be taken out of, asked once a class."""
    return issubclass(kind, (dict, UserDict))


def shallow_copy(batch: Any) -> Any:
    """Return a copy of ``batch`` with the same entries; itself where it has none."""
    kind: Any = type(batch)
    if getattr(batch, "__dict__", None) is batch:  # its attributes are its entries
        return kind(batch)
    try:
        return copy.copy(batch)
    except KeyError:  # as in ``deep_copy``
        return batch


def samples_of(batch: Any) -> int | None:
    """Return how many samples ``batch`` holds, None where that cannot be told.

    ``num_graphs`` or ``batch_size`` of an object tells; else all entries of a mapping,
    tuple, dataclass, named tuple or object must be as many rows.
    """
    plain = _plain_rows(batch)
    if plain is not None:
        return plain
    for name in COUNTED:
        told = attribute_of(batch, name)
        if isinstance(told, tuple) and told:  # a torch.Size
            told = told[0]
        if isinstance(told, int):
            return int(told)
    found: set[int] | None = None
    first: tuple[int, ...] = ()
    for readings in _readings(batch, is_top=True):
        first = first or readings
        found = set(readings) if found is None else found & set(readings)
    if not found:
        return None
    return next((each for each in first if each in found), min(found))


def _plain_rows(batch: Any) -> int | None:
    """Return the rows of tensors that agree, in a dict or tuple: the usual batch."""
    kind = type(batch)
    if kind is dict:
        batch = batch.values()
    elif kind is not tuple:
        return None
    rows = None
    for item in batch:
        if type(item) is not Tensor or not item.ndim:
            return None
        if rows is None:
            rows = item.shape[0]
        elif item.shape[0] != rows:
            return None
    return rows


def sample_sizes(loader: Iterable[Any]) -> Iterator[int | None]:
    """Yield the samples of each batch of ``loader``, in order, without end.

    They are known for torch's own batches of a map-style set, if the sampler has a
    length; None for all others. What the kernel or an evaluation puts around a loader
    passes its batches on and has it as ``loader``; a class of somebody else's around
    that may give others, so it is not looked through.
    """
    given: Any = getattr(loader, "loader", loader)
    sampler: Any = getattr(given, "batch_sampler", None)
    is_torchs = type(given) is DataLoader and type(sampler) is BatchSampler
    if not is_torchs or isinstance(given.dataset, IterableDataset):
        yield from itertools.repeat(None)
    try:
        total, size = len(sampler.sampler), sampler.batch_size
    except (TypeError, NotImplementedError):  # as torch has it, a sampler may have none
        yield from itertools.repeat(None)
    yield from (max(0, min(size, total - n * size)) for n in itertools.count())


def take(batch: Any, rows: Sequence[int], num_rows: int) -> Any:
    """Return a batch of the same kind with ``rows`` of its ``num_rows``.

    Raises:
        CannotCutError: an entry is not ``num_rows`` long, or of an unknown kind.
    """
    if attribute_of(batch, "num_graphs") is not None:
        raise CannotCutError(f"a {type(batch).__name__} of graphs has no plain rows")
    return _take(batch, rows, num_rows, is_top=True)


def may_be_second(batch: Any, samples: int) -> bool:
    """Whether dimension 1 may hold the ``samples``, as in batches (time, sample).

    It is as long in each entry that has one; entries of one dimension are so long.
    """
    if not samples or any(attribute_of(batch, name) is not None for name in COUNTED):
        return False
    shapes = [each.shape for each in _arrays_in(batch) if each.ndim]
    is_wide = any(len(shape) > 1 for shape in shapes)
    return is_wide and all(shape[:2][-1] == samples for shape in shapes)


def transposed(value: Any) -> Any:
    """Return ``value`` with dimensions 0 and 1 of its tensors and arrays swapped."""
    if isinstance(value, Tensor):
        return value.transpose(0, 1).contiguous() if value.ndim > 1 else value
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value.swapaxes(0, 1)) if value.ndim > 1 else value
    if has_items(value):
        return type(value)(transposed(item) for item in value)
    return value if fields_of(value) is None else _with_fields(value, transposed)


def has_items(value: Any) -> bool:
    """Whether it is a list or a plain tuple; a named one has fields instead."""
    return isinstance(value, (list, tuple)) and not hasattr(value, "_fields")


def fields_of(value: Any) -> dict[str, Any] | None:
    """Return the entries of a mapping, named tuple, dataclass or object, by name."""
    if isinstance(value, Mapping):
        return {str(name): item for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: getattr(value, name) for name in names if hasattr(value, name)}
    if isinstance(value, (Tensor, np.ndarray, tuple, list, WHOLE)):
        return None
    return getattr(value, "__dict__", None)


def _arrays_in(value: Any, levels: int = 8) -> Iterator[Any]:
    """Yield the tensors and arrays anywhere in a batch."""
    if isinstance(value, (Tensor, np.ndarray)):
        yield value
        return
    if not isinstance(value, (list, tuple)):
        value = (fields_of(value) or {}).values()
    for item in value if levels else ():  # an object may lead back to itself
        yield from _arrays_in(item, levels - 1)


def _readings(value: Any, is_top: bool = False) -> Iterator[tuple[int, ...]]:
    """Yield for each entry the numbers of rows it may be; () is not understood."""
    if isinstance(value, WHOLE):
        return
    if isinstance(value, (Tensor, np.ndarray)):
        if value.ndim:
            yield (int(value.shape[0]),)
    elif has_items(value):
        yield from _of_sequence(value, is_top)
    else:
        fields = fields_of(value)
        if fields is None or not (fields or isinstance(value, Mapping)):
            yield ()
        for item in (fields or {}).values():
            yield from _readings(item)


def _of_sequence(value: Any, is_top: bool) -> Iterator[tuple[int, ...]]:
    """A list of rows, or of columns: tensors that agree.

    Torch collates pairs to lists of columns, and pairs of pairs to lists of lists.
    """
    if is_top and _is_nested(value):
        columns = [
            each for item in value for each in _readings(item, isinstance(item, list))
        ]
        yield (*set(columns[0]).intersection(*columns[1:]), len(value))
    elif _has_tensors(value):
        columns = [each for item in value for each in _readings(item)]
        shared = set(columns[0]).intersection(*columns[1:]) if columns else set()
        if isinstance(value, tuple) or is_top:
            yield from columns or [()]
        else:
            yield (len(value), *shared)
    elif isinstance(value, list) and not (is_top and not value):
        yield (len(value),)
    elif all(isinstance(item, (str, int, float)) for item in value):
        if not is_top or (value and all(isinstance(item, str) for item in value)):
            yield (len(value),)
    else:
        for item in value:
            yield from _readings(item)


def _has_tensors(value: Any) -> bool:
    return any(isinstance(item, (Tensor, np.ndarray)) for item in value)


def _is_nested(value: Any) -> bool:
    """Whether it may be what torch collates pairs to that hold pairs.

    No number and no 0-d tensor is in that: a row has them, which nobody collated.
    """
    lists = [each for each in value if isinstance(each, list)]
    return (
        isinstance(value, list)
        and any(map(_has_tensors, lists))
        and not any(
            isinstance(each, WHOLE) or getattr(each, "ndim", 1) == 0
            for item in lists
            for each in item
        )
    )


def _take(value: Any, rows: Sequence[int], num_rows: int, is_top: bool = False) -> Any:
    if isinstance(value, WHOLE):
        return value
    if isinstance(value, (Tensor, np.ndarray)):
        if not value.ndim:
            return value
        if value.shape[0] != num_rows:
            raise CannotCutError(
                f"an entry of shape {tuple(value.shape)} is not of length {num_rows}"
            )
        part = value[list(rows)]
        if isinstance(value, Tensor) and value.requires_grad and value.is_leaf:
            part = part.detach().requires_grad_()  # type: ignore[union-attr]  # copied
        return part
    if has_items(value):
        if _is_rows(value, num_rows, is_top):
            return type(value)(value[row] for row in rows)
        if not any(True for _ in _readings(value, is_top)) or isinstance(value, tuple):
            return type(value)(_take(item, rows, num_rows) for item in value)
        if is_top and _is_nested(value):
            return [_take(i, rows, num_rows, isinstance(i, list)) for i in value]
        if not _has_tensors(value):
            raise CannotCutError(f"a list of {len(value)} is not of length {num_rows}")
        return type(value)(_take(item, rows, num_rows) for item in value)
    if fields_of(value) is None:
        raise CannotCutError(f"a {type(value).__name__} cannot be cut into rows")
    return _with_fields(value, lambda item: _take(item, rows, num_rows))


def _is_rows(value: Any, num_rows: int, is_top: bool) -> bool:
    """Whether the items of a list or plain tuple are the rows."""
    if len(value) != num_rows:
        return False
    has_tensors = _has_tensors(value) or (is_top and _is_nested(value))
    if isinstance(value, tuple) or (is_top and has_tensors):
        columns = [each for item in value for each in _readings(item)]
        return not (has_tensors or is_top) or (
            isinstance(value, list) and any(num_rows not in each for each in columns)
        )
    return True


def _with_fields(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a copy of what has fields, each of them changed."""
    fields = fields_of(value) or {}
    if isinstance(value, tuple):
        return type(value)(*map(change, value))
    part: Any = copy.copy(value)
    if isinstance(value, Mapping):
        for name, item in value.items():
            part[name] = change(item)
        return part
    for name, item in fields.items():  # set past a frozen dataclass's own guard
        object.__setattr__(part, name, change(item))
    return part
