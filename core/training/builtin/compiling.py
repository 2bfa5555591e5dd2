"""torch.compile of the forward pass; the raw model and its names stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from training.bus.callback import BuiltIn
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


class Compile(BuiltIn):
    """Let the loop call a compiled model, around whatever plugins put it into.

    Args:
        options: what ``compile_options`` returned.
    """

    name = "compile"
    is_last = True  # what others wrap is compiled with it

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)

    def wrap_model(self, model: nn.Module) -> nn.Module:
        """Return what is called instead of ``model``, which keeps its weights."""
        return cast(nn.Module, torch.compile(model, **self.options))
