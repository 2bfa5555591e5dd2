"""Tell where validation data are given and nothing is seen to be measured on them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from training.bus.callback import BuiltIn

if TYPE_CHECKING:
    from training.builtin.resume import Resumable
    from training.bus.bus import Bus

log = logging.getLogger(__name__)


def of_validation(names: Iterable[str]) -> bool:
    """Whether one of these metrics is, by its name, of the validation data."""
    return any(name.startswith("val_") for name in names)


def measures_others(plugin: Any) -> bool:
    """Whether a plugin declares what it delivers, and none of that is validation's."""
    produces = tuple(getattr(plugin, "produces", None) or ())
    # What it chooses among a task's metrics is measured on validation rows.
    is_of_task = bool(getattr(plugin, "chooses_metrics", None))
    return bool(produces) and not is_of_task and not of_validation(produces)


def leave_unmeasured(plugins: Iterable[Any]) -> bool:
    """Whether none of these is one that may measure the validation data."""
    return all(measures_others(each) for each in plugins if hasattr(each, "evaluate"))


def who_may_measure(bus: Bus) -> list[str]:
    """Return who listens to ``evaluate`` and may measure the validation data there."""
    names = [impl.plugin_name for impl in bus.listeners("evaluate")]
    return [name for name in names if not measures_others(bus.plugins[name])]


class Unmeasured(BuiltIn):
    """Warn once if the plugins that stand in for ``evaluation`` measure other things.

    Args:
        names: of those that do not declare what they deliver.
    """

    name = "unmeasured"
    ranks = "main"

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)
        self._is_settled = False

    def on_train_begin(self, trainer: Resumable) -> None:
        """Look at the names that all have told, before a step is made."""
        known = trainer.state.metrics.known_names
        if known is not None:  # else the first epoch's end tells
            self._settle(known)

    def on_metrics(self, trainer: Resumable, metrics: Mapping[str, float]) -> None:
        """Look at what the first epoch's end has brought."""
        if "train_loss" in metrics:
            self._settle(trainer.state.metrics)

    def _settle(self, names: Iterable[str]) -> None:
        was_settled, self._is_settled = self._is_settled, True
        if not was_settled and not of_validation(names):
            log.warning(
                "val_dataloader is given, but no metric is called val_...: the plugin "
                "'evaluation' is left out, since %s may measure instead; pass "
                "plugins=['evaluation'] to have both, or plugins=['no:evaluation'] if "
                "that is meant",
                ", ".join(map(repr, self._names)),
            )
