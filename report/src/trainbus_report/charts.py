"""Curves of several runs over one another, as SVG without a word of anybody's.

Names of runs and metrics stand in the page around a chart, where they are escaped; in
the drawing itself there are numbers alone.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from colorsys import hls_to_rgb
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.app.records.run_folder import RunFolder, is_number
from training.hooks.answers import COLUMNS

__all__ = ["COLOURS", "Chart", "charts_of", "colour_of", "whole_of"]

#: One a run, of the first ones: told apart by the colour-blind, too (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8c959f",
    "axes.grid": True,
    "grid.color": "#eaeef2",
    "text.parse_math": False,
}


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing and what is written above it.

    Attributes:
        title: what is drawn.
        svg: the drawing.
    """

    title: str
    svg: Markup


def colour_of(index: int) -> str:
    """Return the colour of a run, by its place; past ``COLOURS`` some look alike."""
    if index < len(COLOURS):
        return COLOURS[index]
    # By the golden ratio hues are far from those before, however many follow.
    hue, lightness = index * 0.618034 % 1, (0.35, 0.45, 0.6)[index % 3]
    return to_hex(hls_to_rgb(hue, lightness, 0.65))


def charts_of(runs: Sequence[RunFolder]) -> list[Chart]:
    """Return a chart of the losses, one of each metric, and one of the rate.

    What is measured in training and in validation is one metric, as the losses are.
    """
    # Most rows have the same columns.
    rows = dict.fromkeys(tuple(row) for run in runs for row in run.history)
    names = dict.fromkeys(
        name
        for row in rows
        for name in row
        # Kinds of rows have a table.
        if name not in COLUMNS and not whole_of(name, row)
    )
    groups: dict[str, list[str]] = {"loss": []}  # first
    for name in names:
        measured = _measured(name)
        # One that has the bare name is measured otherwise, and has a chart of its own.
        groups.setdefault(name if measured in names else measured, []).append(name)
    if any("lr" in row for run in runs for row in run.history):
        groups["learning rate"] = ["lr"]
    charts = []
    for measured, columns in groups.items():
        # Of one column alone its own name tells more.
        is_alone = len(columns) == 1 and measured not in ("loss", "learning rate")
        title = columns[0] if is_alone else measured
        svg = _svg(runs, columns, title)
        if svg is not None:
            charts.append(Chart(title, svg))
    return charts


def whole_of(name: str, names: Collection[str]) -> str:
    """Return what ``name`` is measured of, where that is one kind of rows; else ``""``.

    Of ``accuracy/red`` it is ``accuracy``, whether that is among ``names`` or not. With
    several validation loaders the end is a loader's: of ``accuracy/red/clean`` it is
    ``accuracy/clean``, which is of no kind. Nor is a part of a loss, ``val_loss/ce``.
    """
    if name.startswith(("train_", "val_")):
        return ""
    # Of several loaders each has a loss under its name, and there is none of all.
    is_several = "val_loss" not in names
    losses = [n for n in names if is_several and n.startswith("val_loss/")]
    ends = [end for n in losses if name.endswith(end := n.removeprefix("val_loss"))]
    loader = min(ends, key=len, default="")
    metric, _, kind = name.removesuffix(loader).partition("/")
    return metric + loader if kind else ""


def _measured(name: str) -> str:
    """Return what is measured: the column without the data that it is measured on."""
    return name.removeprefix("train_" if name.startswith("train_") else "val_")


def _svg(
    runs: Sequence[RunFolder], columns: Sequence[str], title: str
) -> Markup | None:
    """Return the curves of some columns, training's dashed; None without a point."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=(4.6, 2.7), layout="constrained")
        axes = figure.add_subplot()
        is_empty = True
        for index, run in enumerate(runs):
            for column in columns:
                points = list(_points(run.history, column))
                if points:
                    is_empty = False
                    style = "--" if column.startswith("train_") else "-"
                    axes.plot(
                        *zip(*points, strict=True),
                        linestyle=style,
                        color=colour_of(index),
                        marker="o" if len(points) < 30 else None,
                        markersize=3,
                        linewidth=1.6,
                    )
        if is_empty:
            return None
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    return Markup(text[text.index("<svg") :])


def _points(
    history: Sequence[Mapping[str, Any]], column: str
) -> Iterator[tuple[float, float]]:
    """Yield (epoch, value); what is no number is left out."""
    for number, row in enumerate(history, 1):
        value, epoch = row.get(column), row.get("epoch", number)
        if is_number(value) and is_number(epoch):
            yield float(epoch), float(value)
