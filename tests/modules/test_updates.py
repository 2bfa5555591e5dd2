"""What a function carries is read from its source, wherever that is written."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import linecache
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import CodeType
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


@pytest.mark.parametrize("place", ["_A__B__h", "_ema__v", "kept._train__h"])
def test_a_name_may_have_two_underscores_inside(place: str) -> None:
    class A__B:
        kept: dict[str, Any]
        _ema__v: Any

        def forward(self, x: Any) -> None:
            self.__h = self.__h + x
            self._ema__v = self._ema__v + x
            self.kept["_train__h"] = self.kept["_train__h"] + x

    assert updates_by([A__B.forward.__code__]).counts(place)


def test_of_a_part_with_a_private_name_what_is_updated_is_known() -> None:
    class Net:
        def forward(self, x: Any) -> None:
            self.__part.h = self.__part.h + x

    assert updates_by([Net.forward.__code__]).on("_Net__part").counts("h")


def test_what_is_detached_where_a_private_name_is_read_may_have_its_graph() -> None:
    class Net:
        def forward(self, x: Any) -> None:
            self.__h = self.__h.detach() + x

    assert updates_by([Net.forward.__code__]).may_have_graph("_Net__h")


def test_a_file_is_read_once_for_all_its_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, parsed = set[CodeType](), []
    for number in range(30):
        made: dict[str, Any] = {}
        file = tmp_path / f"{number}.py"
        names = [f"f{each}_{number}" for each in range(5)]
        source = "".join(f"def {n}(self, x):\n    self.{n} += x\n" for n in names)
        file.write_text(source)
        exec(compile(source, str(file), "exec"), made)
        codes |= {made[name].__code__ for name in names}
    parse = ast.parse

    def counted(*args: Any, **kwargs: Any) -> ast.AST:
        parsed.append(args)
        return parse(*args, **kwargs)

    monkeypatch.setattr(ast, "parse", counted)
    assert len(updates_by(codes).places) == 150
    assert updates_by(codes) == updates_by(codes)
    assert len(parsed) == 30


def test_a_file_of_which_python_warns_is_read_silently(tmp_path: Path) -> None:
    made: dict[str, Any] = {}
    file = tmp_path / "warned.py"
    file.write_text("def step(self, x):\n    self.d = self.d + x + '\\d'\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(file.read_text(), str(file), "exec"), made)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert updates_by([made["step"].__code__]).counts("d")


def test_a_function_in_an_archive_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "of.zip", "w") as archive:
        archive.writestr("archived.py", "def step(self, x):\n    self.z += x\n")
    monkeypatch.syspath_prepend(tmp_path / "of.zip")
    step = importlib.import_module("archived").step
    try:
        assert updates_by([step.__code__]).counts("z")
    finally:
        del sys.modules["archived"]
