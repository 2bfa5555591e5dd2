"""Look at all gradients in one pass: are they finite, and scale them on the way; clip.

Uses the operation behind ``GradScaler.unscale_``: cheaper than a norm, and exact (a
factor of 1.0 changes no bit).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class GradientCheck:
    """Tells whether all gradients are finite, scales them on the way, and clips them.

    Args:
        parameters: of an optimizer.
    """

    def __init__(self, parameters: list[Any]) -> None:
        self._parameters = parameters
        kinds: dict[tuple[torch.device, torch.dtype], list[Any]] = {}
        for parameter in parameters:
            # The kernel takes lists of one device and one type.
            kinds.setdefault((parameter.device, parameter.dtype), []).append(parameter)
        # Of no parameter, where a plugin has emptied all groups, the host keeps notes.
        devices = {device for device, _ in kinds} or {torch.device("cpu")}
        # Made once: each step would else allocate and fill them, on every device. Of
        # float32, the one type that the kernel takes, whatever torch's default is.
        self._scratch = {
            at: (torch.zeros((), device=at).float(), torch.ones((), device=at).float())
            for at in devices
        }
        self._found = [found for found, _ in self._scratch.values()]
        #: Parameters of a kind, their numbers of two parts, what a kernel is given.
        self._kinds = [
            (alike, dtype.is_complex, *self._scratch[device])
            for (device, dtype), alike in kinds.items()
        ]
        self._may_be_sparse = False

    @property
    def found(self) -> Tensor:
        """0-d float32: 1.0 once ``scan`` has met a gradient that is not finite.

        It stays 1.0 until it is ``read``. There must be one device.
        """
        (found,) = self._found
        return found

    def has_any(self) -> bool:
        """Whether any parameter has a gradient; a loss scaler fails where none has."""
        return any(parameter.grad is not None for parameter in self._parameters)

    def finite(self, factor: float = 1.0) -> bool:
        """Multiply all gradients by ``factor``; return whether all are finite."""
        self.scan(factor)
        return self.read()

    def read(self) -> bool:
        """Return whether all that was scanned and noted was finite, and forget it.

        A sync on CUDA, one for each device.
        """
        bad = 0.0
        for found in self._found:
            bad += found.item()
        # Only where one is set: each fill is one more kernel to launch.
        if bad:
            for found in self._found:
                found.zero_()
        return not bad

    def scan(self, factor: float | Tensor = 1.0) -> None:
        """Multiply all gradients by ``factor``; remember on the device what is bad.

        Args:
            factor: a number, or 0-d float32 on the device, of which there is one then.
        """
        for parameters, is_complex, found, scale in self._kinds:
            grads = [grad for p in parameters if (grad := p.grad) is not None]
            if is_complex or self._may_be_sparse:
                grads = [real_values(p) for p in parameters if p.grad is not None]
            if not grads:
                continue
            if not isinstance(factor, float):
                scale = factor
            elif factor != 1.0 and grads[0].dtype is torch.float64:
                # A pass more: the kernel's factor is float32, and would round them.
                torch._foreach_mul_(grads, factor)
            elif factor != 1.0:
                # Filled on the device: nothing is copied, nobody waits.
                scale = torch.full_like(scale, factor)
            try:
                torch._amp_foreach_non_finite_check_and_unscale_(grads, found, scale)
            except NotImplementedError:  # before anything was done to any of them
                if self._may_be_sparse or not any(grad.is_sparse for grad in grads):
                    raise
                self._may_be_sparse = True  # layers may change the layout as they go
                grads = [real_values(p) for p in parameters if p.grad is not None]
                torch._amp_foreach_non_finite_check_and_unscale_(grads, found, scale)

    def note(self, number: Tensor) -> None:
        """Remember on the device, too, if ``number``, 0-d, is not finite: one kernel.

        Its value stays as it is.
        """
        # A norm of no gradient at all is on the host.
        elsewhere = next(iter(self._scratch.values()))
        found, one = self._scratch.get(number.device, elsewhere)
        torch._amp_foreach_non_finite_check_and_unscale_(
            [number.to(found.device)], found, one
        )

    def clip(self, max_norm: float) -> Tensor:
        """Scale all gradients so that their 2-norm is at most ``max_norm``.

        As torch's ``clip_grad_norm_``, and with the values of sparse gradients, too.

        Returns: the norm before, 0-d.
        """
        # torch goes first; it refuses sparse ones before it has scaled any.
        try:
            return nn.utils.clip_grad_norm_(self._parameters, max_norm)
        except NotImplementedError:
            used = [p for p in self._parameters if p.grad is not None]
            if not any(parameter.grad.is_sparse for parameter in used):
                raise
        values = [real_values(parameter) for parameter in used]
        norm = nn.utils.get_total_norm(values)
        factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)  # as torch has it
        for value in values:
            value.mul_(factor.to(value.device))
        return norm


def real_values(parameter: Any) -> Tensor:
    """Return the numbers of a gradient as a dense, real view into it.

    A sparse gradient is coalesced first, as its optimizer does anyway: of several
    values for one element only the sum counts.
    """
    grad = parameter.grad
    if grad.is_sparse:
        grad = parameter.grad = grad.coalesce()  # itself, if it is
        grad = grad._values()
    elif grad.is_conj():  # a view of the conjugate has no real parts of its own
        grad = parameter.grad = grad.resolve_conj()
    return torch.view_as_real(grad) if grad.is_complex() else grad
