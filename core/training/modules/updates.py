"""What functions carry from call to call: read before they write it, by their source.

``self.h = self.cell(x, self.h)`` is an update of ``h``; ``self.last = loss`` is a note.
"""

from __future__ import annotations

import ast
import functools
import linecache
import re
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, groupby, pairwise
from operator import attrgetter
from types import CodeType
from typing import Any
from weakref import WeakKeyDictionary

from training.modules.flow import ANY, Flow, Place

FUNCTIONS = (ast.AsyncFunctionDef, ast.FunctionDef, ast.Lambda)
#: Where a private name may begin, behind that of its class.
PRIVATE = re.compile(r"(?<=[^_])__(?=[^_])")


@dataclass(frozen=True)
class Updates:
    """What functions update, and the names of what they detach when they read it."""

    places: frozenset[Place] = frozenset()
    detached: frozenset[str] = frozenset()

    def __or__(self, other: Updates) -> Updates:
        return Updates(self.places | other.places, self.detached | other.detached)

    def on(self, name: str) -> Updates:
        """Return those of attributes of what goes by a name, as of a part."""
        names = set(_spellings(name))
        return Updates(frozenset(p for p in self.places if {*p.way[-1:]} & names))

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
        return any(
            not self._known.isdisjoint((name, (name, item)))
            for part, item in pairwise([*place.split("."), ""])
            for name in _spellings(part)
        )

    def may_have_graph(self, place: str) -> bool:
        """Whether it is carried with its graph: it is detached when it is read."""
        names = chain(*map(_spellings, place.split(".")))
        return self.counts(place) and not self.detached.isdisjoint(names)


def _spellings(name: str) -> list[str]:
    """Return how functions may write the name of an attribute, by its own class too."""
    begins = PRIVATE.finditer(name) if name.startswith("_") else ()
    return [name, *(name[at.start() :] for at in begins)]


def updates_by(codes: Iterable[CodeType]) -> Updates:
    """Return what functions update together, by their code.

    What one of them only asks for is a cache that it fills, unless another reads it.
    What is read where tensors are detached may be a state that still has its graph.
    """
    flows = follow(codes)
    detaching = {code.co_name for code, flow in flows.items() if flow.detaches}
    readers = Counter(chain(*({p[1:] for p in f.used} for f in flows.values())))
    places, detached = set[Place](), set[str]()
    for flow in flows.values():
        own = {at[1:] for at in flow.used} if flow.asked else set()
        places |= flow.updated
        places |= {p for p in flow.asked if readers[p[1:]] > (p[1:] in own)}
        if flow.detaches or any(at.name in detaching for at in flow.used if not at.way):
            detached |= {at.name for at in flow.used}
    return Updates(frozenset(places), frozenset(detached))


#: What functions do, as long as they are there.
_FLOWS: WeakKeyDictionary[CodeType, Flow] = WeakKeyDictionary()


def follow(codes: Iterable[CodeType]) -> dict[CodeType, Flow]:
    """Follow functions, each file read once; of one without source nothing is known."""
    codes, by_file = set(codes), attrgetter("co_filename")
    unknown = sorted((code for code in codes if code not in _FLOWS), key=by_file)
    for file, new in groupby(unknown, by_file):
        functions = _functions_in(file)
        for code in new:
            _FLOWS[code] = flow = Flow(code)
            with suppress(RecursionError):  # as of a sum of hundreds of terms
                for node in functions[code.co_firstlineno, code.co_name]:
                    flow.follow_body(node)
            flow.updated |= flow.appended & flow.used
    return {code: _FLOWS[code] for code in codes}


def _functions_in(file: str) -> dict[tuple[int, str], list[Any]]:
    """Return those of a file by line and name: of lambdas there may be several."""
    linecache.checkcache(file)
    lines = linecache.getlines(file)
    if not lines:  # one in an archive is read by its module
        spaces = (getattr(each, "__dict__", {}) for each in [*sys.modules.values()])
        module = next((each for each in spaces if each.get("__file__") == file), None)
        lines = linecache.getlines(file, module)
    functions = defaultdict[tuple[int, str], list[Any]](list)
    # As of a template that is no Python; what Python warns of there it has told.
    with suppress(SyntaxError, ValueError, RecursionError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for node in ast.walk(ast.parse("".join(lines))):
            if isinstance(node, FUNCTIONS):
                begins = [node, *getattr(node, "decorator_list", ())]
                name = getattr(node, "name", "<lambda>")
                functions[min(each.lineno for each in begins), name].append(node)
    return functions
