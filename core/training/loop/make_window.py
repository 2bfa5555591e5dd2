"""Which window a run uses: how far the host may run ahead of the device."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from training.errors import PluginError
from training.hardware import readback
from training.loop import recording
from training.loop.deferred_window import UnreadWindow
from training.loop.graphed_window import GraphedWindow
from training.loop.optimizer_kernels import prepare_momentum
from training.loop.precision import Precision
from training.loop.window import Window

log = logging.getLogger(__name__)


def choose_window(
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    nonfinite: str,
    cuda_graphs: bool = False,
    is_wrapped: bool = False,
) -> Callable[..., Window]:
    """Return what makes the window of a run from ``Window``'s arguments.

    It is ``UnreadWindow`` where reads would make the host wait and the optimizer's
    kernel can be told on the device to do nothing (those with ``fused=True``), with
    parameters on one device and the policy ``"stop"``: a dropped window must be known
    before the next one, or the schedule would go wrong. It is ``GraphedWindow`` where
    that holds, ``cuda_graphs`` asks for it, and nothing of ``_why_no_graphs`` forbids.
    """
    prepare_momentum(optimizer)
    cannot_defer = _why_not_deferred(optimizer, nonfinite)
    waits = readback.reads_wait(precision.device)
    kind = UnreadWindow if waits and cannot_defer is None else Window
    if not cuda_graphs:
        return kind
    recorder = recording.recorder_for(precision.device)
    why = cannot_defer or _why_no_graphs(optimizer, precision, is_wrapped)
    if recorder is not None and why is None:
        return partial(GraphedWindow, recorder=recorder)
    log.warning(
        "cuda_graphs is on, but %s; steps run without it",
        why or f"a {precision.device.type} device records nothing",
    )
    return kind


def made_window(owner: str, make: Any, *arguments: Any) -> Window:
    """Return the window that ``make`` makes of ``arguments``.

    Args:
        owner: name of the plugin that was asked.
        make: what it returned from ``make_window``.
        arguments: those of ``Window``.
    Raises:
        PluginError: it makes none.
    """
    window = make(*arguments) if callable(make) else None
    if isinstance(window, Window):
        return window
    raise PluginError(
        f"plugin {owner!r} returned {make!r} from make_window, which makes no window; "
        "return a subclass of training.plugin.Window, or None"
    )


def _why_not_deferred(optimizer: torch.optim.Optimizer, nonfinite: str) -> str | None:
    if nonfinite != "stop":
        return f"nonfinite is {nonfinite!r}, which must look at each step"
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        return f"{type(optimizer).__name__} is not fused; build it with fused=True"
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if len({parameter.device for parameter in parameters}) != 1:
        return "the parameters are on several devices"
    return None


def _why_no_graphs(
    optimizer: Any, precision: Precision, is_wrapped: bool
) -> str | None:
    if precision.scaler is not None:
        return "precision is 'fp16', whose loss scale decides on each step"
    if is_wrapped:
        return "a plugin wraps the model, and what wrappers do is not recorded"
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return "the optimizer has step hooks, which a replay would not call"
    if any(isinstance(group["lr"], Tensor) for group in optimizer.param_groups):
        return "the optimizer's lr is a tensor; use a number"
    return None
