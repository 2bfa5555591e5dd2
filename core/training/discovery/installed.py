"""What is installed, of every kind, without importing any of it; and how to load one.

Installed is not enabled: this module answers questions and loads what it is told to.
A broken plugin that nobody chose costs nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import inspect
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from training.discovery.entry_points import (
    CALLBACK,
    KINDS,
    PluginInfo,
    announced,
    name_mistake,
)
from training.discovery.shipped import SHIPPED
from training.errors import PluginError, did_you_mean
from training.files.named_paths import named_path, working_directory
from training.messages.error_texts import error_text
from training.signals.handlers import Terminated

log = logging.getLogger(__name__)

__all__ = [
    "CALLBACK",
    "KINDS",
    "SHIPPED",
    "BrokenPluginError",
    "PluginInfo",
    "find",
    "installed",
    "is_file",
    "is_known",
    "load",
    "load_file",
    "name_of",
    "named_object",
    "provider",
    "use_folder",
    "way_out",
]

#: What a person calls one of each kind.
NOUNS = {
    CALLBACK: "plugin",
    "task": "task",
    "model": "model family",
    "reader": "reader",
}
#: Where a configuration names one.
WRITTEN = {CALLBACK: "plugins", "task": "task", "model": "model.type", "reader": "data"}

#: Folders whose files are offered as plugins, beside what is installed.
_FOLDERS: list[Path] = []


class BrokenPluginError(PluginError):
    """A chosen plugin raised while it was imported; the cause is its own error."""


def installed(kind: str | None = CALLBACK) -> list[PluginInfo]:
    """Return what is on the path, sorted by name and distribution; None: of every kind.

    Those that cannot be loaded are among them and say why. A name that two
    distributions claim stays in the list twice; it is an error only for those who
    choose it.
    """
    found = [*announced(), *_in_folders()]
    return sorted(each for each in found if kind in (None, each.kind))


def use_folder(folder: str | Path) -> None:
    """Offer the plugin classes in the files of ``folder``, and what pip put there.

    Each public class of a ``*.py`` file that listens to an event, or is a task, a model
    family or a reader, can be chosen by its ``name``; none is chosen by lying there.

    Raises:
        PluginError: there is no such folder.
    """
    path = _place_of(folder, Path.is_dir)
    if path is None:
        raise PluginError(f"--plugins-dir {str(folder)!r} is no folder; name a folder")
    if path not in _FOLDERS:
        _FOLDERS.append(path)
        sys.path.append(str(path))


def is_known(name: str) -> bool:
    """Whether a plugin of that name is installed, or published by this project."""
    return name in SHIPPED or any(info.name == name for info in installed())


def find(name: str, where: str = "plugins", kind: str = CALLBACK) -> PluginInfo:
    """Return what is installed as ``name``, or that in the file it names.

    Args:
        name: what the configuration says.
        where: the place that names it, for the message.
        kind: of what; a name is unique within its kind.
    Raises:
        PluginError: nobody or more than one distribution provides it, or it is
            announced in a way that cannot be read.
    """
    if is_file(name):
        path, own = _path_of(name, where), name.rpartition(":")[2]
        info = PluginInfo(
            name_of(name), str(path.parent), "-", f"{path}:{own}", str(path)
        )
        return replace(info, kind=kind)
    if name.endswith(".py"):
        raise PluginError(f"{where}: {_class_wanted(name)}")
    everything = installed(kind)
    found = [info for info in everything if info.name == name]
    if len(found) == 1:
        _refuse_broken(found[0], f"{where}: ")
        for copy in found[0].shadowed:
            log.warning(
                "%s: %s is used in version %s (%s); another copy is behind it on the "
                "path: %s",
                *(where, found[0].distribution, found[0].version, found[0].path, copy),
            )
        return found[0]
    if found:
        owners = " and ".join(provider(one) for one in found)
        raise PluginError(
            f"{where}: {NOUNS[kind]} {name!r} is provided by {owners}; {way_out(found)}"
        )
    names = sorted({info.name for info in everything})
    shipped = SHIPPED if kind == CALLBACK else {}  # the others come with the kernel
    hint = "" if name in shipped else did_you_mean(name, [*names, *shipped])
    missing = [one for one in shipped if one == name or repr(one) in hint]
    if missing and missing[0] not in names:
        hint += f"; run: pip install {SHIPPED[missing[0]]}"
    raise PluginError(
        f"{where}: {NOUNS[kind]} {name!r} is not installed{hint}{_elsewhere(name)}; "
        f"installed are: {', '.join(names) or 'none'}"
    )


def _elsewhere(name: str) -> str:
    """Return what else goes by that name, and where a configuration has such."""
    kinds = (kind for kind in WRITTEN if any(i.name == name for i in installed(kind)))
    told = "; a {} of that name is, which stands under {}"
    return next((told.format(NOUNS[kind], WRITTEN[kind]) for kind in kinds), "")


def provider(info: PluginInfo) -> str:
    """Return who provides it: a distribution, or a file that nobody installed."""
    if _is_dropped_in(info):
        return info.value or info.path
    return f"{info.distribution} {info.version}"


def way_out(rivals: Iterable[PluginInfo]) -> str:
    """Return what ends a clash of names; a file cannot be uninstalled."""
    file = next((info for info in rivals if _is_dropped_in(info)), None)
    if file is None:
        return "uninstall one of them"
    if not file.value:  # no valid code
        return f"mend or rename {file.path}"
    return f"give {file.value} another `name`"


def _is_dropped_in(info: PluginInfo) -> bool:
    return info.distribution == str(Path(info.path).parent)


def _class_wanted(name: str) -> str:
    """Return what to write in place of a file without a class."""
    from training.discovery.sources import SourceError, classes_of

    path, classes = _place_of(name, Path.is_file), ["Class"]
    if path is not None:
        with contextlib.suppress(SourceError, OSError):
            classes = list(classes_of(path)) or classes
    shown = name if "/" in name else f"./{name}"
    choices = " or ".join(f"{shown}:{each}" for each in classes)
    return f"{name!r} is a file; name a class in it, as in {choices}"


def load(info: PluginInfo) -> type[Any]:
    """Import an installed plugin and return its class.

    Raises:
        BrokenPluginError: importing it raised; that error is the cause.
        PluginError: its announcement cannot be read, or is of no class.
    """
    if is_file(info.value):
        return load_file(info.value)
    _refuse_broken(info)
    owner = _owner(info)
    try:
        entry = importlib.metadata.EntryPoint(info.name, info.value, KINDS[info.kind])
        loaded = entry.load()
    except Terminated:  # it is not the plugin that leaves
        raise
    except (Exception, SystemExit) as error:
        raise BrokenPluginError(
            f"{owner} ({info.value}) cannot be imported: "
            f"{error_text(error)}; mend, upgrade or leave it out"
        ) from error
    return _checked_class(loaded, f"{owner} ({info.value})")


#: By these words a plugin's ``chooses_metrics`` says that it loads metrics of files.
IN_A_FILE = "./file.py:NAME"


def is_file(name: str) -> bool:
    """Whether ``name`` means a class in a file, as in ``./callbacks.py:MyCallback``."""
    return ".py:" in name


def name_of(use: str) -> str:
    """Return what a plugin is called in a run unless told otherwise.

    That is the name of its entry point, or, of a class in a file, its ``name`` as in
    Python, which is read without running the file. Whatever cannot be read goes by the
    name of the class; loading it says what is wrong.
    """
    if not is_file(use):
        return use
    from training.discovery.sources import SourceError, read_class

    path, _, kind = use.rpartition(":")
    try:
        facts = read_class(Path(path).stem, kind, Path(path).resolve())
    except (SourceError, OSError):
        return kind
    name = facts.attributes.get("name")
    return name if isinstance(name, str) and name else kind


def load_file(name: str, where: str = "plugins") -> type[Any]:
    """Return the class that ``path.py:Class`` names; the file is imported once.

    Raises:
        BrokenPluginError: running the file raised; that error is the cause.
        PluginError: there is no such file, or no such class in it.
    """
    loaded = _named_in(name, where, "class", inspect.isclass)
    return _checked_class(loaded, f"{where}: {name!r}")


def named_object(text: str, where: str) -> Any:
    """Return the function, class or object that ``./file.py:NAME`` names.

    Any other text is returned as it is.

    Args:
        text: what the configuration says.
        where: the place that says it, for messages.
    Raises:
        BrokenPluginError: running the file raised; that error is the cause.
        PluginError: there is no such file, or no such name in it.
    """
    if not is_file(text):
        return text
    return _named_in(text, where, "function or class", callable)


def _named_in(name: str, where: str, noun: str, is_one: Callable[[Any], bool]) -> Any:
    """Return what ``path.py:NAME`` names, and offer what ``is_one`` where it cannot."""
    file_name, _, own_name = name.rpartition(":")
    path = _path_of(name, where)
    try:
        module = _import_file(path)
    except Terminated:  # it is not the plugin that leaves
        raise
    except (Exception, SystemExit) as error:
        raise BrokenPluginError(
            f"{where}: file {file_name!r} cannot be imported: "
            f"{error_text(error)}{_way_to_neighbour(error, path.parent)}"
        ) from error
    if not hasattr(module, own_name):
        own = [
            key
            for key, value in vars(module).items()
            if is_one(value) and getattr(value, "__module__", "") == module.__name__
        ]
        raise PluginError(
            f"{where}: {file_name!r} has no {noun} {own_name!r}"
            f"{did_you_mean(own_name, own)}; it defines: {', '.join(own) or 'none'}"
        )
    return getattr(module, own_name)


def _place_of(named: str | Path, is_there: Callable[[Path], bool]) -> Path | None:
    """Return where ``named`` leads, links followed; None: there is no such thing."""
    try:
        path = Path(os.path.realpath(named_path(named)))
        return path if is_there(path) else None
    except (OSError, ValueError):  # no system has such a path
        return None


def _path_of(name: str, where: str) -> Path:
    """Return the file of ``path.py:Class``, which must be there."""
    file_name = name.rpartition(":")[0]
    path = _place_of(file_name, Path.is_file)
    if path is None:
        raise PluginError(
            f"{where}: file {file_name!r} does not exist; the path is relative to the "
            f"working directory, {working_directory()!r}: work where it lies, or write "
            "the whole path"
        )
    return path


def _refuse_broken(info: PluginInfo, where: str = "") -> None:
    if info.trouble:
        raise PluginError(f"{where}{_owner(info)} is broken: {info.trouble}")


def _owner(info: PluginInfo) -> str:
    return f"{NOUNS[info.kind]} {info.name!r} of {info.distribution} {info.version}"


def _in_folders() -> list[PluginInfo]:
    """Return the plugin classes in files of the folders in use.

    A file that is no valid code is listed by its name, with the reason.
    """
    from training.discovery.sources import SourceError, classes_of, read_class

    found = []
    for folder in _FOLDERS:
        for file in sorted(folder.glob("*.py")):
            try:
                classes = {n: read_class(file.stem, n, file) for n in classes_of(file)}
            except SourceError as error:
                info = PluginInfo(file.stem, str(folder), "-", "", str(file))
                found.append(replace(info, trouble=str(error)))
                continue
            for name, facts in classes.items():
                called = str(facts.attributes.get("name") or name)
                place = (str(folder), "-", f"{file}:{name}", str(file))
                for kind in facts.kinds:
                    told = (), name_mistake(called, kind), kind
                    found.append(PluginInfo(called, *place, *told))
    return found


def _import_file(path: Path) -> ModuleType:
    """Run ``path`` as a module of its own name; unchanged files are run once."""
    stamp = f"{path}:{path.stat().st_mtime_ns}"
    digest = hashlib.sha256(stamp.encode()).hexdigest()[:12]
    name = f"trainbus_file_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickle look it up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _way_to_neighbour(error: BaseException, folder: Path) -> str:
    """Return what lets a file import the module that it misses and that lies there."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    places = (f"{name}.py", f"{name}/**/*.py")  # a folder without any is no package
    if not name or not any(next(folder.glob(each), None) for each in places):
        return ""
    return (
        "; it lies beside that file, where Python does not look by itself: start with "
        f"PYTHONPATH={shlex.quote(str(folder))}"
    )


def _checked_class(loaded: Any, owner: str) -> type[Any]:
    if not inspect.isclass(loaded):
        raise PluginError(
            f"{owner} is {type(loaded).__name__}, not a class; an entry point names "
            "the class whose instances are plugins"
        )
    return loaded
