"""Put together what records tell, and write it as one HTML file."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import training
from trainbus_report.charts import charts_of, colour_of, whole_of
from trainbus_report.predicted_rows import PredictedRows, read_predictions
from training.app.records.comparing import different_settings, flat, results
from training.app.records.durations import duration
from training.app.records.run_folder import RunFolder, is_number
from training.discovery.parts import build_part, find_part, named_part
from training.errors import TrainbusError
from training.files.durable import write_durably
from training.messages.error_texts import printable, text_of
from training.messages.tables import count, number
from training.recipes.kinds import floor_of

__all__ = ["write_report"]

#: Where predictions are looked for in a run's folder.
PREDICTIONS = "predictions.jsonl"
#: Runs that are named where all have something in common.
MOST_NAMED = 5
#: Shares of the run below which a plugin's cost is not worth a line.
LEAST_SHARE = 0.0005
#: Controls, but for blanks, and what turns the direction of all that follows. Marks
#: that belong to a language or to a pictogram, as a joiner does, stay.
_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(slots=True)
class Told:
    """A run and what the page says of it.

    Attributes:
        run: its record.
        name: what it is called, as short as the others allow.
        colour: of its curves.
        costs: a line for each plugin, the dearest first.
        predicted: its rows with predictions, if there are any.
        pictures: name -> address, of those that are shown.
        notes: what is missing, and why.
    """

    run: RunFolder
    name: str
    colour: str
    costs: list[dict[str, Any]] = field(default_factory=list)
    predicted: PredictedRows | None = None
    pictures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Floor:
    """What answers without looking, on the rows of some runs.

    Attributes:
        name: of the floor.
        scores: ``all``, kind or metric -> score.
        runs: those whose rows it was measured on.
    """

    name: str
    scores: dict[str, float]
    runs: list[Told] = field(default_factory=list, compare=False)


def write_report(
    runs: Sequence[RunFolder], predictions: Sequence[Path], target: Path
) -> list[str]:
    """Write what became of ``runs`` into one file that needs nothing else.

    Args:
        runs: at least one.
        predictions: files of rows, as many as runs, in order; none: those in their
            folders, where they are and no older than the last start.
        target: the file.
    Returns:
        What could not be shown, a sentence each; the page says it, too.
    """
    told = [
        Told(run, name, colour_of(index), costs_of(run), notes=list(run.complaints))
        for index, (run, name) in enumerate(zip(runs, names_of(runs), strict=True))
    ]
    for index, each in enumerate(told):
        if predictions:
            _add_predictions(each, predictions[index])
        elif (own := each.run.path / PREDICTIONS).is_file():
            if note := _older_weights(each.run, own):
                each.notes.append(f"predictions are not shown: {note}")
            else:
                _add_predictions(each, own)
    values, wholes = results(runs), wholes_of(runs)
    floors = floors_of(told)
    ways = Counter(floor.name for floor in floors)
    text = (
        _environment()
        .get_template("report.html.j2")
        .render(
            runs=told,
            settings=compared_settings(runs),
            charts=charts_of(runs),
            results={k: v for k, v in values.items() if k not in wholes},
            plan_of=plan_of,
            kinds=kinds_of(values, wholes),
            floors=[floor for floor in floors if ways[floor.name] <= MOST_NAMED],
            differing=[name for name, many in ways.items() if many > MOST_NAMED],
            title=title_of([each.name for each in told]),
            most_named=MOST_NAMED,
            unpredicted=[
                each
                for each in told
                if not each.predicted and evaluate_command(each.run)
            ],
            evaluate_command=evaluate_command,
            version=training.__version__,
        )
    )
    # Half a surrogate pair, which UTF-8 has not, is shown as what it is not.
    write_durably(target, lambda file: file.write(text.encode("utf-8", "replace")))
    return [f"{each.name}: {note}" for each in told for note in each.notes]


def names_of(runs: Sequence[RunFolder]) -> list[str]:
    """Return the last parts of the runs' paths, as many as tell them apart."""
    paths = [run.path.absolute().parts for run in runs]
    for depth in range(1, max(map(len, paths))):
        names = [printable("/".join(parts[-depth:])) for parts in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return [printable(str(run.path)) for run in runs]


def title_of(names: Sequence[str]) -> str:
    """Return the names of the first runs, and how many more there are."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def plan_of(run: RunFolder) -> list[tuple[str, str]]:
    """Return (title, words): what the run was to learn from, and how."""
    settings = dict(flat(run.config))
    data = run.summary.get("data")
    rows = data.get("rows") if isinstance(data, Mapping) else None
    sizes = rows.items() if isinstance(rows, Mapping) else ()
    words = [
        f"{settings[key]}{unit}"
        for key, unit in (
            ("training.num_epochs", " epochs"),
            ("training.max_steps", " steps at most"),
            ("data.batch_size", " rows a batch"),
            ("training.optimizer.type", ""),
        )
        if settings.get(key, "null") != "null"
    ]
    rate = settings.get("training.optimizer.lr")
    plan = ", ".join(words) + (f" at {rate}" if words and rate else "")
    told = {
        "task": settings.get("task", ""),
        "rows": ", ".join(f"{number(n)} {split}" for split, n in sizes),
        "plan": plan,
    }
    return [(title, text) for title, text in told.items() if text]


def evaluate_command(run: RunFolder) -> str:
    """Return what to type for rows with predictions; ``""`` where there are no rows.

    None are known of a run that Python built.
    """
    data = run.config.get("data")
    given = data.items() if isinstance(data, Mapping) else ()
    named = {name for name, value in given if value}
    split = [] if named & {"validation", "synthetic"} else ["--split", "test"]
    if split and "test" not in named:
        return ""
    return shlex.join(
        [
            *("trainbus", "evaluate", str(run.path / "config.yaml")),
            *("--checkpoint", "CHECKPOINT", *split),
            *("--predictions", str(run.path / PREDICTIONS)),
        ]
    )


def compared_settings(runs: Sequence[RunFolder]) -> dict[str, list[str]]:
    """Return key -> the values: all of one run, of several where they differ."""
    if len(runs) == 1:
        return {key: [value] for key, value in flat(runs[0].config)}
    return different_settings(runs)


def costs_of(run: RunFolder) -> list[dict[str, Any]]:
    """Return what each plugin cost, the dearest first; nothing if nobody measured."""
    told = run.summary.get("costs")
    seconds: dict[str, float] = {}
    calls: dict[str, int] = {}
    hooks: dict[str, tuple[float, str]] = {}
    for each in told if isinstance(told, list) else ():
        try:
            name, hook = str(each["plugin"]), str(each["hook"])
            spent, times = float(each["seconds"]), int(each["calls"])
        except (TypeError, KeyError, ValueError, OverflowError):
            continue  # of another release
        seconds[name] = seconds.get(name, 0.0) + spent
        calls[name] = calls.get(name, 0) + times
        hooks[name] = max(hooks.get(name, (0.0, "")), (spent, hook))
    own = run.summary.get("seconds")  # of the start that was measured, not of all
    whole = sum(seconds.values()) or 1.0
    if is_number(own) and own > 0:
        whole = own
    return [
        {
            "plugin": name,
            "calls": calls[name],
            "seconds": seconds[name],
            "share": seconds[name] / whole,
            "hook": hooks[name][1],
        }
        for name in sorted(seconds, key=lambda name: -seconds[name])
        if seconds[name] / whole >= LEAST_SHARE
    ]


def wholes_of(runs: Sequence[RunFolder]) -> dict[str, str]:
    """Return what was measured by kind, as ``accuracy/<kind>`` -> ``accuracy``."""
    return {
        name: whole
        for run in runs
        for name in run.final
        if (whole := whole_of(name, run.final))
    }


def kinds_of(
    values: Mapping[str, list[float | None]], wholes: Mapping[str, str]
) -> dict[str, list[float | None]]:
    """Return those of ``values`` that are of kinds, behind those of all rows."""
    ahead = [name for name in values if name in wholes.values()]
    return {name: values[name] for name in dict.fromkeys([*ahead, *sorted(wholes)])}


def floors_of(told: Sequence[Told]) -> list[Floor]:
    """Return what answers without looking: one that is alike in several runs once."""
    found: list[Floor] = []
    for each in told:
        data = each.run.summary.get("data")
        floors = data.get("floors") if isinstance(data, Mapping) else None
        for key, scores in floors.items() if isinstance(floors, Mapping) else ():
            if isinstance(scores, Mapping):
                floor = Floor(str(key).replace("_", " "), dict(scores))
                if floor not in found:
                    found.append(floor)
                found[found.index(floor)].runs.append(each)
    return found


def _older_weights(run: RunFolder, path: Path) -> str:
    """Return why rows may be of weights that the run no longer has, or ``""``.

    Where no start is recorded, or its time is none, nothing is known against them.
    """
    try:
        start = datetime.fromisoformat(run.starts[-1]["time"])
        if datetime.fromtimestamp(path.stat().st_mtime, UTC) >= start:
            return ""
    except (LookupError, TypeError, ValueError):
        return ""
    return (
        f"{PREDICTIONS} is older than the last start ({start:%Y-%m-%d %H:%M:%S}), "
        "and may be of other weights; delete it and evaluate anew, or name it with "
        "--predictions"
    )


def _add_predictions(told: Told, path: Path) -> None:
    """Read rows with predictions, and the pictures of those that are shown."""
    try:
        name, options = named_part(told.run.config.get("task"), "task")
        cls = find_part("task", name, "task")
        task = build_part(cls, options, ("task", name))
        told.predicted = predicted = read_predictions(path, task)
    except TrainbusError as error:
        told.notes.append(f"predictions are not shown: {text_of(error)}")
        return
    if target := predicted.missing_target:
        told.notes.append(
            f"which predictions are right is not shown: no row of {str(path)!r} has "
            f"{target!r}, which the task of the run predicts: they have no labels, or "
            "are another run's; name those of this run with --predictions"
        )
    rows = predicted.surest_mistakes
    names = {name for row in rows for name in predicted.pictures(row)}
    if names:
        # Late: it imports torch, which a page without pictures has no need of.
        from trainbus_report.pictures import pictures_of

        try:
            told.pictures = pictures_of(told.run, names)
        except TrainbusError as error:
            told.notes.append(f"pictures are not shown: {text_of(error)}")


def _environment() -> Environment:
    """Return what fills the page in: everything is escaped, nothing is left out."""
    environment = Environment(
        loader=PackageLoader("trainbus_report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_spelt_out,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "counted": count,
        "duration": duration,
        "time": _time,
    }
    environment.globals["floor_of"] = floor_of
    return environment


def _spelt_out(value: Any) -> Any:
    """Return a text with an escape for what would steer a terminal, or turn lines."""
    if isinstance(value, Markup) or not isinstance(value, (str, Path)):
        return value
    return _STEERS.sub(lambda found: printable(found[0]), str(value))


def _time(value: Any) -> str:
    """Return a time of a record without its zone, which is always UTC."""
    return str(value or "").replace("T", " ").removesuffix("+00:00")
