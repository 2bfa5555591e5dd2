"""Tell of a run whose loss moves no weight of the optimizer, or each one twice."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from training.loop.window import Window
from training.loop.window_result import WindowResult
from training.messages.error_texts import add_note
from training.modules.reachable import held_in

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

log = logging.getLogger(__name__)

TWICE = (
    "step_fn called backward(); leave that out, unless it is of another loss than the "
    "one returned: the trainer goes backward from that, and the gradients are added up"
)


def watched(window: Window, trainer: Checkpointable) -> Window:
    """Return ``window``, which tells where the loss moves no weight, or moves it twice.

    Not where another optimizer is stepped, too: it may have the first windows alone.
    """
    own = trainer.optimizer.param_groups
    kept = [getattr(each, "__dict__", {}) for each in trainer.plugins.values()]
    found = [
        each for part in kept for value in part.values() for each in held_in(value)
    ]
    others = [*trainer.criterion.optimizers.values(), *(each for _, each in found)]
    if not any(
        isinstance(each, torch.optim.Optimizer) and each.param_groups is not own
        for each in others
    ):
        first = _FirstSteps(window, trainer.criterion.name)
        window.step = first.step  # type: ignore[method-assign]
        if trainer.state.weigher.has_step:
            first.watch_step_fn()
    return window


class _FirstSteps:
    """Sees that gradients arrive in the first windows; later ones know nothing of it.

    An optimizer may step within backward, or keep gradients elsewhere. So where the
    first window leaves none, hooks listen in the second one. Those that come before the
    trainer goes backward are a ``step_fn``'s own, which it may mean or not.
    """

    def __init__(self, window: Window, name: str) -> None:
        self._window, self._name = window, name
        self._is_met = self._is_second = self._is_twice = False
        self._forward = window.forward

    def watch_step_fn(self) -> None:
        """See whether it goes backward by itself, until the first step."""
        window = self._window
        window.forward, window.backward = self._compute, self._go_back  # type: ignore[method-assign]

    def _compute(self, *given: Any) -> Any:
        before = self._gradients()
        computed = self._forward(*given)
        self._is_twice |= self._gradients() != before
        return computed

    def _go_back(self, batch: Any, weight: float) -> Tensor:
        window = self._window
        try:
            return type(window).backward(window, batch, weight)
        except RuntimeError as error:
            if self._is_twice:  # the graph is gone, in torch's words alone
                add_note(error, TWICE)
            raise

    def _gradients(self) -> list[tuple[int, int]]:
        """Return what is another one once a gradient was set, or added to."""
        found = [each.grad for each in self._trained()]
        return [(id(each), each._version) for each in found if each is not None]

    def step(self, before_step: Callable[[], None] | None = None) -> WindowResult:
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
        if window.forward == self._compute:
            window.forward = self._forward
            del window.backward
            if self._is_twice:
                log.warning("%s", TWICE)
        is_met = self._is_met or not parameters
        is_met = is_met or any(each.grad is not None for each in parameters)
        if not (is_met or self._is_second):
            self._is_second = True
            window.backward = self._listen  # type: ignore[method-assign]
            return
        del window.step
        if not is_met:
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
            for handle in handles:
                handle.remove()

    def _meet(self, _gradient: Tensor) -> None:
        self._is_met = True

    def _trained(self) -> list[Any]:
        groups = self._window.optimizer.param_groups
        return [p for group in groups for p in group["params"] if p.requires_grad]
