"""A configuration while it is put together: values, and where each was written.

Files, ``--set`` and Python arguments write into one document; a mistake found later is
reported at the place it came from.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from training.errors import ConfigError
from training.messages.error_texts import printable

__all__ = ["Document", "Key", "as_yaml", "dotted"]

#: A path into the document; list entries are numbered from 0.
Key = tuple[str | int, ...]


def dotted(path: Iterable[str | int]) -> str:
    """Return a path as printable text, as in ``plugins[0].csv``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return printable(text)


class Document:
    """Nested dicts and lists, and for paths in it the place they came from.

    Attributes:
        tree: the values.
        origins: path -> ``"file:line"``, ``"--set"`` or the like; a path without an
            entry comes from where its nearest ancestor does.
    """

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self.origins: dict[Key, str] = {}

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Document:
        """Return what a YAML file holds."""
        from training.documents.yaml_file import read_yaml_with_lines

        document = cls()
        document.tree, lines = read_yaml_with_lines(path)
        document.origins = {key: f"{path}:{line}" for key, line in lines.items()}
        return document

    def comes_from(self, origin: str) -> Document:
        """Say of every value that it was written there; return this document."""
        for path, value in _leaves(self.tree, ()):
            self.origins[path] = origin
            for index in range(len(value) if isinstance(value, list) else 0):
                self.origins[(*path, index)] = origin
        return self

    def origin(self, path: Key) -> str:
        """Return where ``path`` was written, or what holds it; so what is below it.

        Of what several sources wrote, each is named once, with its first place.
        """
        if path:
            places = [self.origins[path]] if path in self.origins else []
            places += [origin for _, origin in self._below(path)]
            sources = {
                place.rpartition(":")[0] or place: place for place in reversed(places)
            }
            if sources:
                return " and ".join(reversed(sources.values()))
        for length in range(len(path), -1, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return ""

    def place(self, path: Key) -> str:
        """Return ``"file:line: a.b"`` for messages."""
        origin = self.origin(path)
        return f"{origin}: {dotted(path)}" if origin else dotted(path)

    def plugin_place(self, path: Key) -> str:
        """Return ``place`` of ``plugins.NAME.option``, which lies under ``options``."""
        full = (*path[:2], "options", *path[2:]) if len(path) > 2 else path
        origin = self.origin(full)
        return f"{origin}: {dotted(path)}" if origin else dotted(path)

    def get(self, path: Key, default: Any = None) -> Any:
        """Return the value at ``path``, or ``default``."""
        value: Any = self.tree
        for part in path:
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        return value

    def has(self, path: Key) -> bool:
        """Whether something, be it null, is written at ``path``."""
        return self.get(path, _NOTHING) is not _NOTHING

    def set(self, path: Key, value: Any, origin: str = "") -> None:
        """Write ``value``, making the mappings above it."""
        node = self.tree
        for depth, part in enumerate(path[:-1], start=1):
            below = node.setdefault(str(part), {})
            if not isinstance(below, dict):
                raise ConfigError(
                    f"{self.place(path[:depth])} is {below!r} and has no key "
                    f"{path[depth]!r}"
                )
            node = below
        node[str(path[-1])] = value
        self.forget(path)
        if origin:
            self.origins[path] = origin

    def pop(self, path: Key) -> Any:
        """Take the value at ``path`` out, None if there is none."""
        parent = self.get(path[:-1])
        self.forget(path)
        return parent.pop(path[-1], None) if isinstance(parent, dict) else None

    def move(self, old: Key, new: Key) -> None:
        """Move a value; its origins go with it.

        Raises:
            ConfigError: both are written, with different values.
        """
        if not self.has(old):
            return
        value = self.get(old)
        if self.has(new) and self.get(new) != value:
            raise ConfigError(
                f"{self.place(old)} is {value!r}, but {self.place(new)} is "
                f"{self.get(new)!r}: they mean the same; keep one"
            )
        moved = {(*new, *path[len(old) :]): origin for path, origin in self._below(old)}
        self.pop(old)
        self.set(new, value)
        self.origins.update(moved)

    def forget(self, path: Key) -> None:
        """Drop the origins at and below ``path``."""
        for below, _ in list(self._below(path)):
            del self.origins[below]

    def merge(self, other: Document) -> None:
        """Write every leaf of ``other`` over what is here; lists are leaves."""
        for path, value in _leaves(other.tree, ()):
            if value == {} and isinstance(self.get(path), dict):
                continue  # says that the section exists, and no more
            self.set(path, value)
        self.origins.update(other.origins)

    def _below(self, path: Key) -> Iterator[tuple[Key, str]]:
        for key, origin in list(self.origins.items()):
            if key[: len(path)] == path:
                yield key, origin


class _Nothing:
    pass


_NOTHING = _Nothing()


def _leaves(value: Any, path: Key) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, dict) and (value or not path):
        for key, below in value.items():
            yield from _leaves(below, (*path, key))
    else:
        yield path, value


def as_yaml(value: Any) -> str:
    """Return a value as YAML writes it, cut at 60 characters."""
    text = repr(value)
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    return text if len(text) <= 60 else text[:57] + "..."
