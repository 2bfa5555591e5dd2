"""Which task, model family and readers a configuration names, and where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from training.documents.document import Document, Key

__all__ = ["PLACES", "is_named", "named_in", "replace_named"]

#: Where a name may stand, alone or over its options, and of what kind.
PLACES: dict[Key, str] = {
    ("task",): "task",
    ("model", "type"): "model",
    ("data", "train"): "reader",
    ("data", "validation"): "reader",
    ("data", "test"): "reader",
}


def named_in(document: Document) -> Iterator[tuple[str, str, Key]]:
    """Yield kind, name and place of each part that is named."""
    for at, kind in PLACES.items():
        value = document.get(at)
        if kind == "reader" and not is_named(value):
            continue
        name = _name(value)
        if name:
            yield kind, name, at


def is_named(source: Any) -> bool:
    """Whether a split names its reader, and not a path."""
    return isinstance(source, dict)


def replace_named(whole: Document, later: Document) -> None:
    """Take out of ``whole`` what ``later`` names anew, so that options never mix."""
    for at in PLACES:
        if later.has(at) and whole.has(at) and not _goes_on(whole, later, at):
            whole.pop(at)


def _goes_on(whole: Document, later: Document, at: Key) -> bool:
    """Whether ``later`` only changes options of what ``whole`` names."""
    both = whole.get(at), later.get(at)
    return all(isinstance(each, dict) for each in both) and both[0].keys() == (
        both[1].keys()
    )


def _name(value: Any) -> str:
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value))
    return value if isinstance(value, str) else ""
