"""What a function carries is read from its source, wherever that is written."""

from __future__ import annotations

import functools
import inspect
import linecache
from collections.abc import Callable
from typing import Any

import pytest

from training.modules.updates import updates_by

CALLS = 0
KEPT: dict[str, Any] = {}


def noted(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def updating() -> dict[str, Any]:
    """Return functions, and what each updates, by what they do."""

    class Net:
        @noted
        @noted
        def decorated(self, x: Any) -> None:
            self.h = self.h + x

        def private(self, x: Any) -> None:
            self.__h = self.__h + x

    def in_a_loop(self: Any, x: Any) -> None:
        for each in x:
            y = each + self.h
            self.h = y

    def in_a_comprehension(self: Any, x: Any) -> None:
        self.h = [each + self.h for each in x]

    def in_a_lambda(self: Any, x: Any) -> None:
        self.h = (lambda: self.h + x)()

    def on_one_way(self: Any, x: Any) -> None:
        if x:
            self.h = 0
        self.h = self.h + x

    def in_a_handler(self: Any, x: Any) -> None:
        try:
            self.h = self.h + x
        except AttributeError:
            self.h = x

    def by_walrus(self: Any, x: Any) -> None:
        global CALLS
        if (CALLS := CALLS + x) > 2:
            CALLS = 0

    def of_a_part(self: Any, x: Any) -> None:
        self.parts[0].h = self.parts[0].h + x

    return {
        "decorated": (Net.decorated, "h"),
        "private": (Net.private, "_Net__h"),
        "in a loop": (in_a_loop, "h"),
        "in a comprehension": (in_a_comprehension, "h"),
        "in a lambda": (in_a_lambda, "h"),
        "on one way": (on_one_way, "h"),
        "in a handler": (in_a_handler, "h"),
        "by a walrus": (by_walrus, "CALLS"),
        "of a part": (of_a_part, "h"),
        "one of two lambdas": (
            (lambda x: KEPT.get("a"), lambda x: KEPT.update(h=KEPT.get("h")))[1],
            "KEPT.h",
        ),
    }


def noting() -> dict[str, Any]:
    """Return functions that update nothing, by what they do."""

    def with_a_block(self: Any, x: Any) -> None:
        with x as self.h:
            pass
        x(self.h)

    def of_another(self: Any, x: Any) -> None:
        self.h = x.h + 1

    def either(self: Any, x: Any) -> None:
        if x:
            x(self.h)
            return
        self.h = x

    def first_written(self: Any, x: Any) -> None:
        self.h = x
        self.h = self.h + x

    def a_local_mapping(self: Any, x: Any) -> None:
        kept = {"h": x}
        kept["h"] = kept["h"] + x
        self.last = kept

    def appended_anew(self: Any, x: Any) -> Any:
        self.h = []
        self.h.append(x)
        return sum(self.h)

    return {
        "with a block": with_a_block,
        "of another object": of_another,
        "read and written on different ways": either,
        "first written": first_written,
        "a local mapping": a_local_mapping,
        "appended to what is made anew": appended_anew,
    }


@pytest.mark.parametrize("what", list(updating()))
def test_what_a_function_reads_before_it_writes_it_is_what_it_updates(
    what: str,
) -> None:
    function, place = updating()[what]
    assert updates_by([inspect.unwrap(function).__code__]).counts(place)


@pytest.mark.parametrize("what", list(noting()))
def test_what_a_function_does_not_read_before_it_writes_it_is_no_update(
    what: str,
) -> None:
    assert not updates_by([noting()[what].__code__]).places


@pytest.mark.parametrize(
    ("source", "is_known"),
    [
        pytest.param("def step(self, x):\n    self.a = self.a + x\n", True, id="cell"),
        pytest.param("{% template %}", False, id="no Python"),
        pytest.param("def other():\n    pass\n", False, id="other code"),
        pytest.param("", False, id="none"),
    ],
)
def test_of_a_function_without_its_source_nothing_is_known(
    source: str, is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python takes functions of one text for the same, wherever they are written.
    name, file = "a" if is_known else f"h{len(source)}", f"<{len(source)}>"
    made: dict[str, Any] = {}
    ran = f"def step(self, x):\n    self.{name} = self.{name} + x\n"
    exec(compile(ran, file, "exec"), made)
    lines = source.splitlines(keepends=True)
    monkeypatch.setitem(linecache.cache, file, (len(source), None, lines, file))
    assert updates_by([made["step"].__code__]).counts(name) == is_known
