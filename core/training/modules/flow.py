"""Follow what a function reads and writes, in the order in which it is evaluated."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Sequence
from types import CodeType
from typing import Any, NamedTuple

#: The key of an item that only a run can tell.
ANY = "*"
#: Methods of a container after which it holds others, where it forgets some.
APPENDS = {"append", "appendleft", "extend"}
#: Of a variable that may stand for more places nothing is told: they may double in
#: each of many branches.
MOST = 16
#: What ends a turn of a loop.
JUMPS = (ast.Break, ast.Continue)


class Place(NamedTuple):
    """A variable, an attribute or, by its key, an item of one, and names on the way."""

    way: tuple[str, ...]
    name: str
    item: str | None = None

    @property
    def path(self) -> tuple[str, ...]:
        """What leads to what is there: to its attributes and items."""
        return (*self.way, self.name, *([] if self.item is None else [self.item]))


def _place_of(node: ast.AST) -> Place:
    """Return what an expression names."""
    match node:
        case ast.Name(name):
            return Place((), name)
        case ast.Attribute(of, name) | ast.Call(
            ast.Name("getattr"), [of, ast.Constant(str(name)), *_]
        ):
            return Place(_place_of(of).path, name)
        case ast.Subscript(of, key) | ast.Call(
            ast.Attribute(of, "get" | "pop" | "setdefault"), [key, *_]
        ):
            *way, name = _place_of(of).path
            item = str(key.value) if isinstance(key, ast.Constant) else ANY
            return Place(tuple(way), name, item)
    return Place((), "")  # as of what a call returns


class _Way:
    """A way to some place in a function, or several that meet there.

    Attributes:
        live: what has been read on one of them, and whether it was used.
        fresh: what has been written on all of them.
        places: what variables may stand for, on one way or another.
    """

    def __init__(self, *ways: _Way) -> None:
        self.live: set[tuple[Place, bool]] = set().union(*(way.live for way in ways))
        fresh = [way.fresh for way in ways]
        self.fresh: set[Place] = set.intersection(*fresh) if fresh else set()
        self.places: dict[str, frozenset[Place]] = {}
        for name in set[str]().union(*(way.places for way in ways)):
            found = frozenset[Place]().union(*(w.places.get(name, ()) for w in ways))
            if len(found) <= MOST:
                self.places[name] = found


class Flow(ast.NodeVisitor):
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
        #: The way to here, and whether it has ended, so that there is none.
        self._way, self._ended = _Way(), False
        #: Those that have ended, by what ended them.
        self._left = defaultdict[type, list[_Way]](list)
        #: What has been written in the loop around.
        self._written: set[Place] = set()
        self.used, self.updated = set[Place](), set[Place]()
        self.asked, self.appended = set[Place](), set[Place]()

    def _read(self, node: ast.AST, is_used: bool = True) -> None:
        for place in self._at(node):
            is_own = not place.way and place.name in self._own
            if not is_own and not self._is_fresh(place):
                self._way.live.add((place, is_used))
                if is_used:
                    self.used.add(place)

    def _is_fresh(self, place: Place) -> bool:
        """Whether it, or the attribute that it is in, was written on all ways to here.

        Not the variable: that has been given another object, which may be a state.
        """
        path = place.path
        around = [Place(path[:n], path[n]) for n in range(1, len(path))]
        around += [Place(path[:n], *path[n : n + 2]) for n in range(1, len(path) - 1)]
        return not self._way.fresh.isdisjoint([place, *around])

    def _write(self, place: Place) -> None:
        self._written.add(place)
        if (place, True) in self._way.live:
            self.updated.add(place)
        elif (place, False) in self._way.live:
            self.asked.add(place)
        if place.item != ANY:
            self._way.fresh.add(place)

    def visit(self, node: ast.AST) -> None:
        """Follow a node, unless no way leads there."""
        if not self._ended:
            super().visit(node)

    def _visit_leaf(self, node: ast.AST) -> None:
        pass

    visit_Constant = visit_Load = visit_Store = _visit_leaf  # by far the most

    def _follow(self, *nodes: ast.AST) -> None:
        for node in nodes:
            self.visit(node)

    def _one_of(self, *ways: Sequence[ast.AST] | ast.AST) -> None:
        """Follow each of several ways from here; one of them is taken."""
        before, ends = self._way, list[_Way]()
        for way in ways:
            self._meet(before)
            self._follow(*([way] if isinstance(way, ast.AST) else way))
            ends += self._here()
        self._meet(*ends)

    def _here(self) -> list[_Way]:
        return [] if self._ended else [self._way]

    def _meet(self, *ways: _Way) -> None:
        """Go on where ways come together; where there is none, none goes on."""
        self._way, self._ended = _Way(*ways), not ways

    def _at(self, node: ast.AST) -> frozenset[Place]:
        """Return what an expression may name, by what a variable stands for."""
        if isinstance(node, ast.IfExp):
            return self._at(node.body) | self._at(node.orelse)
        place = _place_of(node)
        first, *others = *place.way, place.name
        stands = self._way.places.get(first)
        if stands is None or (not others and place.item is None):
            return stands or frozenset([place])
        paths = [(*whole.path, *others) for whole in stands]
        return frozenset(Place(path[:-1], path[-1], place.item) for path in paths)

    def _ask(self, test: ast.AST) -> None:
        """Read what is asked whether it is there, as of a cache."""
        match test:
            case ast.Name() | ast.Attribute() | ast.Subscript():
                self.generic_visit(test)
                self._read(test, is_used=False)
            case ast.BoolOp() | ast.UnaryOp(ast.Not()):
                for each in ast.iter_child_nodes(test):
                    self._ask(each)
            case _:
                self.visit(test)

    def _visit_place(self, node: ast.Name | ast.Attribute | ast.Subscript) -> None:
        self.generic_visit(node)  # what leads to it
        if isinstance(node.ctx, ast.Store):
            if isinstance(node, ast.Name):
                self._way.places.pop(node.id, None)
            # Each counts that it may be: what the variable reads then is the same one.
            for place in self._at(node):
                self._write(place)
        elif isinstance(node.ctx, ast.Load):
            self._read(node)

    visit_Name = visit_Attribute = visit_Subscript = _visit_place

    def _visit_assignment(self, node: Any) -> None:
        if node.value is None:  # an annotation
            return
        self.visit(node.value)
        for target in getattr(node, "targets", None) or [node.target]:
            self._assign(target, node.value)

    visit_Assign = visit_AnnAssign = visit_NamedExpr = _visit_assignment

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Follow what is read and then written, as by ``+=``."""
        self._read(node.target)
        self._follow(node.value, node.target)

    def _assign(self, to: ast.AST, value: ast.AST) -> None:
        match to, value:
            case ast.Tuple(names), ast.Tuple(values) if len(names) == len(values):
                for each, own in zip(names, values, strict=True):
                    self._assign(each, own)
            case _, ast.Constant(None) | ast.Dict([]) | ast.List([]) | ast.Tuple([]):
                self.generic_visit(to)
                if isinstance(to, ast.Name):
                    self._way.places.pop(to.id, None)
                self._way.fresh |= self._at(to)  # with that nothing is carried
            case (
                ast.Name(name),
                ast.Name() | ast.Attribute() | ast.Subscript() | ast.IfExp(),
            ):
                places = self._at(value)
                self.visit(to)
                if name in self._own:
                    self._way.places[name] = places
            case _:
                self.visit(to)

    def visit_Call(self, node: ast.Call) -> None:
        """Follow a call, whose method may append to what it is of, or update it."""
        of, method = node.func, ""
        if isinstance(of, ast.Attribute):  # no state has the name of a method
            method, of = of.attr, of.value
        if method in APPENDS:
            self.generic_visit(of)
            self.appended |= self._at(of)
        else:
            self.visit(of)
        self._follow(*node.args, *node.keywords)
        self._read(node)
        if method == "update":
            at = {place[:2] for place in self._at(of)}
            for each in [p for p, _ in self._way.live if p.item and p[:2] in at]:
                self._write(each)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Follow a comparison; one by ``is`` just asks whether something is there."""
        is_asked = isinstance(node.ops[0], (ast.Is, ast.IsNot))
        (self._ask if is_asked else self.visit)(node.left)
        self._follow(*node.comparators)

    def _visit_if(self, node: ast.If | ast.IfExp) -> None:
        self._ask(node.test)
        self._one_of(node.body, node.orelse)

    visit_If = visit_IfExp = _visit_if

    def _visit_loop(self, node: Any) -> None:
        is_while = isinstance(node, ast.While)
        (self._ask if is_while else self.visit)(node.test if is_while else node.iter)
        outer = [self._left.pop(kind, []) for kind in JUMPS]
        before, self._written = self._written, set()
        self._one_of(node.body if is_while else [node.target, *node.body], [])
        breaks, nexts = (self._left.pop(kind, []) for kind in JUMPS)
        self._left.update(zip(JUMPS, outer, strict=True))
        # Another turn may write what was read before ``continue``.
        again = _Way(*nexts).live
        self.updated |= {each for each in self._written if (each, True) in again}
        self._written |= before
        # And so may what comes then, on each way.
        live = _Way(self._way, *breaks, *nexts).live
        self._way.live |= live
        self._ended = is_while and isinstance(node.test, ast.Constant)
        self._follow(*node.orelse)
        self._meet(*self._here(), *breaks)
        self._way.live |= live

    visit_For = visit_AsyncFor = visit_While = _visit_loop

    def _visit_try(self, node: Any) -> None:
        outer, self._left = self._left, defaultdict(list)
        before, used = _Way(self._way), set(self.used)
        self._follow(*node.body, *node.orelse)
        end = self._here()
        # A handler may begin anywhere in the body: all that was read may have been.
        before.live |= {(each, True) for each in self.used - used}
        self._meet(before, *end)
        self._one_of(*node.handlers)
        end += self._here() if node.handlers else []
        left, self._left = self._left, outer
        for by, ways in left.items():  # at the end of which it comes too
            self._meet(*ways)
            self._follow(*node.finalbody)
            self._left[by] += self._here()
        self._meet(*end)
        self._follow(*node.finalbody)

    visit_Try = visit_TryStar = _visit_try

    def visit_Match(self, node: ast.Match) -> None:
        """Follow each case as a way."""
        self.visit(node.subject)
        last = node.cases[-1]
        is_any = isinstance(last.pattern, ast.MatchAs) and not last.pattern.pattern
        self._one_of(*node.cases, *([] if is_any and not last.guard else [[]]))

    def _visit_end(self, node: ast.AST) -> None:
        self.generic_visit(node)
        self._left[type(node)] += self._here()
        self._meet()

    visit_Return = visit_Raise = visit_Break = visit_Continue = _visit_end

    def _visit_function(self, node: Any) -> None:
        self._follow(*getattr(node, "decorator_list", ()), node.args)
        self.follow_body(node)

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _visit_function

    def follow_body(self, node: Any) -> None:
        """Follow a function from here, whether or not it is called."""
        outer, self._left = self._left, defaultdict(list)
        self._one_of(node.body, [])
        self._meet(*self._here(), *self._left[ast.Return])
        self._left = outer
