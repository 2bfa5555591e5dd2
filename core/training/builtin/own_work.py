"""Tell of code that does the trainer's work: goes backward, moves rates, clears.

Each looks at the first batches, and has taken itself off the window behind them.
"""

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
CLEARED = (
    "the gradients of the first batch were cleared before the second one of its "
    "window, by a hook, so that only the last batch of a window trains; leave "
    "zero_grad() out: the trainer calls it between two windows"
)


class OwnWork:
    """Sees whether gradients are there, or rates are others, behind a ``step_fn``.

    Args:
        window: has no batch yet.
    """

    def __init__(self, window: Window) -> None:
        self._window, self._forward = window, window.forward
        self._is_met = False
        window.forward, window.backward = self._compute, self._go_back  # type: ignore[method-assign]

    def _compute(self, *given: Any) -> Any:
        was_clear, rates = not has_gradients(self._window), self._rates()
        computed = self._forward(*given)
        self._is_met = was_clear and has_gradients(self._window)
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

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self._window.optimizer.param_groups]


class Cleared:
    """Sees whether the gradients of a first batch are there when a second one comes.

    Args:
        window: of several batches; has none yet. What watches its first one is there.
    """

    def __init__(self, window: Window) -> None:
        self._window, self._first = window, vars(window).get("backward")
        window.backward = self._go_back  # type: ignore[method-assign]

    def _go_back(self, batch: Any, weight: float) -> Tensor:
        window = self._window
        del window.backward
        if self._first is not None:
            window.backward = self._first  # type: ignore[method-assign]
        loss = window.backward(batch, weight)
        # Not where an optimizer that steps within backward has taken them.
        if has_gradients(window):
            window.backward = self._go_on  # type: ignore[method-assign]
        return loss

    def _go_on(self, batch: Any, weight: float) -> Tensor:
        window = self._window
        del window.backward
        if window.num_batches and not has_gradients(window):
            log.warning("%s", CLEARED)
        return window.backward(batch, weight)


def has_gradients(window: Window) -> bool:
    """Whether one would be added to; those that were set to 0 are none. A sync each."""
    groups = window.optimizer.param_groups
    found = [each.grad for group in groups for each in group["params"]]
    # On the meta device, where waits are counted, none has numbers to be 0.
    return any(
        each is not None and (each.is_meta or bool(each.norm() != 0)) for each in found
    )
