"""Choose the device of a run, and move modules to it."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn

from training.errors import ConfigError


def choose_device(
    device: str | torch.device | None, place: str = "device"
) -> torch.device:
    """Return the device that is meant: CUDA when there is one, for ``None``.

    Args:
        device: as it was named, at ``place``, for the message.
        place: the argument or setting.
    Raises:
        ConfigError: the text names no device, or one that is not there.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = named_device(device, place)
    if chosen.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= found:
            raise ConfigError(
                f"{place} is {str(device)!r}, but PyTorch sees {found} CUDA devices; "
                "use 'cpu', or leave it out to take what there is"
            )
    elif chosen.type == "meta" or (chosen.type == "cpu" and chosen.index):
        raise ConfigError(
            f"{place} is {str(device)!r}, which is none to train on; use "
            "'cpu', 'cuda' or 'cuda:N', or leave it out"
        )
    elif chosen.type != "cpu":
        _require(chosen, place)
    return chosen


def named_device(device: str | torch.device, place: str = "device") -> torch.device:
    """Return the device that is named at ``place``, whether it is there or not.

    Raises:
        ConfigError: the text names no device.
    """
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            f"{place} is {device!r}; use 'cpu', 'cuda' or 'cuda:N', or leave it out"
        ) from error


def move(module: nn.Module, device: torch.device, part: str) -> None:
    """Move a module in place.

    Args:
        module: the model, or that of the loss.
        device: of the run.
        part: its name, for the message.
    Raises:
        ConfigError: one of its tensors has a shape and no numbers.
    """
    if device.type != "meta":  # on which tests count what a run would wait for
        for name, each in chain(module.named_parameters(), module.named_buffers()):
            if each.is_meta:
                raise ConfigError(
                    f"{part}.{name} is on the device 'meta', where it has a shape and "
                    "no numbers to train; build it on another one, or call to_empty() "
                    "and give it its numbers"
                )
    module.to(device)


def _require(device: torch.device, place: str) -> None:
    """Refuse a device of another kind that this build of torch cannot use."""
    try:
        torch.empty(0, device=device)
    except Exception as error:  # each kind has errors of its own
        raise ConfigError(
            f"{place} is {str(device)!r}, which PyTorch cannot use here; use 'cpu', "
            "'cuda' or 'cuda:N', or leave it out"
        ) from error
