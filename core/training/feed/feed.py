"""The batches of a run, epoch by epoch, and the position in them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from training.feed.batches import Arrived, device_batches
from training.feed.epoch_loader import EpochLoader
from training.feed.workers import Watched

log = logging.getLogger(__name__)


class Feed:
    """Gives out an epoch's batches on the device.

    Args:
        order: the loader, in the order that (seed, epoch) decides.
        device: where batches go.
        promised: batches of an epoch, by which the run was planned; None: unknown.
    """

    def __init__(
        self, order: EpochLoader, device: torch.device, promised: int | None
    ) -> None:
        self._order = order
        self._device = device
        self._promised = promised
        self._is_inside = False  # of an epoch, whose end is not announced

    @property
    def reading(self) -> Any:
        """The loader that is iterated, which may be a copy of the one passed."""
        return self._order.reading

    @property
    def watched(self) -> Watched | None:
        """The batches of the current epoch, where they come from indices."""
        return self._order.watched

    def start(
        self, epoch: int, skip: int, saved: Mapping[str, Any]
    ) -> Iterator[Arrived]:
        """Return the batches of ``epoch`` without the first ``skip``.

        The iterator stands when this returns; making it draws random numbers.

        Args:
            epoch: completed epochs before this one.
            skip: batches to leave out.
            saved: of a resumed run, what ``data_state()`` was as ``data``,
                and ``loader_state(skip)`` as ``loader``.
        """
        # Before the states are read: a resumed run puts the saved ones in there.
        batches = self._order.start(epoch, skip, saved.get("data"), saved.get("loader"))
        self._is_inside = True
        # A generator: nothing is copied to the device before the loop asks.
        return device_batches(batches, self._device, self._order)

    def end_epoch(self, batches: int) -> None:
        """Note that the epoch is complete, with so many ``batches``."""
        self._is_inside = False
        if batches != (self._promised or batches):
            log.warning(
                "batches an epoch: train_dataloader said %d and gave %d; schedules and "
                "totals go by what it said as the run was set up; let its len() be "
                "right, or pass max_steps, which holds where epochs differ, too",
                *(self._promised, batches),
            )
            self._promised = None  # once is enough

    def end(self, kills: bool) -> None:
        """Let go of what reads the epoch at hand.

        Args:
            kills: its workers; else they end by themselves (see ``Watched.end``).
        """
        order, watched = self._order, self.watched
        if kills:
            from training.feed.lost_workers import kill_workers  # in a run that fails

            kill_workers(order.unwatched)
        order.unwatched = None
        if watched is not None:
            watched.end(kills)

    def reopen_epoch(self) -> None:
        """Note that the run leaves before the end of the epoch was announced."""
        self._is_inside = True

    def data_state(self) -> list[Tensor]:
        """States of the user's generators that the next batch needs at this boundary.

        Its epoch draws its order once, so inside of it they are those it began with;
        between two epochs they count as they are.
        """
        order = self._order
        return order.epoch_state if self._is_inside else order.generator_states()

    def loader_state(self, batch: int) -> Any:
        """Return the loader's own state at ``batch``, None if it has none."""
        return self._order.loader_state(batch)
