"""What a run counts."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from training.loop.window_result import PartSums


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
        decided: step of the latest evaluation at an epoch's end, or at ``max_steps``
            inside one, that decisions count; -1: the latest was an extra one.
        served: whether requests were served at the boundary at hand, in an epoch.
        part_sums: as ``loss_sum`` and ``weight_sum``, of each part of the loss, over
            the epoch's batches that had it; replaced, never changed.
    """

    epoch: int = 0
    step: int = 0
    update: int = 0
    batch: int = 0
    # On the device where the loss is: adding up there waits for nothing.
    loss_sum: float | torch.Tensor = 0.0
    weight_sum: float = 0.0
    skipped_windows: int = 0
    nonfinite_windows: int = 0
    lr: float = 0.0
    decided: int = -1
    served: bool = False
    part_sums: PartSums = field(default_factory=dict)

    @property
    def place(self) -> tuple[int, int]:
        """Where the run stands: completed epochs, and batches of the one at hand."""
        return self.epoch, self.batch

    def state_dict(self) -> dict[str, Any]:
        """Return the counters by name; reads the loss and its parts from the device."""
        parts = {name: [float(s), n] for name, (s, n) in self.part_sums.items()}
        # An epoch's begin is announced anew, and served.
        served = self.served and self.batch > 0
        own = {"loss_sum": float(self.loss_sum), "part_sums": parts, "served": served}
        return {**asdict(self), **own}

    def means(self) -> dict[str, float]:
        """Return the epoch's mean loss, NaN of no item, and that of each part.

        By the names of metrics. Reads each from the device.
        """
        loss = float(self.loss_sum) / self.weight_sum if self.weight_sum else math.nan
        parts = {f"train_{k}": float(s) / n for k, (s, n) in self.part_sums.items()}
        return {"train_loss": loss, **parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over counters; names that this version does not know are ignored."""
        for each in fields(self):
            # By name: files of other releases have more of them, or fewer.
            if each.name in state:
                setattr(self, each.name, state[each.name])

    def end_epoch(self) -> None:
        """Count a whole epoch, and begin the next one with empty sums."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.loss_sum, self.weight_sum, self.part_sums = 0.0, 0.0, {}

    def count(self, applied: bool) -> None:
        """Count an attempt, by whether it changed the weights."""
        if applied:
            self.update += 1
        else:
            self.skipped_windows += 1

    def roll_back(self, to: Progress) -> None:
        """Take over all counters of an earlier moment."""
        for each in fields(self):
            setattr(self, each.name, getattr(to, each.name))
