"""Draw ``results/overhead.json`` as one picture: who adds how much to a step.

Usage: python benchmarks/picture.py

Writes ``results/overhead.svg``: for each contest a bar for each trainer, its median
ratio to the bare loop, with a line from the lowest to the highest round.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

from environment import RESULTS

WIDTH, LEFT, RIGHT, ROW, TOP = 720, 130, 70, 26, 58
TITLES = {
    "plain": "plain: train and report the mean loss",
    "full": "full: bar, CSV, checkpoint, early stopping, schedule, validation",
}
COLOURS = {"trainbus": "#0b6e4f", "bare loop": "#555555"}
OTHER = "#9aa5b1"
LEGEND = "time of a step over that of a bare loop doing the same work (median, range)"


def draw(results: dict[str, Any]) -> str:
    """Return the picture as SVG text; every number in it is from ``results``."""
    highest = max(row["ratio_highest"] for c in TITLES for row in results[c].values())
    scale = (WIDTH - LEFT - RIGHT) / highest
    y = TOP
    parts = [
        _text(16, 22, "What a trainer adds to a step", "bold 15px"),
        _text(16, 40, LEGEND, "12px"),
    ]
    for contest, title in TITLES.items():
        parts.append(_text(16, y + 12, title, "bold 12px"))
        y += ROW
        ranked = sorted(results[contest].items(), key=lambda item: item[1]["ratio"])
        for name, row in ranked:
            parts += _bar(name, row, y, scale)
            y += ROW
        y += ROW // 2
    where = f"{results['date'][:10]}, {results['cpu']}, torch {_torch(results)}"
    parts.append(_text(16, y + 4, f"measured {where}, benchmarks/overhead.py", "11px"))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 16}" '
        f'font-family="sans-serif" role="img">'
    )
    back = f'<rect width="{WIDTH}" height="{y + 16}" fill="#ffffff"/>'
    return "\n".join([head, back, *parts, "</svg>"]) + "\n"


def _bar(name: str, row: dict[str, Any], y: int, scale: float) -> list[str]:
    colour = COLOURS.get(name, OTHER)
    low, high = (LEFT + row[f"ratio_{end}"] * scale for end in ("lowest", "highest"))
    middle = y + ROW // 2 - 3
    bar = (
        f'<rect x="{LEFT}" y="{y}" width="{row["ratio"] * scale:.1f}" '
        f'height="{ROW - 6}" fill="{colour}"/>'
    )
    line = (
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" '
        f'stroke="#222222"/>'
    )
    label = f"{row['ratio']:.2f} x"
    return [
        _text(16, middle + 4, name, "12px"),
        bar,
        line,
        _text(high + 6, middle + 4, label, "12px"),
    ]


def _text(x: float, y: float, text: str, font: str) -> str:
    weight, _, size = font.rpartition(" ")
    bold = ' font-weight="bold"' if weight else ""
    return f'<text x="{x:.1f}" y="{y}" font-size="{size}"{bold}>{escape(text)}</text>'


def _torch(results: dict[str, Any]) -> str:
    return str(results["versions"]["torch"])


def main() -> int:
    """Draw; return 1 when there are no figures yet."""
    source = RESULTS / "overhead.json"
    if not source.exists():
        print("no figures; run: python benchmarks/overhead.py --write", file=sys.stderr)
        return 1
    path: Path = source.with_suffix(".svg")
    path.write_text(draw(json.loads(source.read_text())), encoding="utf-8")
    print("written:", path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
