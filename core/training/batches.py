"""What a batch is: its size, its weight, and how it reaches the device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from training.errors import DataError


def batch_size_of(batch: Any) -> int:
    """Return the number of samples in ``batch``; 1 where nothing tells.

    It is the length of the first tensor that has one, wherever it stands; without
    such a tensor that of the first list of texts.

    Args:
        batch: a tensor ``(B, ...)``, or a mapping or sequence of such.
    """
    for part in _parts(batch):
        if isinstance(part, Tensor) and part.dim():
            return part.shape[0]
    return next((len(part) for part in _parts(batch) if isinstance(part, list)), 1)


def _parts(value: Any) -> Iterator[Tensor | list[str]]:
    """Yield the tensors and lists of texts inside ``value``, in reading order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _parts(item)
    elif isinstance(value, list) and value and isinstance(value[0], str):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _parts(item)


def tensors_of(batch: Any) -> list[Tensor]:
    """Return the tensors inside ``batch``, in reading order."""
    return [part for part in _parts(batch) if isinstance(part, Tensor)]


def weight_of(batch: Any) -> float:
    """Return the number of items that the batch's mean loss is a mean over.

    ``batch.loss_weight`` says it where the loss is not a mean over samples, as with
    the label tokens of a text model; otherwise it is the number of samples.

    Raises:
        DataError: ``loss_weight`` is negative, infinite or no number.
    """
    given = getattr(batch, "loss_weight", None)
    if given is None:
        return batch_size_of(batch)
    weight = float(given)
    if not 0.0 <= weight < math.inf:
        raise DataError(
            f"a batch has the loss_weight {weight}; make it the number of items that "
            "the mean loss is a mean over, 0 or more"
        )
    return weight


def batch_to_device(batch: Any, device: torch.device) -> Any:
    """Return ``batch`` with its tensors on ``device``; the same object on a CPU.

    Copies from pinned memory do not make the CPU wait. An object with its own ``to``
    (a tensor, a ``BatchEncoding``) moves itself; mappings, tuples and lists are
    rebuilt; anything else is passed on.
    """
    if device.type == "cpu":
        return batch
    return _move(batch, device)


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor) or hasattr(value, "loss_weight"):
        return value.to(device, non_blocking=True)
    if hasattr(value, "to"):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _move(item, device) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_move(item, device) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_move(item, device) for item in value)
    return value


def device_batches(
    host_batches: Iterator[Any], device: torch.device
) -> Iterator[tuple[Any, float]]:
    """Yield each batch on ``device`` with its weight, counted on the host before.

    On CUDA the next batch is copied on a side stream while the current one computes;
    the copies overlap only where the loader pins its memory. A batch with objects that
    move themselves is copied in line: nobody could tell how long their memory is read.
    """
    if device.type != "cuda":
        for batch in host_batches:
            yield batch_to_device(batch, device), weight_of(batch)
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: tuple[Any, float] | None = None
    for batch in host_batches:
        with torch.cuda.stream(stream) if _is_plain(batch) else nullcontext():
            copied = batch_to_device(batch, device), weight_of(batch)
        if ahead is not None:
            yield ahead
        torch.cuda.current_stream(device).wait_stream(stream)
        _record(copied[0], torch.cuda.current_stream(device))
        ahead = copied
    if ahead is not None:
        yield ahead


def _is_plain(value: Any) -> bool:
    """Whether ``_record`` finds every tensor that a copy of ``value`` holds."""
    if isinstance(value, Mapping):
        return all(_is_plain(item) for item in value.values())
    if isinstance(value, (tuple, list)):
        return all(_is_plain(item) for item in value)
    return isinstance(value, Tensor) or not hasattr(value, "to")


def _record(value: Any, stream: torch.cuda.Stream) -> None:
    """Tell the allocator that ``stream`` reads these tensors, so it keeps them."""
    if isinstance(value, Tensor):
        value.record_stream(stream)
    elif isinstance(value, Mapping):
        for item in value.values():
            _record(item, stream)
    elif isinstance(value, (tuple, list)):
        for item in value:
            _record(item, stream)
