"""What any argument must be like, and what to say of paths that cannot be used."""

from __future__ import annotations

import argparse
import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from traceback import walk_tb
from typing import Any

from training.discovery.entry_points import unreadable
from training.errors import ConfigError
from training.files.named_paths import path_mistake
from training.messages.error_texts import notes_of, printable, shown, text_of

__all__ = ["on_one_line", "refusal_of", "require_arguments", "values_by_field"]

#: Arguments that are words or sentences; all others are, or may be, paths.
WORDS = frozenset(
    {
        *("overrides", "question", "fields", "allow_changes", "command", "module"),
        *("shell", "task"),
    }
)
#: What code of a plugin's own also meets when it looks for the wrong file.
OWN_MISTAKES = (errno.ENOENT, errno.EEXIST)


def require_arguments(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be a path, or not even a text.

    Raises:
        ConfigError: says which argument, and why.
    """
    for name, text in _texts(arguments):
        mistake = _text_mistake(name, text) if name in WORDS else path_mistake(text)
        if mistake:
            label = _label(name, arguments)
            raise ConfigError(f"{label} {shown(text)} cannot be used: {mistake}")


def values_by_field(texts: Iterable[str]) -> dict[str, str]:
    """Return what each ``--field NAME=VALUE`` says.

    Raises:
        ConfigError: one has no value, or is given twice.
    """
    fields: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(
                f"--field {text!r} has no value; write --field NAME=VALUE"
            )
        if name in fields:
            raise ConfigError(f"--field {name} is given twice; keep one")
        fields[name] = value
    return fields


def refusal_of(
    error: BaseException, arguments: argparse.Namespace
) -> ConfigError | None:
    """Return what to say where the system refuses a path that a person named.

    So it is where a library met entry points, of whomever, that cannot be read: what
    was raised is what reading them raises.
    Anything else, such as another file that a plugin looks for in vain, is a mistake
    in code: None.
    """
    met = {frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__)}
    if metadata.__file__ in met and (trouble := unreadable(error)):
        return ConfigError(f"what is installed cannot be listed: {trouble}")
    if not isinstance(error, OSError) or not isinstance(error.filename, str | bytes):
        return None
    if error.errno in OWN_MISTAKES and notes_of(error):
        return None
    failed = os.fsdecode(error.filename)
    found = [each for each in _named(arguments) if _concerns(failed, each[1])]
    if not found:
        return None
    label, text = max(found, key=lambda each: len(os.path.abspath(each[1])))
    place = "" if failed == text else f"{failed!r}: "
    return ConfigError(
        f"{label} {shown(text)} cannot be used: {place}"
        f"{error.strerror or text_of(error)}; mend that, or name another place"
    )


def on_one_line(text: str, arguments: argparse.Namespace) -> str:
    """Return ``text``, what a person wrote in it kept from breaking its lines."""
    from training.app.config.sources import environment

    given = [each for _, each in [*_texts(arguments), *_named(arguments)]]
    for override in getattr(arguments, "overrides", ()):  # its key and its value
        given += re.split(r"[=.]", override)
    given.append(environment())
    for each in sorted(given, key=len, reverse=True):
        if "\n" in each:
            text = text.replace(each, printable(each))
    return text


def _texts(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    for name, value in vars(arguments).items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str):
                yield name, each


def _text_mistake(name: str, text: str) -> str:
    try:
        # A value that is set may be a path, which need not be UTF-8.
        text.encode() if name == "question" else os.fsencode(text)
    except ValueError:
        return "it holds a character that no text may have"
    return "it holds a NUL character" if "\0" in text else ""


def _named(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield (what it is, text) of all that was named, here and in the configuration."""
    for name, text in _texts(arguments):
        if name not in WORDS:
            yield _label(name, arguments), text
    yield from _settings(getattr(arguments, "settings", {}), "")


def _label(name: str, arguments: argparse.Namespace) -> str:
    """Return the option that an argument is of; one that stands bare has none."""
    options: Mapping[str, str] = getattr(arguments, "options", {})
    return options.get(name, "the argument")


def _settings(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _settings(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _settings(item, key)
    elif isinstance(value, str):
        yield key, value


def _concerns(failed: str, named: str) -> bool:
    """Whether ``failed`` is the named path, below it, or above and not everywhere."""
    if not named:
        return False
    here = Path.cwd()
    path, wanted = (here / os.path.expanduser(each) for each in (failed, named))
    is_above = path in wanted.parents and path not in (here, *here.parents)
    return path == wanted or wanted in path.parents or is_above
