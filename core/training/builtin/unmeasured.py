"""Tell where validation data are given and nothing is seen to be measured on them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from training.bus.callback import BuiltIn
from training.bus.registration import marked

if TYPE_CHECKING:
    from training.builtin.resume import Resumable

log = logging.getLogger(__name__)


def of_validation(names: Iterable[str]) -> bool:
    """Whether one of these metrics is, by its name, of the validation data."""
    return any(name.startswith("val_") for name in names)


def may_measure(plugin: Any) -> bool:
    """Whether a plugin delivers metrics, and may read the validation data for them.

    What the metrics are called does not tell: ``bleu`` may be of those data, too.
    """
    return getattr(plugin, "reads_validation", True) and _delivers(plugin)


def declares_validation(plugin: Any) -> bool:
    """Whether a plugin says that it measures validation data, or a task's metrics."""
    produces = getattr(plugin, "produces", None) or ()
    return of_validation(produces) or bool(getattr(plugin, "chooses_metrics", None))


def _delivers(plugin: Any) -> bool:
    """Whether a plugin listens to ``evaluate``, which it may only surround."""
    for hook, attribute, options in marked(plugin):
        # None: switched off by an heir. A property is not run for this.
        is_there = inspect.getattr_static(plugin, attribute, attribute) is not None
        if hook == "evaluate" and is_there and not options.get("wrapper"):
            return True
    return False


class Unmeasured(BuiltIn):
    """Warn once if the plugins that stand in for ``evaluation`` measure other things.

    Args:
        names: of those that may measure and do not declare a ``val_...``.
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
                "that is meant; a plugin that reads none of these data leaves it on by "
                "reads_validation = False",
                ", ".join(map(repr, self._names)),
            )
