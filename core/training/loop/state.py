"""What a run counts, and the random generators it draws from."""

from __future__ import annotations

import random
import sys
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch


@dataclass(slots=True)
class Progress:
    """The counters of a run; at a boundary they are all it takes to go on.

    Attributes:
        epoch: completed epochs.
        step: attempted updates (windows); the x-axis of logs.
        update: applied updates; what an LR schedule counts.
        batch: batches of the current epoch that are in a finished window.
        loss_sum: sum over the epoch's batches of mean loss times weight.
        weight_sum: sum of those weights.
        skipped_windows: windows without an update: overflow, zero weight, non-finite.
        nonfinite_windows: those among them with a non-finite loss or gradient.
        lr: learning rate of the latest window, of the first parameter group.
    """

    epoch: int = 0
    step: int = 0
    update: int = 0
    batch: int = 0
    loss_sum: float | torch.Tensor = 0.0
    weight_sum: float = 0.0
    skipped_windows: int = 0
    nonfinite_windows: int = 0
    lr: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the counters by name; reads the loss from the device."""
        return {**asdict(self), "loss_sum": float(self.loss_sum)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over counters; names that this version does not know are ignored."""
        for field in fields(self):
            if field.name in state:
                setattr(self, field.name, state[field.name])


@dataclass(frozen=True, slots=True)
class Request:
    """What a plugin asked for, kept for the history.

    Attributes:
        kind: ``"stop"``, ``"checkpoint"`` or ``"evaluation"``.
        owner: the name of the plugin that asked; ``"user"`` for anybody else.
        reason: its words.
        step: ``trainer.step`` when it asked.
        epoch: ``trainer.epoch`` when it asked.
    """

    kind: str
    owner: str
    reason: str
    step: int
    epoch: int


def seed_everything(seed: int) -> None:
    """Seed python, numpy (if it is loaded) and torch, on every device."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state(device: torch.device | None = None) -> dict[str, Any]:
    """Return the state of every global generator as tensors and JSON values.

    Args:
        device: of the run; on a card its generator is kept, and no other card's.
    """
    version, words, gauss = random.getstate()
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "torch": torch.get_rng_state(),
    }
    if "numpy" in sys.modules:
        kind, keys, *rest = sys.modules["numpy"].random.get_state()
        state["numpy"] = [kind, [int(key) for key in keys], *rest]
    if device is not None and device.type == "cuda":
        state["cuda"] = [torch.cuda.get_rng_state(device)]
    return state


def load_rng_state(state: dict[str, Any], device: torch.device | None = None) -> None:
    """Put every global generator where ``rng_state`` found it.

    Args:
        state: an earlier release kept those of all cards of its machine; then the one
            of this run's card counts, else the first.
        device: of the run.
    """
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    torch.set_rng_state(state["torch"])
    if "numpy" in state:
        import numpy as np

        kind, keys, *rest = state["numpy"]
        np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    cards = state.get("cuda")
    if cards and device is not None and device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.set_rng_state(cards[index if index < len(cards) else 0], device)
