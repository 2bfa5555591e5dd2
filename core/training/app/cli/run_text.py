"""What a person reads before and after a run: plain aligned text."""

from __future__ import annotations

import shlex
import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.hooks.answers import COLUMNS
from training.messages.tables import count, number, table
from training.recipes.kinds import floor_of

if TYPE_CHECKING:
    from training.trainer import Trainer

__all__ = ["closing", "header", "metric_table"]

#: Before a further line of what is told under a label.
INDENT = " " * 11


def header(
    trainer: Trainer, config: Mapping[str, Any], facts: Mapping[str, Any]
) -> str:
    """Return who trains on what: model, rows, plan, plugins, floors."""
    sizes = [value.numel() for value in trainer.model.parameters()]
    trained = sum(v.numel() for v in trainer.model.parameters() if v.requires_grad)
    model, rows = config["model"], facts.get("rows", {})
    name = model.get("name") or f"a fresh {model['type']}"
    lines = [
        (
            "model",
            f"{name}, {count(sum(sizes), 'weight')}, {trained:,} of them trained",
        ),
        ("rows", ", ".join(f"{count:,} {split}" for split, count in rows.items())),
        *([("", facts["beginning"])] if "beginning" in facts else []),
        ("plan", _plan(trainer)),
        ("device", f"{trainer.device}, {trainer.precision}"),
        ("plugins", ", ".join(trainer.plugins)),
    ]
    floors = facts.get("floors", {})
    if floors:
        words = [f"{_title(key)} {floors[key]['all']:.3f}" for key in _order(floors)]
        lines.append(("floors", f"{', '.join(words)} of the validation answers"))
    lines.append(("folder", str(trainer.save_dir)))
    body = "\n".join(f"  {label:<8} {_wrapped(text)}" for label, text in lines)
    return f"{body}\n"


def _wrapped(text: str) -> str:
    """Return what stands under a label in lines that a terminal does not break."""
    width = min(shutil.get_terminal_size().columns, 80) - 1 - len(INDENT)
    lines = textwrap.wrap(
        text, max(width, 1), break_on_hyphens=False, break_long_words=False
    )
    return f"\n{INDENT}".join(lines)


def closing(
    summary: Mapping[str, Any], example: Mapping[str, str] | None, before: int = 0
) -> str:
    """Return how the run ended, its metrics, and what to type next.

    Args:
        summary: what summary.json holds.
        example: a row as ``predict`` takes it, by field, for the command to try.
        before: steps that were done when the run was resumed; the time is of the rest.
    """
    reason = f"{summary['stop_reason']} ({summary['stop_owner']})"
    own = f", {summary['steps'] - before:,} of them now," if before else ""
    lines = [
        "",
        f"stopped   {reason}",
        f"trained   {count(summary['epochs'], 'epoch')}, "
        f"{count(summary['steps'], 'step')}{own} in "
        f"{summary['seconds']:.1f} s, {summary['cpu_seconds']:.1f} s of CPU time",
        "",
        *_metrics(summary),
        "",
        "next",
        *(f"  {command}" for command in _next_commands(summary, example)),
    ]
    return "\n".join(lines)


def metric_table(
    columns: Mapping[str, Mapping[str, float]], floors: Mapping[str, Any]
) -> list[str]:
    """Return lines: metrics down, ``columns`` and the floors across.

    Args:
        columns: title -> metric name -> value.
        floors: kind of floor -> ``all``, kind of question or metric -> share.
    """
    names = list(dict.fromkeys(name for each in columns.values() for name in each))
    titles = [*columns, *(_title(key) for key in _order(floors))]
    known = [floors[key] for key in _order(floors)]
    rows = []
    for name in names:
        row = [name, *(number(values.get(name)) for values in columns.values())]
        rows.append([*row, *(number(floor_of(name, each)) for each in known)])
    return table(["metric", *titles], rows)


def _plan(trainer: Trainer) -> str:
    per_epoch, total = trainer.steps_per_epoch, trainer.total_steps
    text = count(trainer.num_epochs, "epoch")
    if per_epoch is not None:
        text += f" of {count(per_epoch, 'step')}"
    if total is not None:
        text += f", {total:,} in all"
    return text


def _metrics(summary: Mapping[str, Any]) -> list[str]:
    columns = {"final": _scores(summary["final"] or {})}
    for best in summary["best"]:
        if best["row"]:
            title = f"epoch {best['row']['epoch']}, best {best['monitor']}"
            columns[title] = _scores(best["row"])
    return metric_table(columns, summary["data"].get("floors", {}))


def _scores(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name not in COLUMNS}


def _order(floors: Mapping[str, Any]) -> list[str]:
    """Return the floors, the highest first; of equal ones the later."""
    latest_first = list(floors)[::-1]
    return sorted(latest_first, key=lambda key: -floors[key].get("all", 0.0))


def _title(floor: str) -> str:
    return floor.replace("_", " ")


def _next_commands(
    summary: Mapping[str, Any], example: Mapping[str, str] | None
) -> list[str]:
    paths = summary["paths"]
    checkpoint = paths.get("best_checkpoint") or paths.get("last_checkpoint")
    commands: list[list[str]] = []
    if checkpoint and example:
        fields = [f"--field={name}={value}" for name, value in example.items()]
        commands.append(["trainbus", "predict", "--checkpoint", checkpoint, *fields])
    rows = summary["data"].get("rows", {})
    options = {"validation": [], "test": ["--split", "test"]}
    split = next((options[name] for name in options if name in rows), None)
    if checkpoint and split is not None:
        measured = [paths["config"], "--checkpoint", checkpoint, *split]
        commands.append(["trainbus", "evaluate", *measured])
    if "tensorboard" in paths:
        commands.append(["tensorboard", "--logdir", paths["tensorboard"]])
    if not commands:
        return [f"read {Path(paths['summary'])}"]
    return [shlex.join(command) for command in commands]
