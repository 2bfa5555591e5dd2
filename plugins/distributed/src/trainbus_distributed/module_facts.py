"""What engines ask of modules."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def parts_of(module: nn.Module) -> list[Tensor]:
    """Return parameters and buffers, each once."""
    return [*module.parameters(), *module.buffers()]


def looking_across_rows(module: nn.Module) -> list[str]:
    """Return the names of the layers that normalise by statistics of their part."""
    return [
        name
        for name, part in module.named_modules()
        if isinstance(part, _BatchNorm) and not isinstance(part, nn.SyncBatchNorm)
    ]
