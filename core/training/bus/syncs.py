"""Count how often a plugin makes the CPU wait for a CUDA device."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from training.bus.meter import Meter

#: What torch warns of in its mode "warn"; it does not see every kind of waiting.
WARNING = "called a synchronizing CUDA operation"


@contextmanager
def counting_syncs(meter: Meter, device: torch.device) -> Iterator[None]:
    """Book torch's warnings about synchronisations to the plugin that is running.

    Args:
        meter: accounts for the calls; those outside of plugins are not counted.
        device: where the run is; nothing is switched on for a CPU.
    """
    is_cuda = device.type == "cuda"
    before = torch.cuda.get_sync_debug_mode() if is_cuda else 0
    with warnings.catch_warnings():
        show = warnings.showwarning

        def count(message: Any, *arguments: Any, **named: Any) -> None:
            if WARNING in str(message):
                meter.note_sync()
            else:
                show(message, *arguments, **named)

        # Every one: by default a line of code is heard once.
        warnings.filterwarnings("always", message=f".*{WARNING}")
        # What torch says of the mode itself.
        warnings.filterwarnings("ignore", message=".*Synchronization debug mode")
        warnings.showwarning = count
        try:
            if is_cuda:
                torch.cuda.set_sync_debug_mode("warn")
            yield
        finally:
            if is_cuda:
                torch.cuda.set_sync_debug_mode(before)
