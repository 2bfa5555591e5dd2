"""Read what a plugin is from its source code, without running any of it.

Good for a list that must be fast and must show broken plugins as well. What only a run
can tell (a computed attribute, an import that fails) is left to loading.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.discovery.source_names import (
    Import,
    Module,
    SourceError,
    UnknownSourceError,
    find_class,
    find_in,
    parse,
)
from training.hooks.hook_api import is_meant
from training.hookspecs import HOOKS

__all__ = [
    "Option",
    "SourceError",
    "SourceFacts",
    "UnknownSourceError",
    "classes_of",
    "documented",
    "read_class",
]

Function = ast.FunctionDef | ast.AsyncFunctionDef

#: Bounds in annotations, in the names of ``annotated_types``, and their signs.
_SIGNS = {"Ge": ">=", "Gt": ">", "Le": "<=", "Lt": "<"}
_SIGNS |= {"MinLen": "length >=", "MaxLen": "length <="}


#: A call that holds a default: of a dataclass, or pydantic's.
_FIELD = re.compile(r"field$|\bField$")


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
        build_options: of ``build``, where a model family makes a fresh model.
        attributes: class attributes with literal values, those of bases included.
        unread: names of class attributes with computed values.
        misspelt: methods that start with ``on_`` and are no hook.
        asynchronous: hooks that are ``async def``, which nobody awaits.
        unseen: bases that cannot be read; what they add is not told.
        methods: names of its methods, those of bases included.
        state: first line of ``state_dict``'s docstring, "" if it keeps no state.
    """

    file: Path
    doc: str
    hooks: tuple[str, ...]
    wrappers: tuple[str, ...]
    options: tuple[Option, ...]
    build_options: tuple[Option, ...]
    attributes: Mapping[str, Any]
    unread: tuple[str, ...]
    misspelt: tuple[str, ...]
    asynchronous: tuple[str, ...]
    unseen: tuple[str, ...]
    methods: frozenset[str]
    state: str

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the class can be chosen as, by what it defines; () for nothing."""
        has = self.methods
        shapes = {
            "callback": bool(self.hooks or self.misspelt),
            "task": {"score", "fields", "target"} <= has | self._values,
            "model": {"collate", "predict"} <= has,
            "reader": {"__len__", "__getitem__", "place"} <= has,
        }
        return tuple(kind for kind, fits in shapes.items() if fits)

    @property
    def _values(self) -> frozenset[str]:
        return frozenset([*self.attributes, *self.unread])


@dataclass(slots=True)
class _Found:
    """A class with what it inherits, merged; its own first.

    Attributes:
        methods: name -> (function, its decorators as text).
        values: class attributes and what is assigned to them.
        fields: options, where a dataclass makes the constructor.
        unseen: bases that cannot be read.
    """

    file: Path
    doc: str
    is_callback: bool = False
    methods: dict[str, tuple[Function, str]] = field(default_factory=dict)
    values: dict[str, ast.expr] = field(default_factory=dict)
    fields: dict[str, ast.AnnAssign] | None = None
    unseen: list[str] = field(default_factory=list)


def read_class(module: str, name: str, file: Path | None = None) -> SourceFacts:
    """Return the facts about class ``name`` of ``module``.

    Args:
        module: dotted name; its top package must be on the path.
        name: the class, what the module calls it, or a class in a class: ``A.B``.
        file: read the module here instead.
    Raises:
        SourceError: there is no such module, class, or valid code.
        UnknownSourceError: only a run could tell what the name means.
    """
    found = _merged(*find_class(module, name, file))
    hooks = tuple(hook for hook in HOOKS if _is_hook(found, hook))
    attributes, unread = {}, []
    for key, value in found.values.items():
        try:
            attributes[key] = ast.literal_eval(value)
        except ValueError:
            unread.append(key)
    heard = {hook: found.methods[hook] for hook in hooks if hook in found.methods}
    misspelt = [key for key in found.methods if key.startswith("on_")]
    is_certain = found.is_callback and not found.unseen
    state = found.methods.get("state_dict")
    words = ast.get_docstring(state[0]) if state else ""
    return SourceFacts(
        found.file,
        found.doc,
        hooks,
        tuple(hook for hook in heard if "wrapper=True" in heard[hook][1]),
        tuple(_options(found)),
        tuple(_build_options(found)),
        attributes,
        tuple(unread),
        tuple(k for k in misspelt if is_certain and k not in HOOKS),
        tuple(h for h in heard if isinstance(heard[h][0], ast.AsyncFunctionDef)),
        tuple(found.unseen),
        frozenset(found.methods),
        (words or "kept").split("\n")[0] if state else "",
    )


def classes_of(file: Path) -> list[str]:
    """Return the public classes of a file.

    Raises:
        SourceError: it is no valid code.
    """
    bindings = parse(file.stem, file).bindings
    classes = [name for name, b in bindings.items() if isinstance(b, ast.ClassDef)]
    return [name for name in classes if not name.startswith("_")]


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


def _merged(module: Module, node: ast.ClassDef) -> _Found:
    found = _Found(module.file, ast.get_docstring(node) or "")
    for item in node.body:
        if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.methods[item.name] = item, _marks(item, module)
        elif isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            found.values[item.targets[0].id] = item.value
        elif isinstance(item, ast.AnnAssign) and item.value is not None:
            found.values[ast.unparse(item.target)] = item.value
    if any("dataclass" in ast.unparse(mark) for mark in node.decorator_list):
        found.fields = {
            ast.unparse(item.target): item
            for item in node.body
            if isinstance(item, ast.AnnAssign)
        }
    for base in node.bases:
        _inherit(found, node, base, module)
    return found


def _inherit(
    found: _Found, child: ast.ClassDef, base: ast.expr, module: Module
) -> None:
    """Add what ``base`` has and the class itself does not."""
    text = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
    if text not in module.bindings and hasattr(builtins, text):
        return
    try:
        where, node = find_in(module, text.split("."))
        if node is child:
            raise UnknownSourceError(f"{text} is a base of its own name")
        if (where.name, node.name) == ("training.bus.callback", "Callback"):
            found.is_callback = True
            return
        parent = _merged(where, node)
    except (SourceError, RecursionError):
        found.unseen.append(text)
        return
    found.is_callback = found.is_callback or parent.is_callback
    own = found.methods.keys() | found.values.keys()
    found.methods |= {k: v for k, v in parent.methods.items() if k not in own}
    found.values |= {k: v for k, v in parent.values.items() if k not in own}
    found.unseen += parent.unseen
    if parent.fields is not None and "__init__" not in found.methods:
        found.fields = {**parent.fields, **(found.fields or {})}


def _is_hook(found: _Found, hook: str) -> bool:
    """Whether it listens to ``hook``; a base that cannot be read may be a Callback."""
    may_be = found.is_callback or bool(found.unseen)
    if hook in found.methods:
        is_marked = "hookimpl" in found.methods[hook][1]
        return is_marked or (may_be and _is_meant(found, hook))
    value = found.values.get(hook)
    is_none = isinstance(value, ast.Constant) and value.value is None
    return may_be and value is not None and not is_none


def _is_meant(found: _Found, hook: str) -> bool:
    """Whether a method of that name is the hook in the API that the class is for."""
    value = found.values.get("hook_api")
    declared = value.value if isinstance(value, ast.Constant) else None
    try:
        return is_meant(hook, declared if isinstance(declared, str) else None)
    except Exception:  # no range; loading says so
        return True


def _marks(method: Function, module: Module) -> str:
    """Return the decorators, ``hookimpl`` by that name whatever it is imported as."""
    text = " ".join(ast.unparse(mark) for mark in method.decorator_list)
    for name, binding in module.bindings.items():
        if isinstance(binding, Import) and binding.name == "hookimpl":
            text = re.sub(rf"\b{name}\b", "hookimpl", text)
    return text


def _options(found: _Found) -> Iterator[Option]:
    told = documented(found.doc)
    if "__init__" not in found.methods:
        for name, item in (found.fields or {}).items():
            kind = _kind(item.annotation)
            if "ClassVar" not in kind and "init=False" not in _text(item.value):
                yield Option(name, kind, _default(item.value), told.get(name, ""))
        return
    yield from _parameters(found.methods["__init__"][0], told)


def _build_options(found: _Found) -> Iterator[Option]:
    """Yield what ``build`` of a family takes by keyword only: its options."""
    if "build" in found.methods:
        function = found.methods["build"][0]
        names = {argument.arg for argument in function.args.kwonlyargs}
        told = documented(ast.get_docstring(function) or "")
        yield from (o for o in _parameters(function, told) if o.name in names)


def _parameters(function: Function, told: Mapping[str, str]) -> Iterator[Option]:
    """Yield the parameters of a method, but for ``self``."""
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    missing = [None] * (len(positional) - len(given.defaults))
    pairs = zip(positional, [*missing, *given.defaults], strict=True)
    keyword = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    for argument, default in [*list(pairs)[1:], *keyword]:
        kind = _kind(argument.annotation)
        yield Option(argument.arg, kind, _default(default), told.get(argument.arg, ""))


def _kind(annotation: ast.expr | None) -> str:
    """Return an annotation as text, ``Annotated[int, Ge(1)]`` as ``int >= 1``."""
    if annotation is None:
        return ""
    text = ast.unparse(annotation)
    for node in ast.walk(annotation):  # outer ones first
        match node:
            case ast.Subscript(
                ast.Name("Annotated"), ast.Tuple([kind, *rules])
            ) as whole:
                bounds = ", ".join(map(_rule, rules))
                text = text.replace(ast.unparse(whole), f"{ast.unparse(kind)} {bounds}")
    return text


def _rule(node: ast.expr) -> str:
    match node:
        case ast.Call(ast.Name(name), [bound], []) if name in _SIGNS:
            return f"{_SIGNS[name]} {ast.unparse(bound).removeprefix('math.')}"
    return ast.unparse(node)


def _text(node: ast.expr | None) -> str:
    return "" if node is None else ast.unparse(node)


def _default(value: ast.expr | None) -> str | None:
    """Return a default as text, of a field the one in it; None where there is none.

    A field is that of a dataclass, or pydantic's ``Field``.
    """
    if not isinstance(value, ast.Call) or not _FIELD.search(_text(value.func)):
        return None if value is None else ast.unparse(value)
    given = {each.arg: _text(each.value) for each in value.keywords}
    if "default_factory" in given:
        return f"{given['default_factory']}()"
    default = _text(value.args[0]) if value.args else given.get("default")
    return None if default == "..." else default
