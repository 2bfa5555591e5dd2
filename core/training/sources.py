"""Read what a plugin is from its source code, without running any of it.

Good for a list that must be fast and must show broken plugins as well. What only a run
can tell (a computed attribute, an import that fails) is left to loading.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.hookspecs import HOOKS

__all__ = [
    "Option",
    "SourceError",
    "SourceFacts",
    "classes_of",
    "documented",
    "read_class",
]


class SourceError(Exception):
    """The class cannot be found in readable source code; the message says why."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option, as the constructor's signature and the class's docstring say it."""

    name: str
    type: str
    default: str | None
    doc: str


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What the source code of a plugin class says.

    Attributes:
        file: where the class is written.
        doc: the docstring.
        hooks: the events it listens to, in firing order.
        wrappers: those among them that it surrounds.
        options: of the constructor, in its order.
        attributes: class attributes with literal values, those of bases included.
        unread: names of class attributes with computed values.
        misspelt: methods that start with ``on_`` and are no hook.
        state: first line of ``state_dict``'s docstring, "" if it keeps no state.
    """

    file: Path
    doc: str
    hooks: tuple[str, ...]
    wrappers: tuple[str, ...]
    options: tuple[Option, ...]
    attributes: Mapping[str, Any]
    unread: tuple[str, ...]
    misspelt: tuple[str, ...]
    state: str


@dataclass(slots=True)
class _Found:
    """A class with what it inherits, merged; its own first."""

    file: Path
    doc: str
    is_callback: bool = False
    methods: dict[str, ast.FunctionDef] = field(default_factory=dict)
    values: dict[str, ast.expr] = field(default_factory=dict)


def read_class(module: str, name: str, file: Path | None = None) -> SourceFacts:
    """Return the facts about class ``name`` of ``module``.

    Args:
        module: dotted name; its top package must be on the path.
        name: the class, or what the module imports it as.
        file: read the module here instead.
    Raises:
        SourceError: there is no such module, class, or valid code.
    """
    found = _find(module, name, file, set())
    hooks = tuple(hook for hook in HOOKS if _is_hook(found, hook))
    attributes, unread = {}, []
    for key, value in found.values.items():
        try:
            attributes[key] = ast.literal_eval(value)
        except ValueError:
            unread.append(key)
    wrapped = (hook for hook in hooks if "wrapper=True" in _marks(found.methods[hook]))
    misspelt = [key for key in found.methods if key.startswith("on_")]
    has_state = "state_dict" in found.methods
    words = ast.get_docstring(found.methods["state_dict"]) if has_state else ""
    return SourceFacts(
        found.file,
        found.doc,
        hooks,
        tuple(wrapped),
        tuple(_options(found)),
        attributes,
        tuple(unread),
        tuple(k for k in misspelt if found.is_callback and k not in HOOKS),
        (words or "kept").split("\n")[0] if has_state else "",
    )


def classes_of(file: Path) -> list[str]:
    """Return the public classes of a file; none if it is no valid code."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError, OSError):
        return []
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    return [name for name in names if not name.startswith("_")]


def documented(doc: str, section: str = "Args") -> dict[str, str]:
    """Return name -> text of a section of a Google docstring."""
    texts: dict[str, str] = {}
    inside, name = False, ""
    for line in doc.split("\n"):
        if not line.startswith(" "):
            inside = line.strip() == f"{section}:" or (inside and not line.strip())
            continue
        entry = re.match(r"    (\w+)(?: \([^)]*\))?:\s*(.*)", line) if inside else None
        if entry:
            name = entry[1]
            texts[name] = entry[2]
        elif inside and name:
            texts[name] = f"{texts[name]} {line.strip()}".strip()
    return texts


def _find(module: str, name: str, file: Path | None, seen: set[str]) -> _Found:
    if f"{module}:{name}" in seen:
        raise SourceError(f"{module}:{name} is imported in a circle")
    seen = seen | {f"{module}:{name}"}
    file = file or _file_of(module)
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError, OSError) as error:
        raise SourceError(f"{file} cannot be read: {error}") from error
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _merged(module, node, file, tree, seen)
    source = _origins(tree, module, file).get(name)
    if source is None:
        raise SourceError(f"module {module!r} has no class {name!r} ({file})")
    return _find(*source, None, seen)


def _merged(
    module: str, node: ast.ClassDef, file: Path, tree: ast.Module, seen: set[str]
) -> _Found:
    found = _Found(file, ast.get_docstring(node) or "")
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            found.methods[item.name] = item
        elif isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            found.values[item.targets[0].id] = item.value
        elif isinstance(item, ast.AnnAssign) and item.value is not None:
            found.values[ast.unparse(item.target)] = item.value
    origins = _origins(tree, module, file)
    for base in node.bases:
        text = ast.unparse(base)
        if text.rpartition(".")[2] == "Callback":
            found.is_callback = True
            continue
        parent = _base(text, module, file, origins, seen)
        if parent is not None:
            found.is_callback = found.is_callback or parent.is_callback
            found.methods = {**parent.methods, **found.methods}
            found.values = {**parent.values, **found.values}
    return found


def _base(
    text: str,
    module: str,
    file: Path,
    origins: Mapping[str, tuple[str, str]],
    seen: set[str],
) -> _Found | None:
    """Return a base class, None when its source is out of reach."""
    try:
        if text in origins:
            return _find(*origins[text], None, seen)
        return _find(module, text, file, seen)
    except SourceError:
        return None


def _origins(tree: ast.Module, module: str, file: Path) -> dict[str, tuple[str, str]]:
    """Return name -> (module, its name there) for every ``from ... import``."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                found[alias.asname or alias.name] = (source, alias.name)
    return found


def _file_of(module: str) -> Path:
    """Return the file of ``module``; only its top package is looked up by Python."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise SourceError(f"module {top!r} is not found")
    places = spec.submodule_search_locations
    if places is None:
        if rest or not (spec.origin or "").endswith(".py"):
            raise SourceError(f"module {module!r} has no source code")
        return Path(spec.origin or "")
    for place in places:
        path = Path(place, *rest)
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file() and (rest or file.name == "__init__.py"):
                return file
    raise SourceError(f"module {module!r} is not found in {', '.join(places)}")


def _is_hook(found: _Found, hook: str) -> bool:
    method = found.methods.get(hook)
    if method is None:
        return False
    return found.is_callback or "hookimpl" in _marks(method)


def _marks(method: ast.FunctionDef) -> str:
    return " ".join(ast.unparse(mark) for mark in method.decorator_list)


def _options(found: _Found) -> Iterator[Option]:
    init = found.methods.get("__init__")
    if init is None:
        return
    told = documented(found.doc)
    positional = [*init.args.posonlyargs, *init.args.args]
    missing = [None] * (len(positional) - len(init.args.defaults))
    pairs = zip(positional, [*missing, *init.args.defaults], strict=True)
    keyword = zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
    for argument, default in [*list(pairs)[1:], *keyword]:
        kind = "" if argument.annotation is None else ast.unparse(argument.annotation)
        text = None if default is None else ast.unparse(default)
        yield Option(argument.arg, kind, text, told.get(argument.arg, ""))
