"""Rows with drawn pictures, as families get them; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from trainbus_data.vqa.synthetic import Picture as Shape
from trainbus_data.vqa.synthetic import choose, draw

__all__ = ["captions", "colours", "questions"]


@dataclass(frozen=True)
class Drawn:
    """A picture that is drawn whenever it is opened."""

    shape: Shape

    @property
    def key(self) -> Shape:
        return self.shape

    def open(self) -> Image.Image:
        return Image.fromarray(draw(self.shape))

    def fault(self, reason: str) -> Exception:
        return ValueError(f"{self.shape} {reason}")


def shapes(count: int, seed: int = 0) -> Iterator[Drawn]:
    """Yield that many different pictures."""
    return map(Drawn, choose(count, seed))


def colours(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows for classifying pictures by colour."""
    return [{"image": p, "label": p.shape.colour} for p in shapes(count, seed)]


def captions(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows for describing pictures."""
    return [{"image": p, "caption": caption_of(p.shape)} for p in shapes(count, seed)]


def caption_of(shape: Shape) -> str:
    return f"a {shape.size} {shape.colour} {shape.shape}"


def questions(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return two rows for each picture: what colour, and what shape it is."""
    rows = []
    for picture in shapes(count, seed):
        shown = picture.shape
        for question, answer in (
            ("what color is it?", shown.colour),
            ("what shape is in the picture?", f"a {shown.shape}"),
        ):
            rows.append({"image": picture, "question": question, "answer": answer})
    return rows
