"""What functions carry from call to call: read before they write it, by their source.

``self.h = self.cell(x, self.h)`` is an update of ``h``; ``self.last = loss`` is a note.
"""

from __future__ import annotations

import ast
import functools
import linecache
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, pairwise
from types import CodeType
from typing import Any, NamedTuple

#: The key of an item that only a run can tell.
ANY = "*"
FUNCTIONS = (ast.AsyncFunctionDef, ast.FunctionDef, ast.Lambda)
#: What Python puts before private names.
OF_CLASS = re.compile(r"(?<![^.])_[^_.]\w*?(?=__)")
#: Methods of a container after which it holds others, where it forgets some.
APPENDS = {"append", "appendleft", "extend"}


class Place(NamedTuple):
    """A variable, an attribute or, by its key, an item of one, and names on the way."""

    way: tuple[str, ...]
    name: str
    item: str | None = None


@dataclass(frozen=True)
class Updates:
    """What functions update, and the names of what they detach when they read it."""

    places: frozenset[Place] = frozenset()
    detached: frozenset[str] = frozenset()

    def __or__(self, other: Updates) -> Updates:
        return Updates(self.places | other.places, self.detached | other.detached)

    def on(self, name: str) -> Updates:
        """Return those of attributes of what goes by a name, as of a part."""
        return Updates(frozenset(p for p in self.places if p.way[-1:] == (name,)))

    @functools.cached_property
    def _known(self) -> set[Any]:
        """Names of what is updated as a whole, and pairs of a name and a key."""
        whole = {name for _, name, item in self.places if item in (None, ANY)}
        # Of an array, which has no places in it, all items are one.
        return whole.union(*(((n, i), (n, "")) for _, n, i in self.places if i))

    def counts(self, place: str) -> bool:
        """Whether what is at a dotted place is updated, or something around or in it.

        By its name alone: many ways may lead to one object.
        """
        parts = OF_CLASS.sub("", place).split(".")
        return not self._known.isdisjoint((*parts, *pairwise([*parts, ""])))

    def may_have_graph(self, place: str) -> bool:
        """Whether it is carried with its graph: it is detached when it is read."""
        return self.counts(place) and not self.detached.isdisjoint(place.split("."))


def updates_by(codes: Iterable[CodeType]) -> Updates:
    """Return what functions update together, by their code.

    What one of them only asks for is a cache that it fills, unless another reads it.
    What is read where tensors are detached may be a state that still has its graph.
    """
    flows = {code: _flow_of(code) for code in codes}
    detaching = {code.co_name for code, flow in flows.items() if flow.detaches}
    places, detached = set[Place](), set[str]()
    for flow in flows.values():
        others = chain(*(other.used for other in flows.values() if other is not flow))
        used = {at[1:] for at in others} if flow.asked else set()
        places |= flow.updated | {at for at in flow.asked if at[1:] in used}
        if flow.detaches or any(at.name in detaching for at in flow.used if not at.way):
            detached |= {at.name for at in flow.used}
    return Updates(frozenset(places), frozenset(detached))


@functools.lru_cache(maxsize=1000)
def _flow_of(code: CodeType) -> _Flow:
    """Follow a function; of one without source nothing is known."""
    flow = _Flow(code)
    linecache.checkcache(code.co_filename)
    source = "".join(linecache.getlines(code.co_filename))
    # As of a template that is no Python, or a sum of hundreds of terms.
    with suppress(SyntaxError, ValueError, RecursionError):
        for node in _functions_at(code.co_firstlineno, code.co_name, _parsed(source)):
            flow.visit(node)
    flow.updated |= flow.appended & flow.used
    return flow


_parsed = functools.lru_cache(maxsize=16)(ast.parse)


def _functions_at(line: int, name: str, node: ast.AST) -> Iterator[ast.AST]:
    """Yield those of a name that begin in a line: of lambdas there may be several."""
    for each in ast.iter_child_nodes(node):
        begin = getattr(each, "lineno", line)
        for above in getattr(each, "decorator_list", ()):
            begin = min(begin, above.lineno)
        if begin <= line <= getattr(each, "end_lineno", line):
            is_called_so = getattr(each, "name", "<lambda>") == name
            if begin == line and is_called_so and isinstance(each, FUNCTIONS):
                yield each
            yield from _functions_at(line, name, each)


def _place_of(node: ast.AST) -> Place:
    """Return what an expression names."""
    match node:
        case ast.Name(name):
            return Place((), name)
        case ast.Attribute(of, name) | ast.Call(
            ast.Name("getattr"), [of, ast.Constant(str(name)), *_]
        ):
            return Place(_path_of(of), name)
        case ast.Subscript(of, key) | ast.Call(
            ast.Attribute(of, "get" | "pop" | "setdefault"), [key, *_]
        ):
            *way, name = _path_of(of)
            item = str(key.value) if isinstance(key, ast.Constant) else ANY
            return Place(tuple(way), name, item)
    return Place((), "")  # as of what a call returns


def _path_of(node: ast.AST) -> tuple[str, ...]:
    way, name, item = _place_of(node)
    return (*way, name) if item is None else (*way, name, item)


