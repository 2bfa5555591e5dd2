"""torch.compile of the forward pass; the raw model and its names stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from training.errors import ConfigError

#: Modes in which torch.compile records CUDA graphs of its own.
RECORDING_MODES = ("reduce-overhead", "max-autotune")


def compile_options(
    given: bool | Mapping[str, Any], cuda_graphs: bool = False
) -> dict[str, Any] | None:
    """Return the keyword arguments for ``torch.compile``; None: do not compile.

    Raises:
        ConfigError: torch refuses them, or two would record the same work.
    """
    if isinstance(given, bool):
        return {} if given else None
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"compile is {given!r}; use true, false, or arguments of torch.compile, "
            "such as {mode: max-autotune}"
        )
    options = dict(given)
    if cuda_graphs and options.get("mode") in RECORDING_MODES:
        raise ConfigError(
            f"compile.mode is {options['mode']!r}, which records CUDA graphs itself; "
            "drop cuda_graphs, or use mode 'default' or 'max-autotune-no-cudagraphs'"
        )
    try:
        torch.compile(nn.Identity(), **options)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"compile is {options!r}, which torch.compile refuses: {error}"
        ) from error
    return options


def compiled(module: nn.Module, options: dict[str, Any] | None) -> nn.Module:
    """Return what the loop calls instead of ``module``, which keeps its weights."""
    if options is None:
        return module
    return cast(nn.Module, torch.compile(module, **options))
