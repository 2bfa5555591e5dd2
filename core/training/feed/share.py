"""One process's part of a batch that all processes know."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from training.errors import DataError
from training.feed.structure import (
    WHOLE,
    CannotCutError,
    attribute_of,
    fields_of,
    has_items,
    samples_of,
    take,
)

#: Numbers at each end of a tensor that tell it from another one.
FEW = 64
#: Codes of numpy for numbers that are all of their bytes; long doubles are not.
PLAIN = "?bBhHiIlLqQefdFD"
#: Types of tensors that numpy reads where they lie, without a copy.
IN_NUMPY = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128}
)


class StandIn(float):
    """The weight of a batch that only stands in for an empty part: it counts nothing.

    Whatever weight the forward pass returns for it: no sample counts twice.
    """


class Part(list[Any]):
    """The indices of one process's part of a batch; the first one if it has none.

    Attributes:
        whole: those of the batch.
        stands_in: whether the part is empty.
    """

    def __init__(self, whole: Any, rank: int, size: int) -> None:
        rows = rows_of(len(whole), rank, size)
        self.whole = whole
        self.stands_in = not rows
        super().__init__(whole[rows.start : rows.stop] if rows else whole[:1])

    def __reduce__(self) -> Any:
        return list, (list(self),)  # a worker need not know of the others


class Share(Sampler[Any]):
    """Yields one process's part of the indices of each batch."""

    def __init__(self, indices: Iterable[Any], rank: int, size: int) -> None:
        self.indices = indices
        self.rank, self.size = rank, size

    def __len__(self) -> int:
        return len(self.indices)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Part]:
        for each in self.indices:
            whole = each if isinstance(each, list) else list(each)
            yield Part(whole, self.rank, self.size)


def rows_of(total: int, rank: int, size: int) -> range:
    """Return which of ``total`` rows are a process's: the first get what is over."""
    each, over = divmod(total, size)
    start = rank * each + min(rank, over)
    return range(start, start + each + (rank < over))


def sliced(batch: Any, rank: int, size: int, name: str) -> tuple[Any, bool]:
    """Return a process's part of ``batch``, and whether its first row stands in.

    Args:
        batch: tensors, arrays and lists that are as many rows each, in mappings,
            tuples, named tuples, dataclasses or objects.
        rank: of the process.
        size: how many there are.
        name: of the loader, for messages.
    Raises:
        DataError: nobody can tell its rows, or what it weighs is told as a whole.
    """
    total = samples_of(batch)
    try:
        if total is None:
            raise CannotCutError("how many samples it holds cannot be told")
        shares = [rows_of(total, each, size) for each in range(size)]
        if attribute_of(batch, "loss_weight") is not None:
            _check_said(batch, [take(batch, rows, total) for rows in shares])
        rows = shares[rank]
        return take(batch, rows or range(min(1, total)), total), not rows
    except CannotCutError as error:
        raise DataError(
            f"a batch of {name} is a {type(batch).__name__} that cannot be divided "
            f"among {size} processes: {error}; let each process's loader yield its own "
            "part, and say so with data: own"
        ) from error


def _check_said(batch: Any, parts: list[Any]) -> None:
    said, of_parts = float(batch.loss_weight), [float(p.loss_weight) for p in parts]
    if not np.isclose(sum(of_parts), said, rtol=1e-6):
        raise CannotCutError(
            f"its loss_weight is {said:g}, and those of its parts are "
            f"{' and '.join(f'{each:g}' for each in of_parts)}"
        )


def digest(value: Any) -> int:
    """Return 32 bits that tell a batch from another one, at the cost of a few us.

    Args:
        value: indices, or a batch on the host.
    """
    code = 0
    for piece in _pieces(value):
        # Its length goes first, or 1, 11 would be 11, 1.
        code = zlib.crc32(piece, zlib.crc32(b"%d " % len(piece), code))
    return code


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, (Tensor, np.ndarray)):
        yield _encoded(f"{value.dtype} {tuple(value.shape)}")
        if isinstance(value, np.ndarray) or not (value.is_sparse or value.is_meta):
            yield from _ends(value)
    elif isinstance(value, WHOLE):
        yield _encoded(repr(value))
    elif has_items(value):
        if all(type(item) is int for item in value):  # indices, at once
            yield _encoded(repr(list(value)))
            return
        yield _encoded(f"{len(value)} items")
        for item in value:
            yield from _pieces(item)
    else:
        fields: Mapping[str, Any] = fields_of(value) or {}
        yield _encoded(f"{type(value).__name__} of {len(fields)}")
        for name, item in fields.items():
            yield _encoded(str(name))
            yield from _pieces(item)


def _ends(value: Any) -> Iterator[bytes]:
    flat = value.reshape(-1)
    for end in (flat[:FEW], flat[FEW:][-FEW:]):
        if torch.is_tensor(end) and end.dtype in IN_NUMPY and end.is_cpu:
            end = end.detach().resolve_conj().resolve_neg().numpy()
        # The bytes of numbers, since to write them takes ten times as long. Those of
        # anything else may hold what is no part of it, such as where an object lies.
        is_plain = type(end) is np.ndarray and end.dtype.char in PLAIN
        yield end.tobytes() if is_plain else _encoded(repr(end.tolist()))


def _encoded(text: str) -> bytes:
    return text.encode(errors="replace")
