"""What other plugins watch and keep, as far as a person is shown it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training import Trainer

#: Labels of the files of a run's state, among the paths that plugins leave behind.
FILES = ("best_checkpoint", "last_checkpoint")


@dataclass(frozen=True)
class Standing:
    """What a run has reached.

    Attributes:
        best: the best values of each metric that plugins watch.
        files: the checkpoints that count.
    """

    best: Mapping[str, frozenset[float]] = field(default_factory=dict)
    files: frozenset[str] = frozenset()

    @classmethod
    def of(cls, trainer: Trainer) -> Standing:
        """Ask all plugins, by ``summary``."""
        best: dict[str, set[float]] = {}
        files = set()
        for _, answer in trainer.bus.collect("summary", trainer=trainer):
            for name, value in (answer or {}).get("best", {}).items():
                best.setdefault(name, set()).add(value)
            paths = (answer or {}).get("paths", {})
            files |= {paths[label] for label in FILES if label in paths}
        frozen = {name: frozenset(values) for name, values in best.items()}
        return cls(frozen, frozenset(files))

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
