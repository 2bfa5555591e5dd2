"""What of a loaded checkpoint waits for the run that goes on, and when it is due."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training.checkpoint.catch_up import (
    CHANGED_BY_HOOKS,
    catch_up,
    restore_groups,
    switches,
)
from training.checkpoint.optimizer_settings import origins
from training.checkpoint.optimizer_state import (
    SavedGroup,
    configured_names,
    counterparts,
    group_names,
    kept_options,
    names_of,
    options_of,
)
from training.checkpoint.plugin_states import restore_states
from training.errors import CheckpointError
from training.hardware.optimizer_kernels import keep_kernels
from training.modules.optimizer_checks import PARAMETERS

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable
    from training.checkpoint.comparison import Comparison


class Resumption:
    """The parts of a checkpoint that are taken over by the run, not on loading.

    On loading a person may look at weights (the loss's, too), the optimizer, counters,
    history, metrics and requests. All else waits here, and its order matters:

    1. before ``on_setup`` the optimizer's options as configured: what plugins build
       there, such as a schedule, begins with them (``show_configured``);
    2. after it the options that were loaded, all that is saved of groups that a plugin
       has let join again, and the loss scaler (``take_over``);
    3. the states of plugins, which exist and are set up by now (``take_over``); of one
       that another registers later, as it is registered (``give_to``);
    4. what hooks of the saved run had changed: before ``on_epoch_begin`` between two
       epochs, after it inside of one, where it changes that again (``catch_up``);
    5. the loader at its batch, then the random generators, since making an iterator
       draws numbers. The loop does that; ``RunState.to_restore`` has them.

    Args:
        trainer: goes on; its optimizer has loaded its state.
        state: of the checkpoint.
        comparison: of the run with the checkpoint.
    Attributes:
        parked: the parts that are still to be taken over; a checkpoint that is written
            meanwhile holds them as they are.
        is_taken: whether the optimizer and the plugins have their states.
    """

    def __init__(
        self,
        trainer: Checkpointable,
        state: Mapping[str, Any],
        comparison: Comparison,
    ) -> None:
        self._trainer = trainer
        self._comparison = comparison
        self._is_inside_epoch = bool(state["progress"]["batch"])
        self._names = state.get("optimizer", {}).get("names", ())
        self._origins = origins(state) if self._names else []
        # Renewed by ``check``: what hooks switch from there on is told apart by it.
        self._before: dict[str, list[str]] | None = switches(trainer)
        parts = ("optimizer", "scaler", "weights_are", *CHANGED_BY_HOOKS)
        self.parked = {part: state[part] for part in parts if part in state}
        self.parked["settings"] = comparison.waiting()
        # As loaded: plugins see the configured ones meanwhile.
        self._options = options_of(trainer.optimizer)
        self.is_taken = False

    def check(self) -> None:
        """Refuse what was changed since loading and would be lost, or another run.

        Raises:
            CheckpointError: a setting, a part of the trainer, or an option of the
                optimizer is another one; says which.
        """
        self._comparison.again()
        # What a person has switched since then is no doing of a hook.
        self._before = switches(self._trainer)
        now = options_of(self._trainer.optimizer)
        for was, group in zip(self._options, now, strict=False):
            for name in was.keys() & group.keys():
                if was[name] != group[name]:
                    raise CheckpointError(
                        f"optimizer.{name} was {was[name]} when the checkpoint was "
                        f"loaded, is {group[name]}, and the loaded one would hold: "
                        "build the optimizer with the new one and load with "
                        f"allow_changes=['optimizer.{name}']"
                    )

    @property
    def has_gone_on(self) -> bool:
        """Whether the run went on from where the checkpoint had left it."""
        return self._before is None

    def show_configured(self) -> None:
        """Give the optimizer its options as configured, which an earlier run moved."""
        self._give_options(self._configured)

    def take_over(self) -> None:
        """Give optimizer, loss scaler and plugins what is theirs.

        Raises:
            CheckpointError: a hook has set what the saved run was not set up with.
        """
        self._comparison.compare_after_setup()
        trainer = self._trainer
        if self.parked.pop("optimizer", None) is not None:
            self._give_options(self._options)
            self._restore_joined()
            self._note_places()
            # Last: the loaded options name the kernels of the saved run.
            keep_kernels(trainer.optimizer, self._configured)
        for part in ("weights_are", "settings"):  # from here on they are this run's
            self.parked.pop(part, None)
        scaler = self.parked.pop("scaler", None)
        if trainer.grad_scaler is not None and scaler:
            trainer.grad_scaler.load_state_dict(scaler)
        self.is_taken = True
        # Last: a plugin may look at the optimizer as it is given its state.
        restore_states(trainer)

    def give_to(self, joined: Collection[str]) -> None:
        """Give plugins their states that another one has registered meanwhile."""
        if self.is_taken:  # else they are among those that exist by then
            restore_states(self._trainer, joined)

    def catch_up(self) -> None:
        """Put back, the first time, what hooks of the saved run had changed."""
        # No longer parked: a checkpoint from now on holds what is in place.
        wanted = {p: self.parked.pop(p) for p in CHANGED_BY_HOOKS if p in self.parked}
        if self._before is not None:
            before, self._before = self._before, None
            catch_up(self._trainer, wanted, before, self._names, self._is_inside_epoch)

    @property
    def _configured(self) -> list[dict[str, Any]]:
        return self._trainer.configured_groups or []

    def _give_options(self, given: Sequence[Mapping[str, Any]]) -> None:
        groups = self._trainer.optimizer.param_groups
        # Not strict: groups that join later were neither configured nor loaded.
        for group, options in zip(groups, given, strict=False):
            # Which parameters are in it by now, and their names, is no option.
            for name in group.keys() - options.keys() - set(PARAMETERS):
                del group[name]  # such as the initial_lr of a schedule
            kept = kept_options(options)
            group.update({n: v for n, v in kept.items() if n not in PARAMETERS})

    def _restore_joined(self) -> None:
        """Give groups that have joined again by now what was saved of them."""
        names, optimizer = names_of(self._trainer), self._trainer.optimizer
        joining = self._trainer.state.joining_groups
        own = group_names(optimizer.param_groups, names)
        here: list[SavedGroup] = []
        still_to_join: list[SavedGroup] = []
        for group in joining:
            is_here = group.options and counterparts([group.names], own) != [None]
            (here if is_here else still_to_join).append(group)
        if here:
            restore_groups(optimizer, names, here)
            joining[:] = still_to_join

    def _note_places(self) -> None:
        """Note where each group stood in the checkpoint, which a schedule goes by."""
        if self._names:
            places = counterparts(configured_names(self._trainer), self._origins)
            self._trainer.state.group_places[:] = places
