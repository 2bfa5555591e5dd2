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
from training.feed.structure import WHOLE, CannotCutError, fields_of, samples_of, take

#: Numbers at each end of a tensor that tell it from another one.
FEW = 64


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
    """Yields one process's part of the indices of each batch.

    Args:
        indices: a batch sampler, the same on all processes.
        rank: of this process.
        size: how many there are.
    """

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
        if getattr(batch, "loss_weight", None) is not None:
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
        code = zlib.crc32(piece, code)
    return code


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, (Tensor, np.ndarray)):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        if isinstance(value, np.ndarray):
            yield from _ends(value)
        elif not (value.is_sparse or value.is_meta):
            # In one type: numpy knows no bfloat16.
            flat = value.detach().resolve_conj().resolve_neg().reshape(-1)
            yield from _ends(flat.view(torch.uint8).numpy(), value.element_size())
    elif isinstance(value, WHOLE):
        yield repr(value).encode(errors="replace")
    elif isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        yield str(len(value)).encode()
        for item in value:
            yield from _pieces(item)
    else:
        yield type(value).__name__.encode()
        fields: Mapping[str, Any] = fields_of(value) or {}
        for name, item in fields.items():
            yield name.encode(errors="replace")
            yield from _pieces(item)


def _ends(array: np.ndarray[Any, Any], size: int = 1) -> Iterator[bytes]:
    """Yield the first and the last numbers, of ``size`` elements of ``array`` each."""
    flat, few = array.reshape(-1), FEW * size
    for end in (flat[:few], flat[few:][-few:]):
        # The bytes of objects are where they lie, which each process has elsewhere.
        yield repr(end.tolist()).encode() if end.dtype.hasobject else end.tobytes()
