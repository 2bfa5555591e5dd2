"""What any argument must be like, whichever option it belongs to."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

from training.errors import ConfigError
from training.files.path_mistakes import path_mistake, shown

__all__ = ["require_arguments"]

#: Arguments that are words or sentences; all others are, or may be, paths.
WORDS = frozenset({"overrides", "question", "allow_changes", "command", "module"})


def require_arguments(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be a path, or not even a text.

    Raises:
        ConfigError: says which argument, and why.
    """
    for name, text in _texts(arguments):
        mistake = _text_mistake(text) if name in WORDS else path_mistake(text)
        if mistake:
            raise ConfigError(f"the argument {shown(text)} cannot be used: {mistake}")


def _texts(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    for name, value in vars(arguments).items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str):
                yield name, each


def _text_mistake(text: str) -> str:
    try:
        os.fsencode(text)
    except ValueError:
        return "it holds a character that no text may have"
    return "it holds a NUL character" if "\0" in text else ""
