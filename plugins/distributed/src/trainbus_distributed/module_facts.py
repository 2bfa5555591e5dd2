"""What engines ask of modules."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


def parts_of(module: nn.Module) -> list[Tensor]:
    """Return parameters and buffers, each once."""
    return [*module.parameters(), *module.buffers()]


def keeps_statistics(module: nn.Module) -> bool:
    """Whether a part of ``module`` moves statistics of its batches in training."""
    parts = module.modules()
    return any(isinstance(p, _NormBase) and p.track_running_stats for p in parts)
