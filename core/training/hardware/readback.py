"""Numbers on their way from the device, which nobody waits for until asked."""

from __future__ import annotations

import torch
from torch import Tensor


def reads_wait(device: torch.device) -> bool:
    """Whether reading a number from ``device`` makes the CPU wait for all its work."""
    return device.type != "cpu"


class Readback:
    """The value of a 0-d tensor, copied to the host behind the work that makes it.

    Making one costs a copy of a few bytes and never makes the CPU wait.

    Args:
        value: 0-d, on any device, or a number, which is here already.
    """

    __slots__ = ("_event", "_host")

    def __init__(self, value: Tensor | float) -> None:
        self._event: torch.cuda.Event | None = None
        self._host: Tensor | float
        if isinstance(value, (float, int)):
            self._host = value
        elif value.is_cuda:
            self._host = torch.empty((), dtype=value.dtype, pin_memory=True)
            self._host.copy_(value.detach(), non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(value.device))
        else:
            self._host = value.detach().clone()

    @property
    def is_here(self) -> bool:
        """Whether ``value`` can be had without waiting."""
        # Forgotten once it is over: no later call of the runtime asks for it again.
        if self._event is not None and self._event.query():  # type: ignore[no-untyped-call]
            self._event = None
        return self._event is None

    def value(self) -> float:
        """Return the number; on CUDA this waits for the work that makes it."""
        event, self._event = self._event, None
        if event is not None and not event.query():  # type: ignore[no-untyped-call]
            event.synchronize()
        return float(self._host)


class LateFlag:
    """A truth value that only the device knows yet.

    Args:
        code: 0 for true.
    """

    __slots__ = ("_code",)

    def __init__(self, code: Readback) -> None:
        self._code = code

    def __bool__(self) -> bool:
        return self._code.value() == 0.0

    def __repr__(self) -> str:
        return repr(bool(self))
