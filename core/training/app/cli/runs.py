"""The command ``runs``: which runs there are, and what sets two of them apart."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from training.app.records.comparing import different_settings, results
from training.app.records.durations import duration
from training.app.records.run_folder import RunFolder, find_runs, read_run
from training.errors import ConfigError, did_you_mean
from training.files.durable import finite
from training.messages.error_texts import printable
from training.messages.tables import number, table

__all__ = ["SORTS", "runs"]

#: Letters of a setting in a list; JSON has all of them.
MOST_LETTERS = 40
#: What runs are sorted by -> the key, whose least comes first.
SORTS: dict[str, Callable[[RunFolder], Any]] = {
    "name": lambda run: run.path.parts,
    "state": lambda run: run.state,
    "best": lambda run: _rank(run),
    "epochs": lambda run: -run.epochs,
    "time": lambda run: -(run.seconds or 0.0),
    "stopped": lambda run: run.stopped_by,
}


def runs(arguments: argparse.Namespace) -> None:
    """List the runs below a folder, or compare two."""
    words = arguments.what
    hint = did_you_mean(words[0], ["diff"]) if len(words) == 3 else ""
    if words[:1] == ["diff"]:
        if len(words) != 3:
            raise ConfigError(
                f"`trainbus runs diff` compares two runs, not {len(words) - 1}; name "
                "two folders"
            )
        for name in ("sort", "settings"):
            if getattr(arguments, name):
                raise ConfigError(
                    f"--{name} is of no use with `runs diff`; leave it out"
                )
        _compare([read_run(word) for word in words[1:]], arguments.json)
        return
    if len(words) > 1:
        raise ConfigError(
            f"`trainbus runs` lists one folder, not {len(words)}{hint}; to compare two "
            "runs: trainbus runs diff A B"
        )
    folder = words[0] if words else "runs"
    if not words and not Path(folder).is_dir():
        folder = "."
    found = sorted(find_runs(folder), key=SORTS[arguments.sort or "name"])
    if arguments.json:
        print(json.dumps([_as_json(run) for run in found], indent=2, default=str))
        return
    _list(found, folder, different_settings(found) if arguments.settings else {})


def _list(
    found: Sequence[RunFolder], folder: str, settings: dict[str, list[str]]
) -> None:
    if not found:
        print(f"{printable(folder)}: no run was recorded here")
        return
    settings.pop("training.save_dir", None)  # the path says it
    columns = [_shortened([*map(printable, each)]) for each in settings.values()]
    rows = [
        [
            printable(str(run.path)),
            run.state,
            _best(run),
            str(run.epochs),
            duration(run.seconds),
            printable(run.stopped_by),
            *(column[place] for column in columns),
        ]
        for place, run in enumerate(found)
    ]
    head = ["run", "state", "best", "epochs", "time", "stopped by"]
    titles = [*head, *map(printable, settings)]
    print("\n".join(table(titles, rows, "<<<>><")))
    for line in _complaints(found):
        print(line)


def _shortened(texts: Sequence[str]) -> Sequence[str]:
    """Return them cut, or as they are where some that differ would look the same."""
    short = [*map(_short, texts)]
    return short if len({*short}) == len({*texts}) else texts


def _short(text: str) -> str:
    """Return a long text without its middle: paths often differ at their ends."""
    if len(text) <= MOST_LETTERS:
        return text
    half = (MOST_LETTERS - 3) // 2
    return f"{text[:half]}...{text[-half:]}"


def _compare(pair: Sequence[RunFolder], as_json: bool) -> None:
    unknown = [printable(str(run.path)) for run in pair if not run.config]
    settings, numbers = different_settings(pair), results(pair)
    facts = {
        "state": [run.state for run in pair],
        "stopped by": [run.stopped_by for run in pair],
        "epochs": [str(run.epochs) for run in pair],
        "time": [duration(run.seconds) for run in pair],
    }
    if as_json:
        told = {
            "runs": list(map(_as_json, pair)),
            "settings": None if unknown else settings,  # that differ
            "results": numbers,
        }
        print(json.dumps(told, indent=2, default=str))
        return
    shown = {name: list(map(number, values)) for name, values in numbers.items()}
    names = [printable(str(run.path)) for run in pair]
    if unknown:
        print(f"the settings are not compared: those of {unknown[0]} are not known")
    else:
        same = ["the settings are the same"]
        print("\n".join(_table("setting", names, settings) or same))
    print()
    print("\n".join(_table("result", names, {**facts, **shown})))
    for line in _complaints(pair):
        print(line)


def _table(title: str, names: Sequence[str], rows: dict[str, list[str]]) -> list[str]:
    cells = [[printable(each) for each in (key, *rows[key])] for key in rows]
    return table([title, *names], cells, "<<<") if cells else []


def _complaints(found: Sequence[RunFolder]) -> list[str]:
    lines = [f"{run.path}: {text}" for run in found for text in run.complaints]
    return [f"note: {printable(line)}" for line in lines]


def _as_json(run: RunFolder) -> dict[str, Any]:
    return {
        "run": str(run.path),
        "state": run.state,
        "best": [
            {"metric": b.metric, "value": b.value, "epoch": b.epoch} for b in run.best
        ],
        "epochs": run.epochs,
        "seconds": run.seconds,
        "stopped_by": run.stopped_by or None,
        "why": run.why or None,
        "starts": len(run.starts) or None,
        "config": finite(run.config) or None,
        "complaints": run.complaints,
    }


def _best(run: RunFolder) -> str:
    if not run.best:
        return ""
    best = run.best[0]
    return printable(f"{best.metric} {number(best.value)}")


def _rank(run: RunFolder) -> tuple[str, float]:
    """Return what puts better runs first, each metric by itself, those without last."""
    if not run.best:
        return "\U0010ffff", 0.0
    best = run.best[0]
    return best.metric, -best.value if best.is_high else best.value
