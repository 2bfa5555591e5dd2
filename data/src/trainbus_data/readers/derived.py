"""What rows say in another way: pictures by a pattern, question and answer as chat."""

from __future__ import annotations

import string
from typing import Any

from trainbus_data.rows.json_lines import UnusableRow, show
from trainbus_data.rows.row_checks import CHATS
from training.errors import ConfigError, did_you_mean
from training.messages.tables import count

__all__ = ["PicturePattern", "with_turns"]

#: Key of a list of turns -> the keys of a turn's role and text.
_ASKING, _ANSWERING = ("human", "user"), ("gpt", "assistant")


class PicturePattern:
    """Names a row's picture by its values, as in ``COCO_{image_id:012d}.jpg``.

    Args:
        pattern: for ``str.format`` over a row's values; None: rows stay as they are.
    Raises:
        ConfigError: it names no value, or is no pattern.
    """

    def __init__(self, pattern: str | None) -> None:
        self.pattern = pattern
        if pattern is None:
            return
        try:
            names = [name for _, name, *_ in string.Formatter().parse(pattern)]
        except ValueError as error:
            raise ConfigError(f"images is {pattern!r}, no pattern: {error}") from error
        if not any(names) or "" in names:
            raise ConfigError(
                f"images is {pattern!r}, which must name a value of the row, as in "
                "'train2014/COCO_train2014_{image_id:012d}.jpg'"
            )

    def add_to(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row with its ``image``.

        Raises:
            UnusableRow: it lacks a value, or has one that the pattern does not take.
        """
        if self.pattern is None:
            return row
        try:
            return {**row, "image": self.pattern.format_map(row)}
        except KeyError as error:
            name = str(error.args[0])
            raise UnusableRow(
                f"lacks {name!r}{did_you_mean(name, row)}, which images "
                f"{self.pattern!r} is made of"
            ) from error
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise UnusableRow(
                f"does not fit images {self.pattern!r}: {error}; a text is filled up "
                "with zeros by {image_id:0>12}, a number by {image_id:012d}"
            ) from error


def with_turns(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of chat data with ``question`` and ``answer`` in its turns' place.

    ``conversations`` are turns of ``from`` and ``value``, as LLaVA has them, and
    ``messages`` turns of ``role`` and ``content``; ``<image>`` is taken out. Other
    rows, and those with a ``question``, stay as they are.

    Raises:
        UnusableRow: there are other than two turns, a question and its answer, or the
            row has another ``answer`` beside them.
    """
    key = next((key for key in CHATS if key in row), None)
    if key is None or "question" in row:
        return row
    turns, (role, text) = row[key], CHATS[key]
    if not isinstance(turns, list) or len(turns) != 2:
        is_list = isinstance(turns, list)
        found = count(len(turns), "turn") if is_list else "no list of turns"
        raise UnusableRow(
            f"has {found} in {key!r}; read are two, a question and its answer"
        )
    said = []
    for turn, roles in zip(turns, (_ASKING, _ANSWERING), strict=True):
        if not isinstance(turn, dict) or turn.get(role) not in roles:
            found = show(turn.get(role) if isinstance(turn, dict) else turn)
            raise UnusableRow(
                f"has a turn of {found} in {key!r}, where one of {' or '.join(roles)} "
                "should be"
            )
        said.append(_text_of(turn.get(text), f"{key}.{text}"))
    if row.get("answer") not in (None, said[1]):
        raise UnusableRow(
            f"has another answer in 'answer' than in {key!r}; leave one of them out"
        )
    others = {name: value for name, value in row.items() if name != key}
    return {**others, "question": said[0], "answer": said[1]}


def _text_of(content: Any, name: str) -> str:
    """Return the text of a turn, which is one or a list of parts with one text."""
    if isinstance(content, list):
        texts = [part.get("text") for part in content
                 if isinstance(part, dict) and part.get("type") == "text"]  # fmt: skip
        content = texts[0] if len(texts) == 1 else content
    if not isinstance(content, str):
        raise UnusableRow(f"{name} is {show(content)}; write a string")
    return content.replace("<image>", "").strip()
