"""Train and eval mode: frozen modules stay as they are, evaluation puts modes back.

A module is frozen when it carries ``_is_frozen = True``, and single parameters of one
when it names them in ``_frozen_parameters``; ``freeze_model`` sets both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def train_mode(model: nn.Module) -> None:
    """Put ``model`` into train mode, but keep frozen modules in eval mode.

    Dropout in a frozen module stays off and BatchNorm statistics do not move.
    """
    model.train()
    for module in frozen_modules(model).values():
        module.eval()


def frozen_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return name -> module for every module marked as frozen."""
    return {
        name: module
        for name, module in model.named_modules()
        if getattr(module, "_is_frozen", False)
    }


def keep_frozen(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Take gradients off frozen parameters again, and those out of the optimizer."""
    frozen: set[nn.Parameter] = set()
    for module in frozen_modules(model).values():
        frozen.update(module.parameters())
    for module in model.modules():
        names = getattr(module, "_frozen_parameters", ())
        frozen.update(getattr(module, name) for name in names)
    if not frozen:
        return
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p not in frozen]
    for parameter in frozen:
        parameter.requires_grad_(False)
        parameter.grad = None
        optimizer.state.pop(parameter, None)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into eval mode; give every module its own mode back after."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
