"""What sets runs apart: settings that differ, and results side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from training.app.records.run_folder import RunFolder
from training.hooks.answers import COLUMNS

__all__ = ["different_settings", "flat", "results"]

#: What stands where a run has no such setting.
ABSENT = "-"
#: What stands where a run's configuration cannot be read.
UNKNOWN = "?"


def flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, value as text) of a configuration, plugins by their names."""
    if isinstance(value, Mapping) and (value or not key):
        for name, item in value.items():
            yield from flat(item, f"{key}.{name}" if key else str(name))
    elif key == "plugins" and isinstance(value, list):
        for item in value:
            named = item if isinstance(item, Mapping) else {item: True}
            # A plugin without options says no more than that it is there.
            yield from flat({n: o or True for n, o in named.items()}, key)
    elif isinstance(value, str):
        yield key, value
    else:
        yield key, json.dumps(value, default=str, ensure_ascii=False)


def different_settings(runs: Sequence[RunFolder]) -> dict[str, list[str]]:
    """Return key -> the value of each run, of the settings that are not the same.

    A run whose configuration cannot be read is compared with none.
    """
    settings = [dict(flat(run.config)) if run.config else {} for run in runs]
    keys = dict.fromkeys(key for each in settings for key in each)
    found = {
        key: [each.get(key, ABSENT) if each else UNKNOWN for each in settings]
        for key in keys
    }
    return {k: v for k, v in found.items() if len({*v} - {UNKNOWN}) > 1}


def results(runs: Sequence[RunFolder]) -> dict[str, list[float | None]]:
    """Return metric -> the value of each run: those of its last epoch, and the best."""
    columns = []
    for run in runs:
        best = {f"best {each.metric}": each.value for each in run.best}
        final = {n: v for n, v in run.final.items() if n not in COLUMNS}
        columns.append({**final, **best})
    names = dict.fromkeys(name for each in columns for name in each)
    return {name: [each.get(name) for each in columns] for name in names}
