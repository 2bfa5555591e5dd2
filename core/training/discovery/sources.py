"""Read what a plugin is from its source code, without running any of it.

Good for a list that must be fast and must show broken plugins as well. What only a run
can tell (a computed attribute, an import that fails) is left to loading.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
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


#: A method, and its decorators as text.
Method = tuple[Function, str]


@dataclass
class SourceFacts:
    """What the source code of a plugin class says, with what it inherits.

    Attributes:
        file: where the class is written.
        doc: the docstring.
        is_callback: whether it derives from ``Callback``.
        methods: by name, its own before those of bases.
        values: class attributes and what is assigned to them, likewise.
        fields: options, where a dataclass makes the constructor.
        unseen: bases that cannot be read; what they add is not told.
    """

    file: Path
    doc: str
    is_callback: bool = False
    methods: dict[str, Method] = field(default_factory=dict)
    values: dict[str, ast.expr] = field(default_factory=dict)
    fields: dict[str, ast.AnnAssign] | None = None
    unseen: tuple[str, ...] = ()

    @cached_property
    def hooks(self) -> tuple[str, ...]:
        """The events it listens to, in firing order."""
        return tuple(hook for hook in HOOKS if _is_hook(self, hook))

    @property
    def wrappers(self) -> tuple[str, ...]:
        """Those among them that it surrounds."""
        return tuple(h for h, (_, marks) in self._heard() if "wrapper=True" in marks)

    @property
    def asynchronous(self) -> tuple[str, ...]:
        """Hooks that are ``async def``, which nobody awaits."""
        kind = ast.AsyncFunctionDef
        return tuple(h for h, (method, _) in self._heard() if isinstance(method, kind))

    def _heard(self) -> list[tuple[str, Method]]:
        return [(h, self.methods[h]) for h in self.hooks if h in self.methods]

    @property
    def misspelt(self) -> tuple[str, ...]:
        """Methods that start with ``on_`` and are no hook."""
        if not self.is_callback or self.unseen:
            return ()
        names = (name for name in self.methods if name not in HOOKS)
        return tuple(name for name in names if name.startswith("on_"))

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Class attributes with literal values."""
        found = {}
        for name, value in self.values.items():
            with suppress(ValueError):
                found[name] = ast.literal_eval(value)
        return found

    @property
    def unread(self) -> set[str]:
        """Names of class attributes with computed values."""
        return self.values.keys() - self.attributes.keys()

    @property
    def state(self) -> str:
        """First line of ``state_dict``'s docstring, "" if it keeps no state."""
        if "state_dict" not in self.methods:
            return ""
        words = ast.get_docstring(self.methods["state_dict"][0]) or "kept"
        return words.split("\n")[0]

    @property
    def options(self) -> list[Option]:
        """Those of the constructor, in its order."""
        told = documented(self.doc)
        if "__init__" in self.methods:
            return list(_parameters(self.methods["__init__"][0], told))
        kinds = {n: _kind(item.annotation) for n, item in (self.fields or {}).items()}
        return [
            Option(name, kinds[name], _default(item.value), told.get(name, ""))
            for name, item in (self.fields or {}).items()
            if "ClassVar" not in kinds[name] and "init=False" not in _text(item.value)
        ]

    @property
    def build_options(self) -> list[Option]:
        """What ``build`` of a model family takes by keyword only."""
        if "build" not in self.methods:
            return []
        function, _ = self.methods["build"]
        names = {argument.arg for argument in function.args.kwonlyargs}
        told = documented(ast.get_docstring(function) or "")
        return [o for o in _parameters(function, told) if o.name in names]

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the class can be chosen as, by what it defines; () for nothing."""
        has = self.methods.keys()
        shapes = {
            "callback": bool(self.hooks or self.misspelt),
            "task": {"score", "fields", "target"} <= has | self.values.keys(),
            "model": {"collate", "predict"} <= has,
            "reader": {"__len__", "__getitem__", "place"} <= has,
        }
        return tuple(kind for kind, fits in shapes.items() if fits)


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
    return _merged(*find_class(module, name, file))


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


def _merged(module: Module, node: ast.ClassDef) -> SourceFacts:
    found = SourceFacts(module.file, ast.get_docstring(node) or "")
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
    found: SourceFacts, child: ast.ClassDef, base: ast.expr, module: Module
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
        found.unseen += (text,)
        return
    found.is_callback = found.is_callback or parent.is_callback
    own = found.methods.keys() | found.values.keys()
    found.methods |= {k: v for k, v in parent.methods.items() if k not in own}
    found.values |= {k: v for k, v in parent.values.items() if k not in own}
    found.unseen += parent.unseen
    if parent.fields is not None and "__init__" not in found.methods:
        found.fields = {**parent.fields, **(found.fields or {})}


def _is_hook(found: SourceFacts, hook: str) -> bool:
    """Whether it listens to ``hook``; a base that cannot be read may be a Callback."""
    may_be = found.is_callback or bool(found.unseen)
    if hook in found.methods:
        is_marked = "hookimpl" in found.methods[hook][1]
        return is_marked or (may_be and _is_meant(found, hook))
    value = found.values.get(hook)
    is_none = isinstance(value, ast.Constant) and value.value is None
    return may_be and value is not None and not is_none


def _is_meant(found: SourceFacts, hook: str) -> bool:
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
