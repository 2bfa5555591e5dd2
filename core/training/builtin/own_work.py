"""Tell of a ``step_fn`` that goes backward by itself: the trainer does it once more."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from training.loop.window import Window
from training.messages.error_texts import add_note

log = logging.getLogger(__name__)

TWICE = (
    "step_fn called backward(); leave that out, unless it is of another loss than the "
    "one returned: the trainer goes backward from that, and the gradients are added up"
)


class OwnWork:
    """Sees whether gradients are there before the trainer goes backward from a batch.

    It looks at the first batch, and has taken itself off the window by its end.

    Args:
        window: has no batch yet.
    """

    def __init__(self, window: Window) -> None:
        self._window, self._forward = window, window.forward
        self._is_met = False
        window.forward, window.backward = self._compute, self._go_back  # type: ignore[method-assign]

    def _compute(self, *given: Any) -> Any:
        was_clear = not self._has_gradients()
        computed = self._forward(*given)
        self._is_met = was_clear and self._has_gradients()
        return computed

    def _go_back(self, batch: Any, weight: float) -> Tensor:
        window = self._window
        del window.backward
        try:
            loss = window.backward(batch, weight)
        except RuntimeError as error:
            if self._is_met:  # torch says only that the graph is gone
                add_note(error, TWICE)
            raise
        finally:
            window.forward = self._forward
        if self._is_met:
            log.warning("%s", TWICE)
        return loss

    def _has_gradients(self) -> bool:
        """Whether one would be added to; those that were set to 0 are none."""
        groups = self._window.optimizer.param_groups
        found = [each.grad for group in groups for each in group["params"]]
        return any(each is not None and bool(each.norm() != 0) for each in found)
