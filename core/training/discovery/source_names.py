"""Find the class that a name means in source code, without running any of it.

Names are followed through imports, assignments and classes in classes. Where only a run
can tell what a name means, ``UnknownSourceError`` says so: nothing is wrong then.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from training.discovery.shipped import PLUGIN_NAMES

#: Doors of the kernel that make their names when asked.
DOORS = ("training", "training.callbacks")


class SourceError(Exception):
    """The source code shows that the class cannot be loaded; the message says why."""


class UnknownSourceError(SourceError):
    """The source code does not show whether the class can be loaded, or what it is."""


@dataclass(frozen=True, slots=True)
class Import:
    """What a name is imported from; ``name`` is None for the module itself."""

    module: str
    name: str | None


#: What a name is bound to: a class, something imported, or the expression assigned.
Binding = ast.ClassDef | Import | ast.expr | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(slots=True)
class Module:
    """A parsed module.

    Attributes:
        name: dotted.
        file: where it is written.
        bindings: what its names mean; of two meanings the later one, a class if any.
        stars: modules that all names are imported from.
    """

    name: str
    file: Path
    bindings: dict[str, Binding] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)


def find_class(
    module: str, path: str, file: Path | None = None
) -> tuple[Module, ast.ClassDef]:
    """Return the class that ``path`` means in ``module``, and the module it is in.

    Args:
        module: dotted name; its top package must be on the path.
        path: a name, or names with dots between them.
        file: read the module here instead.
    Raises:
        SourceError: there is no such module or class, or no valid code.
        UnknownSourceError: only a run could tell.
    """
    words = path.split(".")
    if file is not None:
        return find_in(parse(module, file), words)
    return _find(module, words, frozenset())


def find_in(
    module: Module, path: Sequence[str], seen: frozenset[str] = frozenset()
) -> tuple[Module, ast.ClassDef]:
    """Return what ``path`` means in a parsed module; otherwise as ``find_class``."""
    key = f"{module.name}:{'.'.join(path)}"
    if key in seen:
        raise UnknownSourceError(f"{key} is imported in a circle")
    seen = seen | {key}
    head, rest = path[0], path[1:]
    binding = module.bindings.get(head)
    # `from . import inner` in a package: the name means its own module.
    is_inner = isinstance(binding, Import) and binding == Import(module.name, head)
    if binding is None or is_inner:
        return _find_unbound(module, path, seen)
    if isinstance(binding, Import):
        words = rest if binding.name is None else [binding.name, *rest]
        if not words:
            raise SourceError(f"{key} is a module, not a class")
        return _find(binding.module, words, seen)
    if isinstance(binding, ast.ClassDef):
        if not rest:
            return module, binding
        inner = Module(f"{module.name}.{head}", module.file, dict(module.bindings))
        _bind(inner, binding.body, module.name)
        return find_in(inner, rest, seen)
    if isinstance(binding, (ast.Name, ast.Attribute)):
        return find_in(module, [*ast.unparse(binding).split("."), *rest], seen)
    if isinstance(binding, (ast.FunctionDef, ast.AsyncFunctionDef)):
        raise SourceError(f"{key} is a function, not a class ({module.file})")
    raise UnknownSourceError(f"{key} is computed ({module.file})")


def parse(name: str, file: Path) -> Module:
    """Return the module ``name`` that is written in ``file``; nobody changes it.

    Raises:
        SourceError: it is no valid code.
    """
    try:
        stamp = file.stat()
        return _parsed(name, file, (stamp.st_mtime_ns, stamp.st_size))
    except (SyntaxError, ValueError, OSError) as error:
        raise SourceError(f"{file} cannot be read: {error}") from error


# Some 3 ms a file, and one list asks for the bases of plugins again and again.
@lru_cache(maxsize=16)
def _parsed(name: str, file: Path, stamp: tuple[int, int]) -> Module:
    tree = ast.parse(file.read_bytes(), str(file))
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    module = Module(name, file)
    _bind(module, tree.body, package)
    return module


def _find(
    module: str, path: Sequence[str], seen: frozenset[str]
) -> tuple[Module, ast.ClassDef]:
    if module in DOORS and path[0] in PLUGIN_NAMES:
        module = PLUGIN_NAMES[path[0]]
    elif module == "training" and path[0] == "Callback":
        module = "training.callbacks"
    return find_in(parse(module, _file_of(module)), path, seen)


def _find_unbound(
    module: Module, path: Sequence[str], seen: frozenset[str]
) -> tuple[Module, ast.ClassDef]:
    """Look where a name comes from that no statement of the module binds."""
    if len(path) > 1 and module.file.name == "__init__.py":
        try:
            return _find(f"{module.name}.{path[0]}", path[1:], seen)
        except UnknownSourceError:
            raise
        except SourceError:
            pass  # no submodule of that name
    for star in module.stars:
        try:
            return _find(star, path, seen)
        except SourceError:
            continue
    where = f"module {module.name!r} has no class {path[0]!r} ({module.file})"
    if module.stars:
        raise UnknownSourceError(f"{where}, but imports all names of others")
    if "__getattr__" in module.bindings:
        raise UnknownSourceError(f"{where}, but makes names when asked")
    raise SourceError(where)


def _bind(module: Module, body: Sequence[ast.stmt], package: str) -> None:
    """Note what the statements bind, those in ``if``, ``try`` and ``with`` as well."""
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            module.bindings[node.name] = node
        elif isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                source = alias.name if alias.asname else top
                module.bindings[alias.asname or top] = Import(source, None)
        elif isinstance(node, ast.ImportFrom):
            source = _source(node, package)
            for alias in node.names:
                if alias.name == "*":
                    module.stars.append(source)
                else:
                    imported = Import(source, alias.name)
                    _keep_class(module, alias.asname or alias.name, imported)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    _keep_class(module, target.id, node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            if isinstance(node.target, ast.Name):
                _keep_class(module, node.target.id, node.value)
        else:
            for inner in _bodies(node):
                _bind(module, inner, package)


def _keep_class(module: Module, name: str, binding: Binding) -> None:
    """Bind a name, but let a class or an import stand before ``X = None``."""
    earlier = module.bindings.get(name)
    is_constant = isinstance(binding, ast.Constant)
    if not (is_constant and isinstance(earlier, (ast.ClassDef, Import))):
        module.bindings[name] = binding


def _bodies(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        yield getattr(node, name, [])
    for handler in getattr(node, "handlers", []):
        yield handler.body


def _source(node: ast.ImportFrom, package: str) -> str:
    """Return the absolute name of the module that is imported from."""
    parts = package.split(".")
    above = parts[: len(parts) - node.level + 1] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


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
        if rest:
            raise SourceError(f"module {module!r} is not found: {top!r} is no package")
        if not (spec.origin or "").endswith(".py"):
            raise UnknownSourceError(f"module {module!r} has no source code")
        return Path(spec.origin or "")
    for place in places:
        path = Path(place, *rest)
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file() and (rest or file.name == "__init__.py"):
                return file
        if path.is_dir() or any(path.parent.glob(f"{path.name}.*")):
            raise UnknownSourceError(f"module {module!r} has no source code")
    raise SourceError(f"module {module!r} is not found in {', '.join(places)}")
