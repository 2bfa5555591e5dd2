"""Number formats of a run: fp32, bf16 or fp16 under autocast, with a loss scaler."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec, TypeVar

import torch

from training.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

PRECISIONS = ("fp32", "bf16", "fp16")


class Precision:
    """What a precision means on a device.

    fp16 runs under autocast with dynamic loss scaling, on a CPU too (correct there,
    and slow). bf16 has the exponent range of fp32 and needs no scaler. Weights and
    optimizer state stay fp32.

    Args:
        name: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        device: where the model runs.
    Raises:
        ConfigError: unknown name, or a GPU without bf16.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        if name not in PRECISIONS:
            raise ConfigError(
                f"precision is {name!r}; choose one of: {', '.join(PRECISIONS)}"
            )
        on_cuda = device.type == "cuda"
        if name == "bf16" and on_cuda and not torch.cuda.is_bf16_supported():
            raise ConfigError("precision is 'bf16', which this GPU lacks; use fp16")
        self.name = name
        self.device = device
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)
        self.scaler = (
            # Small gradients vanish in the exponents of fp16, not in those of bf16.
            torch.amp.GradScaler(device.type) if self.dtype is torch.float16 else None
        )

    @staticmethod
    def choose(precision: str | None, fp16: bool) -> str:
        """Return the name that ``precision`` and the ``fp16`` switch ask for."""
        if precision is None:
            return "fp16" if fp16 else "fp32"
        # Two names for one setting: neither wins in silence.
        if fp16 and precision != "fp16":
            raise ConfigError(
                f"fp16=True and precision={precision!r} contradict: pass one of them"
            )
        return precision

    def around(self, function: Callable[P, R], keeps_casts: bool) -> Callable[P, R]:
        """Return ``function`` as it runs in ``autocast``; in fp32 that is itself."""
        if self.dtype is None:
            return function

        def within(*arguments: P.args, **named: P.kwargs) -> R:
            with self.autocast(keeps_casts):
                return function(*arguments, **named)

        return within

    def autocast(self, keeps_casts: bool = True) -> AbstractContextManager[object]:
        """Return the context that a forward pass runs in; does nothing in fp32.

        Args:
            keeps_casts: cast a weight once a forward pass, however often it is used.
        """
        if self.dtype is None:
            return nullcontext()
        # A cast that is kept would be fixed in a recording of the step.
        return torch.autocast(
            self.device.type, dtype=self.dtype, cache_enabled=keeps_casts
        )
