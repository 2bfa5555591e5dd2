"""Choose the device of a run."""

from __future__ import annotations

import torch

from training.errors import ConfigError


def choose_device(device: str | torch.device | None) -> torch.device:
    """Return the device that is meant: CUDA when there is one, for ``None``.

    Raises:
        ConfigError: the text names no device, or a CUDA device that is not there.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            f"device is {device!r}; use 'cpu', 'cuda', 'cuda:N' or None to choose"
        ) from error
    if chosen.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= found:
            raise ConfigError(
                f"device is {str(device)!r}, but PyTorch sees {found} CUDA devices; "
                "use 'cpu', or None to take what there is"
            )
    return chosen