class _Flow(ast.NodeVisitor):
    """Follows a function in the order in which it is evaluated.

    Of loops one turn is followed, and functions inside where they are made.

    Attributes:
        detaches: whether it detaches something.
        used: what is read for more than whether it is there.
        updated: what is so used before it is written.
        asked: what is read just for whether it is there, before it is written.
        appended: what something is appended to.
    """

    def __init__(self, code: CodeType) -> None:
        #: Variables that end with it, and what has no name.
        self._own, self.detaches = {""}, False
        inside = [code]
        for each in inside:
            self._own.update(each.co_varnames, each.co_cellvars)
            self.detaches |= "detach" in each.co_names
            inside += [inner for inner in each.co_consts if isinstance(inner, CodeType)]
        #: What has been read on some way to here, and whether it was used.
        self._live: set[tuple[Place, bool]] = set()
        #: What has been written on all ways to here.
        self._fresh: set[Place] = set()
        self.used, self.updated = set[Place](), set[Place]()
        self.asked, self.appended = set[Place](), set[Place]()

    def _read(self, place: Place, is_used: bool = True) -> None:
        is_own = not place.way and place.name in self._own
        if not is_own and place not in self._fresh:
            self._live.add((place, is_used))
            if is_used:
                self.used.add(place)

    def _write(self, place: Place) -> None:
        if (place, True) in self._live:
            self.updated.add(place)
        elif (place, False) in self._live:
            self.asked.add(place)
        if place.item != ANY:
            self._fresh.add(place)

    def _visit_leaf(self, node: ast.AST) -> None:
        pass

    visit_Constant = visit_Load = visit_Store = _visit_leaf  # by far the most

    def _follow(self, *nodes: ast.AST) -> None:
        for node in nodes:
            self.visit(node)

    def _one_of(self, *ways: Sequence[ast.AST] | ast.AST) -> None:
        """Follow each of several ways from here; one of them is taken."""
        live, fresh = self._live, self._fresh
        ends = []
        for way in ways:
            self._live, self._fresh = set(live), set(fresh)
            self._follow(*([way] if isinstance(way, ast.AST) else way))
            ends.append((self._live, self._fresh))
        self._live = set.union(*(live for live, _ in ends))
        self._fresh = set.intersection(*(fresh for _, fresh in ends))

    def _ask(self, test: ast.AST) -> None:
        """Read what is asked whether it is there, as of a cache."""
        match test:
            case ast.Name() | ast.Attribute() | ast.Subscript():
                self.generic_visit(test)
                self._read(_place_of(test), is_used=False)
            case ast.BoolOp() | ast.UnaryOp(ast.Not()):
                for each in ast.iter_child_nodes(test):
                    self._ask(each)
            case _:
                self.visit(test)

    def _visit_place(self, node: ast.Name | ast.Attribute | ast.Subscript) -> None:
        self.generic_visit(node)  # what leads to it
        if isinstance(node.ctx, ast.Store):
            self._write(_place_of(node))
        elif isinstance(node.ctx, ast.Load):
            self._read(_place_of(node))

    visit_Name = visit_Attribute = visit_Subscript = _visit_place

    def _visit_assignment(self, node: Any) -> None:
        if isinstance(node, ast.AugAssign):
            self._read(_place_of(node.target))
        if node.value is None:  # an annotation
            return
        self.visit(node.value)
        for target in getattr(node, "targets", None) or [node.target]:
            self._assign(target, node.value)

    visit_Assign = visit_AnnAssign = visit_AugAssign = _visit_assignment
    visit_NamedExpr = _visit_assignment

    def _assign(self, to: ast.AST, value: ast.AST) -> None:
        match to, value:
            case ast.Tuple(names), ast.Tuple(values) if len(names) == len(values):
                for each, own in zip(names, values, strict=True):
                    self._assign(each, own)
            case _, ast.Constant(None) | ast.Dict([]) | ast.List([]) | ast.Tuple([]):
                self.generic_visit(to)
                self._fresh.add(_place_of(to))  # with that nothing is carried
            case _:
                self.visit(to)

    def visit_Call(self, node: ast.Call) -> None:
        of, method = node.func, ""
        if isinstance(of, ast.Attribute):  # no state has the name of a method
            method, of = of.attr, of.value
        if method in APPENDS:
            self.generic_visit(of)
            self.appended.add(_place_of(of))
        else:
            self.visit(of)
        self._follow(*node.args, *node.keywords)
        self._read(_place_of(node))
        if method == "update":
            at = _place_of(of)
            for each in [p for p, _ in self._live if p.item and p[:2] == at[:2]]:
                self._write(each)

    def visit_Compare(self, node: ast.Compare) -> None:
        is_asked = isinstance(node.ops[0], (ast.Is, ast.IsNot))
        (self._ask if is_asked else self.visit)(node.left)
        self._follow(*node.comparators)

    def visit_If(self, node: ast.If | ast.IfExp | ast.While) -> None:
        self._ask(node.test)
        self._one_of(node.body, node.orelse)

    visit_IfExp = visit_While = visit_If

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        self._one_of([node.target, *node.body], node.orelse)

    def visit_Try(self, node: ast.Try) -> None:
        self._one_of([*node.body, *node.orelse], *node.handlers)
        self._follow(*node.finalbody)

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        self._one_of([], *node.cases)

    def visit_Return(self, node: ast.Return | ast.Raise) -> None:
        self.generic_visit(node)
        self._live = set()  # there is no way on

    visit_Raise = visit_Return

    def _visit_function(self, node: Any) -> None:
        self._one_of(node.body, [])

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _visit_function
