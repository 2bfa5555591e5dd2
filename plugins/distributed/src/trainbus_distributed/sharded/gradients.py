"""Look at gradients that lie in parts on several processes, and clip the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trainbus_distributed.group import Group
from training.plugin import GradientCheck


class ShardedGradients(GradientCheck):
    """As ``GradientCheck``, of the whole gradient, and the same answer everywhere.

    Args:
        parameters: of an optimizer; sharded over all processes, or replicated.
        group: the processes.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], group: Group) -> None:
        self._group = group
        self._sharded = [Local(p) for p in parameters if isinstance(p, DTensor)]
        self._replicated = [p for p in parameters if not isinstance(p, DTensor)]
        super().__init__([*self._sharded, *self._replicated])

    def read(self) -> bool:
        """Return whether all that was scanned was finite, everywhere.

        A sum over all processes, which the host waits for.
        """
        is_bad = not super().read()
        return not any(self._group.sum([float(is_bad)], "of bad gradients"))

    def clip(self, max_norm: float) -> Tensor:
        """Scale all gradients so that the 2-norm of the whole is at most that.

        Returns: the norm before, 0-d; a sum over all processes on the device.
        """
        # In double: squares of what float32 holds would overflow.
        square = self._norm(self._sharded).double() ** 2
        self._group.add_up(square)
        whole = (square + self._norm(self._replicated).double() ** 2).sqrt().float()
        nn.utils.clip_grads_with_norm_(self._parameters, max_norm, whole)
        return whole

    def _norm(self, parameters: Sequence[Any]) -> Tensor:
        gradients = [grad for p in parameters if (grad := p.grad) is not None]
        norm = nn.utils.get_total_norm(gradients)
        return norm.to(next(iter(self._scratch), torch.device("cpu")))


class Local:
    """This process's part of a sharded parameter, and of its gradient.

    Args:
        parameter: sharded.
    """

    def __init__(self, parameter: DTensor) -> None:
        self._parameter = parameter
        self.device = parameter.device
        self.dtype = parameter.dtype

    @property
    def grad(self) -> Tensor | None:
        """The part of the gradient that is here; what is written to it holds."""
        grad: Any = self._parameter.grad
        return grad.to_local() if isinstance(grad, DTensor) else grad
