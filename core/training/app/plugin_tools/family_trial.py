"""Try a model family on rows that it brings, where it brings some."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from training.discovery.parts import find_part
from training.messages.error_texts import text_of
from training.messages.tables import count

__all__ = ["REMARKS", "tried"]

#: What is left to say of a part of which only the class was looked at.
REMARKS = {
    "task": "tried on no rows; its model family is, if that has sample_rows()",
    "reader": "read no rows, which takes a file and its options",
}


def tried(cls: type[Any]) -> tuple[str, str]:
    """Return what is wrong with a family, ``""`` if nothing, and what was tried.

    Built with its default options, as ``assert_family_conforms`` does it.
    """
    for method in ("sample_rows", "build"):
        if not callable(getattr(cls, method, None)):
            return "", f"tried on no rows, for it has no {method}()"
    family = cls()
    is_task = callable(getattr(cls, "score", None))
    task = family if is_task else find_part("task", cls.tasks[0], "plugins check")()
    family.task = task
    rows = list(family.sample_rows())
    try:
        import_module("training.testing").assert_family_conforms(family, task, rows)
    except AssertionError as error:
        return "; ".join(text_of(error).splitlines()), ""
    return "", f"tried on {count(len(rows), 'row')}"
