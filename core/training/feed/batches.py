"""What tensors a batch holds, and how it reaches the device."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: A batch on the device, the same on the host, and where it came from: the loader, if
#: that has read no other one since, or an ``Origin``.
Arrived = tuple[Any, Any, Any]


class Origin(NamedTuple):
    """Where a batch came from, for when the loader has read others.

    Attributes:
        issued: the indices of its samples, where known.
        whole: of a part of one: the undivided batch, where it is here.
        stands_in: whether it stands in for an empty part.
    """

    issued: Any
    whole: Any
    stands_in: bool


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
    # Of a mapping its class is asked: an entry is no method, nor is what is not there.
    if hasattr(type(value) if isinstance(value, Mapping) else value, "to"):
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
    host_batches: Iterator[Any], device: torch.device, source: Any
) -> Iterator[Arrived]:
    """Return each batch on ``device``, with what tells its weight.

    On CUDA the next batch is copied on a side stream while the current one computes;
    the copies overlap only where the loader pins its memory. A batch with objects that
    move themselves is copied in line: nobody could tell how long their memory is read.
    """
    if device.type == "cuda":
        return prefetched(host_batches, SideStream(device), source)
    return _in_line(host_batches, device, source)


def _in_line(
    host_batches: Iterator[Any], device: torch.device, source: Any
) -> Iterator[Arrived]:
    if device.type == "cpu":  # where they are
        for batch in host_batches:
            yield batch, batch, source
        return
    for batch in host_batches:
        yield batch_to_device(batch, device), batch, source


def prefetched(
    host_batches: Iterator[Any], stream: Any, source: Any
) -> Iterator[Arrived]:
    """Yield batches, each when the copying of the next one has begun.

    The price is memory for one more batch, on the device and on the host.
    """
    ahead: list[Arrived] = []
    for batch in host_batches:
        # Now: when its turn has come, the source is one batch further.
        origin = Origin(source.issued, source.whole, source.stands_in)
        read = stream.copy(batch), batch, origin
        # One batch behind, so that this copy runs beside the step on the one before.
        if ahead:
            yield ahead.pop()  # not kept: it is free when it was trained on
        stream.wait_for_copy(read[0])
        ahead.append(read)
    yield from ahead


class SideStream:
    """Copies batches to a CUDA device beside what it computes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(self, batch: Any) -> Any:
        """Begin to copy ``batch``; return it on the device."""
        with torch.cuda.stream(self._stream) if _is_plain(batch) else nullcontext():
            return batch_to_device(batch, self._device)

    def wait_for_copy(self, copied: Any) -> None:
        """Let what is queued from here on read ``copied``.

        Only the device waits for the copy, behind the work that was just queued.
        """
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        # The allocator is told, so that it keeps them until they were read.
        for tensor in tensors_of(copied):
            tensor.record_stream(current)


def _is_plain(value: Any) -> bool:
    """Whether ``tensors_of`` finds every tensor that a copy of ``value`` holds."""
    if isinstance(value, Mapping):
        return all(_is_plain(item) for item in value.values())
    if isinstance(value, (tuple, list)):
        return all(_is_plain(item) for item in value)
    return isinstance(value, Tensor) or not hasattr(value, "to")
