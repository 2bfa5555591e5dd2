"""What other plugins watch and keep, as far as a person is shown it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training import Trainer

log = logging.getLogger(__name__)

#: Labels of the files of a run's state, among the paths that plugins leave behind.
FILES = ("best_checkpoint", "last_checkpoint")


@dataclass(frozen=True)
class Standing:
    """What a run has reached.

    Attributes:
        best: the best values of each metric that plugins watch.
        files: the checkpoints that count.
        is_told: whether somebody was told that a plugin fails to say what it has.
    """

    best: Mapping[str, frozenset[float]] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    is_told: bool = False

    def now(self, trainer: Trainer) -> Standing:
        """Ask all plugins, by ``summary``; where one fails, keep what was known.

        A run does not end for what is shown: whoever records it hears of that error.
        """
        try:
            answers = trainer.bus.collect("summary", trainer=trainer)
        except Exception as error:
            if not self.is_told:
                whose = "; ".join(getattr(error, "__notes__", ()))
                told = "progress: no best and saved epochs are marked: %r, %s"
                log.warning(told, error, whose)
            return replace(self, is_told=True)
        best: dict[str, set[float]] = {}
        files = set()
        for _, answer in answers:
            for name, value in (answer or {}).get("best", {}).items():
                best.setdefault(name, set()).add(value)
            paths = (answer or {}).get("paths", {})
            files |= {paths[label] for label in FILES if label in paths}
        frozen = {name: frozenset(values) for name, values in best.items()}
        return Standing(frozen, frozenset(files), self.is_told)

    def beats(self, before: Standing, row: Mapping[str, Any]) -> list[str]:
        """Return the metrics whose value in ``row`` is a best that was not before."""
        return [
            name
            for name, values in self.best.items()
            if row.get(name) in values - before.best.get(name, frozenset())
        ]


def watched(trainer: Trainer) -> list[str]:
    """Return the metrics that options of plugins name, such as a monitor."""
    names = [
        getattr(plugin, option, None)
        for plugin in trainer.plugins.values()
        for option in getattr(plugin, "consumes", ())
    ]
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))
