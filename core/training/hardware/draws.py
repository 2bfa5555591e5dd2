"""What hooks draw from the global generators, and what a run finds that goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from training.hardware.rng import load_rng_state, rng_state


class Draws:
    """The global generators as a checkpoint holds them.

    That is as they stand, but for what is drawn in an event that a run which goes on
    announces again, or shall not depend on. A place is where a run stands, as a value.

    Args:
        device: of the run.
        undrawn: puts back, too, what an evaluation draws from others than these.
    """

    def __init__(
        self,
        device: torch.device,
        undrawn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._device, self.undrawn = device, undrawn
        self._kept: dict[Any, dict[str, Any]] = {}  # place -> state

    def keep(self, place: Any) -> None:
        """Let who saves at ``place`` save the generators as they stand now."""
        self._kept = {place: rng_state(self._device)}

    def state(self, place: Any) -> dict[str, Any]:
        """Return what a checkpoint of ``place`` holds."""
        return self._kept.get(place) or rng_state(self._device)

    def end(self, place: Any) -> None:
        """Let who saves at ``place`` once the run has ended save what it does now."""
        self._kept = {place: self.state(place)}

    def restore(self, to_restore: Mapping[str, Any]) -> None:
        """Put the generators where a loaded run had them, if that is still to come."""
        if to_restore:
            load_rng_state(to_restore["rng"], self._device)

    @contextmanager
    def put_back(self, place: Any = None) -> Iterator[None]:
        """Let what is drawn inside move nothing, nor a checkpoint of ``place``."""
        drawn, kept = rng_state(self._device), self._kept
        self._kept = {place: drawn} | kept
        try:
            yield
        finally:
            self._kept = kept
            load_rng_state(drawn, self._device)
