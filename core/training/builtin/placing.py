"""Ask plugins for a strategy, let it place the model, and wrap what they wrap."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from training.errors import PluginError
from training.hardware.strategy import Strategy, require_alone
from training.messages.error_texts import add_note, notes_of
from training.view import TrainerView

log = logging.getLogger(__name__)


def may_divide(plugin: Any) -> bool:
    """Whether a plugin may divide the run among several processes."""
    return hasattr(plugin, "make_strategy")


def chosen_strategy(trainer: TrainerView) -> Strategy:
    """Return the first answer of a plugin, else the strategy for one process.

    From here on the bus calls what this process is to call.

    Raises:
        PluginError: a plugin answers with something else, or reads what is made with
            the strategy's help; names it.
        ConfigError: nobody answers, and this is not the only process.
    """
    try:
        chosen: Strategy | None = trainer.bus.first(
            "make_strategy", lambda _, answer: answer, trainer=trainer
        )
    except AttributeError as error:
        if error.obj is not trainer or error.name not in ("_strategy", "_run"):
            raise
        early = PluginError(
            "make_strategy reads of the trainer what there is only once it has "
            "answered, such as rank and step; read settings, model, optimizer and "
            "plugins there, and the rest in on_setup"
        )
        for note in notes_of(error):
            add_note(early, note)  # whose it is
        raise early from error
    if chosen is None:
        require_alone()
        return Strategy()
    if chosen.size != 1:
        trainer.bus.set_distributed(chosen.is_main)
    return chosen


def placed(
    strategy: Strategy,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    wanted: torch.device,
) -> torch.device:
    """Let ``strategy`` put ``model`` where it trains; return the device.

    Raises:
        PluginError: it answers with no device, or with another model, or it is none
            of the processes that it counts.
    """
    kind = type(strategy).__name__
    rank, size = strategy.rank, strategy.size
    if not (type(rank) is type(size) is int and 0 <= rank < size):
        raise PluginError(
            f"{kind} has the rank {rank!r} of size {size!r}; use whole numbers, the "
            "rank from 0 and below the size"
        )
    device: Any = strategy.choose_device(wanted)
    if not isinstance(device, torch.device):
        raise PluginError(
            f"{kind}.choose_device returned {device!r}; return a torch.device"
        )
    answer: Any = strategy.place(model, optimizer, device)
    if answer is not model:
        raise PluginError(
            f"{kind}.place returned {type(answer).__name__} in place of the model; "
            "return the model itself, and put wrappers around it in wrap_model"
        )
    return device


def wrapped_module(trainer: TrainerView) -> nn.Module:
    """Return the model in what plugins wrap around it, one around the other.

    Raises:
        PluginError: what one returned is no module.
    """

    def note(name: str, module: nn.Module, wrapped: nn.Module) -> None:
        inner, outer = type(module).__name__, type(wrapped).__name__
        log.info("plugin %r puts %s into %s", name, inner, outer)

    module: nn.Module = trainer.bus.chain(
        "wrap_model", "model", note, trainer=trainer, model=trainer.model
    )
    return module
