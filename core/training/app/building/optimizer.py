"""Build the optimizer that a configuration describes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from training.app.config.schema import OptimizerConfig
from training.errors import ConfigError

__all__ = ["build_optimizer"]


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return an optimizer over the parameters that need a gradient.

    Args:
        model: already frozen where it shall be, and on its device: a fused optimizer is
            chosen by where the parameters are.
        config: what to build.
    Raises:
        ConfigError: every parameter is frozen.
    """
    trained = [value for value in model.parameters() if value.requires_grad]
    if not trained:
        raise ConfigError("it leaves nothing to train; freeze fewer parts")
    options: dict[str, Any] = {"lr": config.lr, "fused": _can_fuse(trained)}
    if config.betas is not None:
        options["betas"] = tuple(config.betas)
    if config.eps is not None:
        options["eps"] = config.eps
    if config.momentum is not None:
        options["momentum"] = config.momentum
    classes: dict[str, Any] = {
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
        "sgd": torch.optim.SGD,
    }
    optimizer: torch.optim.Optimizer = classes[config.type](
        _groups(trained, config), **options
    )
    return optimizer


def _can_fuse(parameters: list[nn.Parameter]) -> bool:
    return all(value.is_cuda and value.is_floating_point() for value in parameters)


def _groups(
    parameters: list[nn.Parameter], config: OptimizerConfig
) -> list[dict[str, Any]]:
    """Return one group, or two when vectors have no weight decay."""
    if not config.no_decay_on_vectors:
        return [{"params": parameters, "weight_decay": config.weight_decay}]
    split = {
        config.weight_decay: [value for value in parameters if value.ndim >= 2],
        0.0: [value for value in parameters if value.ndim < 2],
    }
    return [
        {"params": values, "weight_decay": decay}
        for decay, values in split.items()
        if values
    ]
