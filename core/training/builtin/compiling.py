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
#: And the option of its backend that these modes set.
RECORDING_OPTION = "triton.cudagraphs"
#: The plugin that records a step, by the name of its class.
RECORDER = "cuda_graphs"


def compile_options(given: bool | Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the keyword arguments for ``torch.compile``; None: do not compile.

    Raises:
        ConfigError: torch refuses them.
    """
    if isinstance(given, bool):
        return {} if given else None
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"compile is {given!r}; use true, false, or arguments of torch.compile, "
            "such as {mode: max-autotune}"
        )
    options = dict(given)
    try:
        torch.compile(nn.Identity(), **options)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"compile is {options!r}, which torch.compile refuses: {error}"
        ) from error
    return options


def has_recorder(plugins: Mapping[str, Any]) -> bool:
    """Whether ``cuda_graphs`` is among these, by whatever name it takes part."""
    return any(getattr(type(p), "name", None) == RECORDER for p in plugins.values())


def refuse_two_recorders(
    options: Mapping[str, Any] | None, plugins: Mapping[str, Any]
) -> None:
    """Refuse the plugin ``cuda_graphs`` beside a compiler that records by itself.

    Raises:
        ConfigError: both would record the same work.
    """
    if options is None or not has_recorder(plugins):
        return
    mode, inductor = options.get("mode"), options.get("options") or {}
    if mode in RECORDING_MODES:
        said = f"compile.mode is {mode!r}"
    elif inductor.get(RECORDING_OPTION):
        said = f"compile.options has {RECORDING_OPTION!r}"
    else:
        return
    raise ConfigError(
        f"{said}, which records CUDA graphs itself; drop cuda_graphs, or use mode "
        "'default' or 'max-autotune-no-cudagraphs'"
    )


class Compile(BuiltIn):
    """Let the loop call a compiled model, around whatever plugins put it into."""

    name = "compile"
    is_last = True  # what others wrap is compiled with it

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)

    def wrap_model(self, model: nn.Module) -> nn.Module:
        """Return what is called instead of ``model``, which keeps its weights.

        Raises:
            ConfigError: it is compiled already, which torch would undo.
        """
        if "_orig_mod" in model._modules:
            raise ConfigError(
                f"compile is {self.options or True!r}, but the model is compiled "
                "already; pass it as it was before, or leave compile out"
            )
        return cast(nn.Module, torch.compile(model, **self.options))
