"""Compare the settings of a checkpoint with those of the run that goes on from it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from training.checkpoint.catch_up import CHANGED_BY_HOOKS
from training.checkpoint.optimizer_settings import (
    GROUPS,
    aligned,
    without_scheduled_options,
)
from training.checkpoint.optimizer_state import SavedGroup, saved_groups
from training.checkpoint.settings import (
    BEGUN_WITH,
    DESCRIPTION,
    Change,
    check_names,
    decided_at_setup,
    described_otherwise,
    differences,
    require_consent,
    settings_of,
    setup_settings,
)
from training.errors import CheckpointError
from training.plain import plain

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

log = logging.getLogger(__name__)

#: A change of these makes a position inside an epoch another; samples are counted.
POSITION_MOVES = {
    *("dataset", "dataset_length", "sampler"),
    *("batch_size", "drop_last", "batches_per_epoch"),
}


class Comparison:
    """A checkpoint beside the run that goes on from it: on loading, and at ``train``.

    Args:
        trainer: whose settings are compared.
        state: of the checkpoint.
        source: its name, for messages.
        allowed: names of settings that may differ.
        notes: of saved settings, by name.
    Attributes:
        own: the settings of the run on loading.
        changes: what differed then, all of it consented to.
    Raises:
        CheckpointError: the run differs where nobody consented.
    """

    def __init__(
        self,
        trainer: Checkpointable,
        state: Mapping[str, Any],
        source: str,
        allowed: Collection[str],
        notes: Mapping[str, str],
    ) -> None:
        self._trainer, self._source, self._allowed = trainer, source, allowed
        self._notes = notes
        self._saved, self._joined = state["settings"], _joined(state)
        self._plugins = state.get("distributions", {})
        self._metadata = state.get("metadata", {})
        self._is_inside_epoch = bool(state["progress"]["batch"])
        self._filled = trainer.optimizer
        self.own = self._settings()
        self.changes = self._consented(self.own)

    def again(self) -> None:
        """Compare anew, since settings can be set between loading and training.

        Raises:
            CheckpointError: what is set now would have been refused on loading, or
                what was loaded is in another optimizer or loader.
        """
        if self._trainer.optimizer is not self._filled:
            raise CheckpointError(
                f"trainer.optimizer was replaced after checkpoint {self._source!r} was "
                "loaded into the earlier one; load it again"
            )
        own = self._settings()
        self._consented(own)
        moved = [c for c in differences(self.own, own) if c.name in POSITION_MOVES]
        if moved and self._is_inside_epoch:
            raise CheckpointError(
                f"the data was changed after checkpoint {self._source!r} was loaded, "
                f"whose place in it had been found: {'; '.join(map(str, moved))}: load "
                "it again"
            )

    def compare_after_setup(self) -> None:
        """Compare what a hook may have set, and set otherwise or not in the saved run.

        Raises:
            CheckpointError: nobody consented to what differs.
        """
        own = setup_settings(self._trainer)
        # Of a run that was never set up they tell what it was given.
        begun = self._saved.get(BEGUN_WITH, {})
        saved = {name: value for name, value in self._saved.items() if name in begun}
        moved = differences(saved, own)
        require_consent(moved, self._allowed, self._source)
        for change in moved:
            if change not in self.changes:  # those are in the receipt, written by now
                log.warning("checkpoint %r: setting %s", self._source, change)

    def waiting(self) -> dict[str, Any]:
        """Return the saved settings that wait for the set-up of the run.

        Not those that may be others in it: nobody has to consent to them again.
        """
        return decided_at_setup(self._saved, self._allowed)

    def _settings(self) -> dict[str, Any]:
        own = settings_of(self._trainer)
        if self._trainer.seed is None:
            own["seed"] = self._saved["seed"]
        return own

    def _consented(self, own: Mapping[str, Any]) -> list[Change]:
        pair = aligned(self._saved, own, self._joined)
        changes = differences(
            *without_scheduled_options(*pair, _compared(self._trainer))
        )
        changes = [replace(c, note=self._notes.get(c.name, "")) for c in changes]
        changes += _redescribed(self._trainer, self._metadata, changes)
        changes += _missing_plugins(self._trainer, self._plugins)
        known = [*own, *CHANGED_BY_HOOKS, DESCRIPTION, *(each.name for each in changes)]
        check_names(self._allowed, known)
        require_consent(changes, self._allowed, self._source)
        return changes


def model_changes(trainer: Checkpointable, state: Mapping[str, Any]) -> list[Change]:
    """Return what made the run's model another one: its options, labels or words."""
    own = trainer.recipe.settings if trainer.recipe else {}
    changes = differences(state["settings"], plain(own))
    return changes + _redescribed(trainer, state.get("metadata", {}), changes)


def _redescribed(
    trainer: Checkpointable, saved: Mapping[str, Any], changes: Collection[Change]
) -> list[Change]:
    if trainer.recipe is None:  # then metadata are the caller's own words
        return []
    return described_otherwise(saved, trainer.metadata, changes)


def _joined(state: Mapping[str, Any]) -> list[SavedGroup]:
    """Return the groups that joined the saved run after its training had begun."""
    configured = len(state["settings"].get(GROUPS, []))
    late = saved_groups(state["optimizer"])[configured:]
    return [group for group in late if group.options]  # else it is no group


def _missing_plugins(
    trainer: Checkpointable, saved: Mapping[str, Mapping[str, Any]]
) -> list[Change]:
    """Return plugins without which training itself would be another one."""
    return [
        Change(f"plugins.{name}", "active", "not active")
        for name, entry in saved.items()
        if entry.get("alters_training") and name not in trainer.plugins
    ]


def _compared(trainer: Checkpointable) -> set[str]:
    """Return options of groups that plugins say they compare, none the optimizer's."""
    plugins = trainer.plugins.values()
    said = {name for p in plugins for name in getattr(p, "compares_options", ())}
    return said - {*getattr(trainer.optimizer, "defaults", ())}
