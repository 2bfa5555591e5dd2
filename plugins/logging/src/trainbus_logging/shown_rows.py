"""Which predicted rows a person is shown, and how: as pictures, and as text."""

from __future__ import annotations

import heapq
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

Row = Mapping[str, Any]
#: Text and colour.
Line = tuple[str, str]

#: Letters of a value that are shown: a document may be a page.
MOST_LETTERS = 300
#: Multiples of it, less their whole parts, fill any interval evenly.
GOLDEN = (5**0.5 - 1) / 2
#: Pixels: what a picture is fitted into, the space around it, the height of letters.
SIDE, MARGIN, SIZE = 256, 10, 15
LETTERS_A_LINE = 34
RIGHT, WRONG, PLAIN = "#1a7f37", "#cf222e", "#1f2328"
#: Beside letters and digits, what Markdown and HTML read as it stands.
HARMLESS = frozenset(" ,:;?'\"/=%")


class ShownRows:
    """What is looked at in the rows of a run.

    Args:
        recipe: says what a row holds; None: questions about pictures, and answers.
    """

    def __init__(self, recipe: Any) -> None:
        fields = {"image": "picture", "question": "text"}
        self._target, self._score, self._sureness = "answer", "accuracy", ""
        if recipe is not None:
            fields, self._target = recipe.task.fields, str(recipe.task.target)
            self._score = next(iter(recipe.task.metrics), "")
            self._sureness = recipe.confidence
        self._fields = [
            name
            for name, kind in fields.items()
            if kind != "id" and not kind.endswith("?") and name != self._target
        ]

    def fixed(self, rows: Sequence[Row], number: int) -> list[Row]:
        """Return at most that many, spread over all: the same ones each time.

        Not at even distances: of rows that come in turns, such as the questions about
        a picture, all would be of one kind.
        """
        if len(rows) <= number:
            return list(rows)
        chosen: set[int] = set()
        index = 0
        while len(chosen) < number:
            chosen.add(int(index * GOLDEN % 1 * len(rows)))
            index += 1
        return [rows[place] for place in sorted(chosen)]

    def worst(self, rows: Sequence[Row], number: int) -> list[Row]:
        """Return those of the lowest score; of equal ones those that it is surest of.

        What is shown of a row is kept, and nothing else.
        """
        judged = [row for row in rows if self._score in row]
        worst = heapq.nsmallest(number, judged, key=self._rank)
        return [
            {name: row[name] for name in self._names if name in row} for row in worst
        ]

    def table(self, rows: Sequence[Row]) -> str:
        """Return the rows as a table in Markdown, pictures by their names."""
        head = [*self._fields, "true", "predicted", self._score or "score"]
        keys = [*self._fields, self._target, "prediction", self._score]
        cells = [[_cell(row.get(key, "")) for key in keys] for row in rows]
        lines = [map(_cell, head), ["---"] * len(head), *cells]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def cards(self, row: Row) -> list[npt.NDArray[np.uint8]]:
        """Return each picture of a row above what is asked and said, (H, W, 3).

        Raises:
            Exception: one cannot be opened.
        """
        values: list[Any] = [row.get(name) for name in self._fields]
        pictures = [value.open() for value in values if _is_picture(value)]
        return [_card(picture, self._lines(row)) for picture in pictures]

    @property
    def _names(self) -> list[str]:
        own = [self._target, "prediction", self._score, self._sureness]
        return [*self._fields, *own]

    def _rank(self, row: Row) -> tuple[float, float]:
        return row[self._score], -self._sure(row)

    def _sure(self, row: Row) -> float:
        """Return how sure it is; where that is not known, less than anything."""
        value = row.get(self._sureness)
        if isinstance(value, float) and not math.isnan(value):
            return value
        return -math.inf

    def _lines(self, row: Row) -> list[Line]:
        """Return what stands below a picture."""
        values = [(name, row.get(name, "")) for name in self._fields]
        lines = [(f"{n}: {_text(v)}", PLAIN) for n, v in values if not _is_picture(v)]
        if self._target in row:
            lines.append((f"true: {_text(row[self._target])}", PLAIN))
        colour = PLAIN
        if self._score in row:
            colour = RIGHT if row[self._score] > 0 else WRONG
        said, sure = _text(row["prediction"]), self._sure(row)
        told = f" ({sure:.3g})" if math.isfinite(sure) else ""
        return [*lines, (f"predicted: {said}{told}", colour)]


def _is_picture(value: Any) -> bool:
    return callable(getattr(value, "open", None))


def _text(value: Any) -> str:
    """Return a value on one line, what cannot be printed left out."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}..."


def _cell(value: Any) -> str:
    """Return a value for a table; what Markdown or HTML would obey is spelt out."""
    letters = (
        c if c.isalnum() or c in HARMLESS else f"&#{ord(c)};" for c in _text(value)
    )
    return "".join(letters)


def _card(picture: Image.Image, lines: Sequence[Line]) -> npt.NDArray[np.uint8]:
    """Return a picture with lines of text below it, (H, W, 3)."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    scale = min(SIDE / picture.width, SIDE / picture.height)
    size = (max(1, round(each * scale)) for each in picture.size)
    # Of a small picture each pixel is seen; a large one loses some.
    way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    shown = picture.resize((next(size), next(size)), way)
    wrapped = [
        (part, colour)
        for text, colour in lines
        for part in textwrap.wrap(text, LETTERS_A_LINE) or [""]
    ]
    step = SIZE + 5
    height = shown.height + 3 * MARGIN + step * len(wrapped)
    card = Image.new("RGB", (SIDE + 2 * MARGIN, height), "white")
    card.paste(shown, (MARGIN + (SIDE - shown.width) // 2, MARGIN))
    draw, font = ImageDraw.Draw(card), ImageFont.load_default(SIZE)
    for index, (text, colour) in enumerate(wrapped):
        place = MARGIN, shown.height + 2 * MARGIN + step * index
        draw.text(place, text, fill=colour, font=font)
    return np.asarray(card)
