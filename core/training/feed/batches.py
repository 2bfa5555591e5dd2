"""What tensors a batch holds, and how it reaches the device."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors inside a batch, in reading order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    return [tensor for item in value for tensor in tensors_of(item)]


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
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if hasattr(value, "to"):
        # Without the word the CPU waits for the copy; a foreign `to` may not know it.
        kind: Any = type(value)
        if _knows_non_blocking(kind):
            return value.to(device, non_blocking=True)
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _move(item, device) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        # A named tuple is built from its fields, not from one iterable.
        return type(value)(*(_move(item, device) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_move(item, device) for item in value)
    return value


@cache
def _knows_non_blocking(kind: type[Any]) -> bool:
    """Whether the ``to`` of a class takes ``non_blocking``, asked once a class.

    A mapping is taken at its word that it takes any: that of transformers does.
    """
    try:
        taken = inspect.signature(kind.to).parameters
    except (AttributeError, TypeError, ValueError):  # it is no function of the class
        return False
    takes_any = any(each.kind is each.VAR_KEYWORD for each in taken.values())
    return "non_blocking" in taken or (takes_any and issubclass(kind, Mapping))


def device_batches(
    host_batches: Iterator[Any],
    device: torch.device,
    weigh: Callable[[Any], float],
) -> Iterator[tuple[Any, float]]:
    """Yield each batch on ``device`` with its weight, counted on the host before.

    On CUDA the next batch is copied on a side stream while the current one computes;
    the copies overlap only where the loader pins its memory. A batch with objects that
    move themselves is copied in line: nobody could tell how long their memory is read.
    """
    if device.type == "cpu":  # where they are
        for batch in host_batches:
            yield batch, weigh(batch)
        return
    # Other devices have no side stream to copy on: in line.
    if device.type != "cuda":
        for batch in host_batches:
            weight = weigh(batch)
            yield batch_to_device(batch, device), weight
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    # The price is memory on the device for one more batch.
    ahead: tuple[Any, float] | None = None
    for batch in host_batches:
        weight = weigh(batch)
        # Weighed on the host, before the copy: there a count costs no sync.
        with torch.cuda.stream(stream) if _is_plain(batch) else nullcontext():
            copied = batch_to_device(batch, device), weight
        # One batch behind, so that this copy runs beside the step on the one before.
        if ahead is not None:
            yield ahead
        # Only the device waits for the copy, behind the work that was just queued.
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
