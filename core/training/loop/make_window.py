"""Which window a run uses: how far the host may run ahead of the device."""

from __future__ import annotations

import logging
from typing import Any

import torch

from training.errors import ConfigError, PluginError
from training.hardware import readback
from training.hardware.optimizer_kernels import prepare_momentum
from training.hardware.strategy import Strategy
from training.loop.deferred_window import NotedWindow, UnreadWindow
from training.loop.precision import Precision
from training.loop.single_window import SingleWindow
from training.loop.window import Window
from training.messages.error_texts import error_text

log = logging.getLogger(__name__)


def choose_window(
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    nonfinite: str,
    accumulation: int,
) -> type[Window]:
    """Return the class of the window of a run.

    It is ``Window`` where a read costs nothing, as on a CPU, or ``SingleWindow`` where
    each batch is a step there and no loss is scaled. Where a read would make the
    host wait it is ``UnreadWindow``, if the optimizer's kernel can be told on the
    device to do nothing (those with ``fused=True``), with parameters on one device and
    the policy ``"stop"``: a dropped window must be known before the next one, or the
    schedule would go wrong. Else it is ``NotedWindow``.

    Raises:
        ConfigError: gradients are turned off where the run begins.
    """
    if not torch.is_grad_enabled():
        raise ConfigError(
            "training begins where gradients are turned off (torch.no_grad, "
            "inference_mode or set_grad_enabled(False)); call train() outside of that"
        )
    # Before the choice: it may unfuse the optimizer.
    prepare_momentum(optimizer)
    if not readback.reads_wait(precision.device):
        is_single = accumulation == 1 and precision.scaler is None
        return SingleWindow if is_single else Window
    if (why := why_not_deferred(optimizer, nonfinite)) is None:
        return UnreadWindow
    log.warning("the host waits for the device once a step: %s", why)
    return NotedWindow


def made_window(owner: str, make: Any, *arguments: Any) -> Window:
    """Return the window that ``make``, a plugin's answer, makes of ``arguments``.

    Raises:
        PluginError: it makes none.
    """
    window = make(*arguments)
    if isinstance(window, Window):
        return window
    raise PluginError(
        f"plugin {owner!r} returned {make!r} from make_window, which makes no window; "
        "return a subclass of the default it is given, or None"
    )


def shared_window(window: Window, owner: str | None, strategy: Strategy) -> Window:
    """Return ``window``, which knows of the other processes, if there are any.

    It has then forgotten what the optimizer's own ``zero_grad`` forgets, and does so
    with each window.

    Args:
        window: of the run.
        owner: the plugin that has made it; None: the kernel.
        strategy: by which processes the run is computed.
    Raises:
        PluginError: its gradients would be those of this process alone.
    """
    needed = strategy.window
    if needed is None or isinstance(window, needed):
        _forget_more(window)
        return window
    others = f"the other {strategy.size - 1} of {strategy.size} processes"
    if owner is None:
        raise PluginError(
            f"no plugin has made the window of the run, which must be a "
            f"{needed.__name__} to know of {others}; let the plugin that has made the "
            "strategy answer make_window, too, and see whether it has failed"
        )
    raise PluginError(
        f"plugin {owner!r} has made the window of the run ({type(window).__name__}), "
        f"which knows nothing of {others}; let its make_window return None where "
        "trainer.world_size is not 1, or leave the plugin out"
    )


def why_not_deferred(optimizer: torch.optim.Optimizer, nonfinite: str) -> str | None:
    """Return what forbids an ``UnreadWindow`` in words, None if nothing does."""
    if nonfinite != "stop":
        return f"nonfinite is {nonfinite!r}, which must look at each step"
    # torch's own mark of a kernel that obeys ``found_inf``.
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        name = type(optimizer).__name__
        if "fused" not in optimizer.defaults:
            return f"{name} has no fused kernel; AdamW, Adam and SGD have"
        if any(group.get("dampening") for group in optimizer.param_groups):
            return f"{name} is not fused, which its dampening forbids"
        return f"{name} is not fused; build it with fused=True"
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    # One flag, read by the kernel on its own device.
    if len({parameter.device for parameter in parameters}) != 1:
        return "the parameters are on several devices"
    return None


def _forget_more(window: Window) -> None:
    """Let ``window`` call the ``zero_grad`` of an optimizer that has one of its own.

    It may keep gradients elsewhere, as those in fp32 of weights in bf16.

    Raises:
        ConfigError: it cannot be called where there are no gradients, as here.
    """
    optimizer = window.optimizer
    if type(optimizer).zero_grad is torch.optim.Optimizer.zero_grad:
        return
    forget = window.clear

    def clear() -> None:
        optimizer.zero_grad()  # while the gradients are there, as in anybody's loop
        forget()

    # On this window alone: all others have nothing to look up in each step.
    window.clear = clear  # type: ignore[method-assign]
    try:
        clear()
    except Exception as error:
        # Later it would end a run: at the first window that is dropped, at the latest.
        raise ConfigError(
            f"the zero_grad() of {type(optimizer).__name__} fails where no gradient is "
            f"there yet ({error_text(error)}); let it pass over parameters whose grad "
            "is None and need no argument, as torch's does, for it is called before "
            "the first window and after each, or leave it out"
        ) from error
