"""What plugins leave behind of a run that has ended, for its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

#: Plugin name -> its answer to ``summary``.
Answers = Mapping[str, Mapping[str, Any]]


def ask_plugins(trainer: Checkpointable) -> dict[str, Mapping[str, Any]]:
    """Return what each plugin leaves behind, by its name."""
    answers = trainer.bus.collect("summary", trainer=trainer)
    return {name: answer or {} for name, answer in answers}


def best_rows(
    answers: Answers, history: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return for each watched metric who watches it, and the epoch of its best value.

    Which direction is better is for those to know who watch it: a metric that some
    want low and some want high has two.
    """
    found: dict[tuple[str, float], dict[str, Any]] = {}
    for name, answer in answers.items():
        for monitor, value in answer.get("best", {}).items():
            row = next((r for r in history if r.get(monitor) == value), None)
            best = found.setdefault(
                (monitor, value),
                {
                    "monitor": monitor,
                    "value": value,
                    "watched_by": [],
                    "row": None if row is None else dict(row),
                },
            )
            best["watched_by"].append(name)
    return list(found.values())


def others_of(answers: Answers) -> dict[str, dict[str, Any]]:
    """Return what each plugin tells beside its best values and paths, if anything."""
    others = {
        name: {k: v for k, v in answer.items() if k not in ("best", "paths")}
        for name, answer in answers.items()
    }
    return {name: values for name, values in others.items() if values}
