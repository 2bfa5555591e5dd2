"""What installed distributions announce; nothing of theirs is imported.

Whatever is wrong with one announcement is written on it, and hurts no other.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from training.messages.error_texts import text_of

CALLBACK = "callback"
#: What is announced -> the entry-point group for it. A name is unique within its group.
KINDS = {
    CALLBACK: "trainbus",
    "task": "trainbus.tasks",
    "model": "trainbus.models",
    "reader": "trainbus.readers",
}

#: ``module:Class``, maybe with extras behind it, which pip has long seen to.
_VALUE = re.compile(r"\s*([\w.]+)\s*:\s*([\w.]+)\s*(?:\[.*\])?\s*")


@dataclass(frozen=True, slots=True, order=True)
class PluginInfo:
    """One installed plugin of any kind, as its distribution announces it.

    Attributes:
        name: what a configuration calls it.
        distribution: the distribution that provides it.
        version: that distribution's version.
        value: ``"module:Class"``, or ``"path.py:Class"`` for one in a folder.
        path: the file or folder that would be imported; ``""`` if none is found.
        shadowed: ``"version (folder)"`` of other copies of the distribution that are on
            the path and are not used.
        trouble: why it cannot be loaded, ``""`` if the announcement can be read.
        kind: one of ``KINDS``.
    """

    name: str
    distribution: str
    version: str
    value: str
    path: str
    shadowed: tuple[str, ...] = ()
    trouble: str = ""
    kind: str = CALLBACK


def announced() -> list[PluginInfo]:
    """Return every announcement on the path, in the order of the path.

    A distribution that is listed twice (as an editable one is) counts once: the copy
    whose code is imported, or would be. Read once, some 10 ms, until a folder of the
    path changes: a command asks for each name that its configuration has.
    """
    return list(_announced(tuple(_stamp(entry) for entry in sys.path)))


def unreadable(error: BaseException) -> str:
    """Return whose entry points nobody can read for this very error, and why.

    ``""`` if nobody's: others may be broken, of which the error says nothing.
    """
    for distribution in metadata.distributions():
        try:
            list(distribution.entry_points)
        except Exception as met:  # whatever a parser makes of a broken file
            if type(met) is not type(error) or text_of(met) != text_of(error):
                continue
            name, version = _identity(distribution)
            place = Path(str(distribution.locate_file("")))
            return f"{name} {version} ({place}): {_trouble(name, met)}"
    return ""


def name_mistake(name: str, kind: str) -> str:
    """Return why ``-p`` and ``--set`` could not name a plugin so, ``""`` if they could.

    Other kinds are values in a configuration, and never part of a key.
    """
    parting = [sign for sign in ".,:" if sign in name]
    if kind != CALLBACK or not parting:
        return ""
    return (
        f"its name {name!r} has a {parting[0]!r}, which parts words on a command line; "
        "rename it where it is announced"
    )


def _stamp(entry: str) -> tuple[str, int]:
    """Return a place of the path, and when something was last put into it."""
    try:
        return entry, os.stat(entry or os.curdir).st_mtime_ns
    except OSError:
        return entry, 0


@lru_cache(maxsize=1)
def _announced(path: tuple[tuple[str, int], ...]) -> tuple[PluginInfo, ...]:
    copies: dict[tuple[str, ...], list[tuple[PluginInfo, Path]]] = {}
    for distribution in metadata.distributions():
        for info in _read(distribution):
            owner = re.sub(r"[-_.]+", "-", info.distribution).lower()
            key = info.kind, info.name, owner
            place = Path(str(distribution.locate_file("")))
            copies.setdefault(key, []).append((info, place))
    return tuple(_used(each) for each in copies.values())


def _used(copies: list[tuple[PluginInfo, Path]]) -> PluginInfo:
    """Return the copy that lies where the code is; it notes those that are hidden."""
    used = next((each for each in copies if _is_inside(*each)), copies[0])
    hidden = [each for each in copies if each[0].version != used[0].version]
    if not _is_inside(*used) and _holds(*used):  # a foreign module stands before it
        hidden.append(used)
    notes = (f"{info.version} ({place})" for info, place in hidden)
    return replace(used[0], shadowed=tuple(dict.fromkeys(notes)))


def _is_inside(info: PluginInfo, place: Path) -> bool:
    """Whether the code that would be imported is in the folder of the distribution."""
    return bool(info.path) and place in Path(info.path).parents


def _holds(info: PluginInfo, place: Path) -> bool:
    """Whether that folder has code of that name, as that of an editable one has not."""
    top = info.value.partition(":")[0].partition(".")[0]
    # Without one, what it announces could not be read.
    return bool(top) and ((place / f"{top}.py").is_file() or (place / top).is_dir())


def _read(distribution: metadata.Distribution) -> Iterator[PluginInfo]:
    """Yield what a distribution announces, be it that it cannot be understood."""
    try:
        text = distribution.read_text("entry_points.txt") or ""
        # A text search first: parsing the metadata of all distributions is slow.
        if not any(f"[{group}]" in text for group in KINDS.values()):
            return
        entries = list(distribution.entry_points)
    except Exception as error:  # whatever a parser makes of a broken file
        name, version = _identity(distribution)
        yield PluginInfo(name, name, version, "", "", trouble=_trouble(name, error))
        return
    name, version = _identity(distribution)
    kinds = {group: kind for kind, group in KINDS.items()}
    for entry in entries:
        if entry.group not in kinds:
            continue
        value, path, kind = entry.value, "", kinds[entry.group]
        trouble = name_mistake(entry.name, kind)
        if match := _VALUE.fullmatch(value):
            value, path = ":".join(match.groups()), _locate(match[1])
        else:
            trouble = f"its entry point is {value!r}, but must be 'module:Class'"
        told = (value, path, (), trouble, kind)
        yield PluginInfo(entry.name, name, version, *told)


def _trouble(name: str, error: Exception) -> str:
    return f"its entry_points.txt cannot be read, {error}; reinstall {name}"


def _identity(distribution: metadata.Distribution) -> tuple[str, str]:
    """Return name and version, from the name of its folder where need be."""
    folder = Path(str(getattr(distribution, "_path", "")))  # there is no public way
    name, _, version = folder.stem.partition("-")
    try:
        facts = distribution.metadata
        return facts["Name"] or name or "unknown", facts["Version"] or version or "-"
    except Exception:  # whatever a parser makes of a broken file
        return name or "unknown", version or "-"


def _locate(module: str) -> str:
    """Return where ``module`` would come from; only its top package is looked up.

    Looking up a submodule would import its package.
    """
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return ""
    if spec is None:
        return ""
    places = spec.submodule_search_locations  # a namespace package has no file
    return spec.origin or next(iter(places or ()), "")
