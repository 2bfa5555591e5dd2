"""Tell of a ``step_fn`` that does the trainer's work: goes backward, moves rates."""

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
RATES = (
    "step_fn changed a learning rate, as scheduler.step() does; leave that out, unless "
    "it is a function of trainer.step: step_fn is called once a batch, to evaluate and "
    "to measure, too, and no checkpoint has its scheduler; pass it as scheduler=..."
)


class OwnWork:
    """Sees whether gradients are there, or rates are others, behind a ``step_fn``.

    It looks at the first batch, and has taken itself off the window by its end.

    Args:
        window: has no batch yet.
    """

    def __init__(self, window: Window) -> None:
        self._window, self._forward = window, window.forward
        self._is_met = False
        window.forward, window.backward = self._compute, self._go_back  # type: ignore[method-assign]

    def _compute(self, *given: Any) -> Any:
        was_clear, rates = not self._has_gradients(), self._rates()
        computed = self._forward(*given)
        self._is_met = was_clear and self._has_gradients()
        if self._rates() != rates:
            log.warning("%s", RATES)
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

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self._window.optimizer.param_groups]
