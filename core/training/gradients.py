"""Look at all gradients in one pass: are they finite, and scale them on the way.

Uses the operation behind ``GradScaler.unscale_``: cheaper than a norm, and exact (a
factor of 1.0 changes no bit).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class GradientCheck:
    """Tells whether all gradients are finite, and scales them on the way.

    Args:
        parameters: of an optimizer.
    """

    def __init__(self, parameters: list[Any]) -> None:
        self._groups: dict[tuple[torch.device, torch.dtype], list[Any]] = {}
        for parameter in parameters:
            kind = (parameter.device, parameter.dtype)
            self._groups.setdefault(kind, []).append(parameter)
        self._scratch = {
            device: (torch.zeros((), device=device), torch.ones((), device=device))
            for device in {device for device, _ in self._groups}
        }
        self._is_sparse: bool | None = None

    @property
    def found(self) -> Tensor:
        """0-d float32: 1.0 once ``mark`` has met a gradient that is not finite.

        It stays 1.0 until ``finite`` is asked. There must be one device.
        """
        ((found, _),) = self._scratch.values()
        return found

    def finite(self, factor: float = 1.0) -> bool:
        """Multiply all gradients by ``factor``; return whether all are finite.

        Reading the answer is a sync on CUDA, one for each device.
        """
        self.mark(factor)
        bad = 0.0
        for found, _ in self._scratch.values():
            bad += found.item()
        if bad:
            for found, _ in self._scratch.values():
                found.zero_()
        return not bad

    def mark(self, factor: float | Tensor = 1.0) -> None:
        """Multiply all gradients by ``factor``; remember on the device what is bad.

        Args:
            factor: a number, or 0-d float32 on the device, of which there is one then.
        """
        for (device, _), parameters in self._groups.items():
            grads = [grad for p in parameters if (grad := p.grad) is not None]
            if self._is_sparse is None:  # a layer's gradients keep their layout
                self._is_sparse = any(grad.is_sparse for grad in grads)
            if self._is_sparse:
                grads = [g._values() if g.is_sparse else g for g in grads]
            if grads:
                found, scale = self._scratch[device]
                if isinstance(factor, Tensor):
                    scale = factor
                elif factor != 1.0:
                    scale = torch.full_like(scale, factor)
                torch._amp_foreach_non_finite_check_and_unscale_(grads, found, scale)
