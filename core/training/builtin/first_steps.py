"""Tell of a run whose loss moves no weight of the optimizer in its first steps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from training.builtin.own_work import Cleared, OwnWork
from training.builtin.packed_rows import PackedRows
from training.checkpoint.trained import optimizers_of_plugins
from training.loop.window import Window
from training.loop.window_result import WindowResult

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

log = logging.getLogger(__name__)


def watched(window: Window, trainer: Checkpointable) -> Window:
    """Return ``window``, which tells where the loss moves no weight, or moves it twice.

    Not where another optimizer is stepped, too: it may have the first windows alone.
    And it tells of texts that share a row and see each other, and of gradients that are
    cleared inside a window.
    """
    own, others = trainer.optimizer.param_groups, trainer.criterion.optimizers.values()
    every = [*others, *optimizers_of_plugins(trainer)]
    if all(each.param_groups is own for each in every):
        _FirstSteps(window, trainer.criterion.name)
        if trainer.state.weigher.has_step:
            OwnWork(window)
    if not trainer.state.weigher.has_step:  # else it calls the model as it likes
        PackedRows(window, trainer.model)
    if window.accumulation > 1:
        Cleared(window)
    return window


class _FirstSteps:
    """Sees that gradients arrive in the first windows; later ones know nothing of it.

    An optimizer may step within backward, or keep gradients elsewhere. So where the
    first window leaves none, hooks listen in the second one; what is there behind
    backward and not at the step was cleared.
    """

    def __init__(self, window: Window, name: str) -> None:
        self._window, self._name = window, name
        self._is_met = self._is_second = self._is_there = False
        window.step = self._step  # type: ignore[method-assign]

    def _step(self, before_step: Callable[[], None] | None = None) -> WindowResult:
        """Step as the window does; look when a plugin has had its turn."""
        window = self._window
        step = type(window).step
        if window._bad_loss or not window._weight_sum:  # nothing went backward
            return step(window, before_step)
        if before_step is None:
            self._look()
            return step(window)

        def then_look() -> None:
            before_step()
            self._look()

        return step(window, then_look)

    def _look(self) -> None:
        window, parameters = self._window, self._trained()
        has_any = any(each.grad is not None for each in parameters)
        is_met = self._is_met or has_any or not parameters
        if not (is_met or self._is_second):
            self._is_second = True
            window.backward = self._listen  # type: ignore[method-assign]
            return
        del window.step
        if self._is_there and not has_any:
            log.warning(
                "the gradients of the first two steps were cleared between backward "
                "and step, by a hook, so that the optimizer found none; leave "
                "zero_grad() out: the trainer calls it between two windows"
            )
        elif not is_met:
            log.warning(
                "the loss (%s) gave no parameter of the optimizer a gradient in the "
                "first two steps; if they are to be trained from the beginning, use "
                "the model that is passed to it, not a variable that may hold another "
                "one by now",
                self._name,
            )

    def _listen(self, batch: Any, weight: float) -> Tensor:
        """Go backward for the first time in the second window."""
        window = self._window
        del window.backward
        handles = [p.register_hook(self._meet) for p in self._trained()]
        try:
            return window.backward(batch, weight)
        finally:
            # Not where an optimizer that steps within backward has had its turn.
            self._is_there = any(each.grad is not None for each in self._trained())
            for handle in handles:
                handle.remove()

    def _meet(self, _gradient: Tensor) -> None:
        self._is_met = True

    def _trained(self) -> list[Any]:
        groups = self._window.optimizer.param_groups
        return [p for group in groups for p in group["params"] if p.requires_grad]
