"""What of a loaded checkpoint waits for the run that goes on, and when it is due."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from training.checkpoint.catch_up import CHANGED_BY_HOOKS, catch_up, switches
from training.checkpoint.optimizer_state import (
    counterparts,
    fitted,
    group_names,
    names_of,
)
from training.checkpoint.plugin_states import restore_states
from training.errors import CheckpointError
from training.loop.optimizer_kernels import keep_kernels

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

__all__ = ["Resumption"]


class Resumption:
    """The parts of a checkpoint that are taken over by the run, not on loading.

    On loading a person may look at weights (the loss's, too), counters, history,
    metrics and requests. All else waits here, and its order matters:

    1. before ``on_setup`` the optimizer's options as configured: what plugins build
       there, such as a schedule, begins with them (``show_configured``);
    2. after it the optimizer's state, by name, since a plugin may have let a group
       join; and the loss scaler (``take_over``);
    3. the states of plugins, which exist and are set up by now (``take_over``);
    4. what hooks of the saved run had changed: before ``on_epoch_begin`` between two
       epochs, after it inside of one, where it changes that again (``catch_up``);
    5. the loader at its batch, then the random generators, since making an iterator
       draws numbers. The loop does that; ``RunState.owed`` has them.

    Args:
        trainer: goes on.
        state: of the checkpoint; it must have been found to fit.
        source: the checkpoint, for messages.
    Attributes:
        parked: the parts that are still to be taken over; a checkpoint that is written
            meanwhile holds them as they are.
        is_taken: whether the optimizer and the plugins have their states.
    """

    def __init__(
        self, trainer: Checkpointable, state: Mapping[str, Any], source: str
    ) -> None:
        self._trainer = trainer
        self._source = source
        self._is_inside_epoch = bool(state["progress"]["batch"])
        self._names = state.get("optimizer", {}).get("names", ())
        self._before: dict[str, list[str]] | None = switches(trainer)
        parts = ("optimizer", "scaler", *CHANGED_BY_HOOKS)
        self.parked = {part: state[part] for part in parts if part in state}
        self.is_taken = False

    def show_configured(self) -> None:
        """Give the optimizer its options as configured, which an earlier run moved."""
        groups, own = self._trainer.optimizer.param_groups, self._configured
        for group, options in zip(groups, own, strict=False):
            for name in group.keys() - options.keys() - {"params"}:
                del group[name]  # such as the initial_lr of the saved run
            group.update(options)

    def take_over(self) -> None:
        """Give optimizer, loss scaler and plugins their states.

        Raises:
            CheckpointError: the optimizer does not take the saved state.
        """
        trainer = self._trainer
        saved = self.parked.pop("optimizer", None)
        scaler = self.parked.pop("scaler", None)
        if saved is not None:
            self._restore_optimizer(saved)
        if trainer.grad_scaler is not None and scaler:
            trainer.grad_scaler.load_state_dict(scaler)
        self.is_taken = True
        restore_states(trainer)

    def catch_up(self) -> None:
        """Put back, the first time, what hooks of the saved run had changed."""
        wanted = {p: self.parked.pop(p) for p in CHANGED_BY_HOOKS if p in self.parked}
        if self._before is not None:
            before, self._before = self._before, None
            catch_up(self._trainer, wanted, before, self._names, self._is_inside_epoch)

    @property
    def _configured(self) -> list[dict[str, Any]]:
        return self._trainer.configured_groups or []

    def _restore_optimizer(self, saved: Mapping[str, Any]) -> None:
        """Give each parameter its state; groups that are not there yet wait to join."""
        trainer = self._trainer
        try:
            names = names_of(trainer)
            own, left = fitted(saved, trainer.optimizer, names)
            trainer.optimizer.load_state_dict(own)
        except ValueError as error:
            raise CheckpointError(
                f"checkpoint {self._source!r} does not fit this optimizer ({error}); "
                "build it as it was, or load with weights_only=True"
            ) from error
        trainer.state.joining_groups[:] = left
        if "names" in saved:
            here = group_names(trainer.optimizer, names)
            trainer.state.group_places[:] = counterparts(here, saved["names"])
        keep_kernels(trainer.optimizer, self._configured)
