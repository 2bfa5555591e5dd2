"""A constructor's signature is the schema of a plugin's options."""

from __future__ import annotations

import enum
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from typing_extensions import TypedDict

from training.discovery.installed import BrokenPluginError
from training.discovery.signature import fitted
from training.discovery.specs import (
    PluginSpec,
    build_plugins,
    construct,
    parse_specs,
)
from training.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from nowhere import Unknown


class Colour(enum.Enum):
    RED = "red"


class Typed:
    def __init__(
        self,
        count: int,
        rate: float = 0.1,
        mode: Literal["min", "max"] = "min",
        is_on: bool = False,
        path: Path | None = None,
        names: Sequence[str] = (),
        sizes: tuple[int, ...] = (),
        colour: Colour = Colour.RED,
        helper: Unknown | None = None,
        anything=None,  # type: ignore[no-untyped-def]
    ) -> None:
        self.values = dict(locals())


def built(cls: type[Any], options: dict[str, Any]) -> Any:
    values, mistakes = fitted(cls, options)
    assert not mistakes
    return construct(cls, values, "x")


class Open:
    def __init__(self, **options: Any) -> None:
        self.options = options


class Bare:
    pass


@pytest.mark.parametrize(
    ("option", "given", "kept"),
    [
        pytest.param("rate", 1, 1.0, id="a whole number is a float"),
        pytest.param("path", "a/b", Path("a/b"), id="text is a path"),
        pytest.param("path", None, None, id="null where None is allowed"),
        pytest.param("sizes", [1, 2], (1, 2), id="a list is a tuple"),
        pytest.param("names", ["a"], ["a"], id="a list is a sequence"),
        pytest.param("colour", "red", Colour.RED, id="text is an enumeration"),
        pytest.param("helper", None, None, id="None beside a type not known here"),
        pytest.param("anything", {"a": 1}, {"a": 1}, id="no annotation, no check"),
    ],
)
def test_an_option_arrives_as_its_type(option: str, given: Any, kept: Any) -> None:
    plugin = built(Typed, {"count": 1, option: given})
    assert plugin.values[option] == kept


def test_python_may_pass_objects_where_the_type_is_not_known_here() -> None:
    helper = object()
    plugin = built(Typed, {"count": 1, "helper": helper})
    assert plugin.values["helper"] is helper


@pytest.mark.parametrize(
    ("option", "given", "words"),
    [
        pytest.param("count", True, "true, but must be a whole number", id="a bool"),
        pytest.param("count", 1.0, "1.0, but must be a whole number", id="a float"),
        pytest.param("count", "3", "'3', but must be a whole number", id="text"),
        pytest.param("rate", True, "must be a number", id="a bool as number"),
        pytest.param("is_on", 1, "must be true or false", id="1 as bool"),
        pytest.param("mode", "mix", "be one of: 'min', 'max'", id="no such choice"),
        pytest.param("names", "abc", "must be a list", id="text as a list"),
        pytest.param("helper", "x", "only Python code can pass", id="text as object"),
    ],
)
def test_an_option_of_another_type_is_refused(
    option: str, given: Any, words: str
) -> None:
    options = {"count": 1} | {option: given}
    _, (((name,), text),) = fitted(Typed, options)
    assert name == option
    assert words in text


@dataclass
class Noise:
    sigma: float = 0.1


@dataclass
class Noises:
    first: Noise


class Sizes(TypedDict, total=False):
    width: int


class Old(typing.TypedDict, total=False):
    width: int


class Grouped:
    def __init__(
        self,
        noise: Noise | None = None,
        one: Noise = Noise(),  # noqa: B008
        many: Sequence[Noise] = (),
        deep: Noises | None = None,
        sizes: Sizes | None = None,
        old: Old | None = None,
    ) -> None:
        self.values = dict(locals())


@pytest.mark.parametrize(
    ("option", "given", "place"),
    [
        pytest.param("noise", {"sigm": 0.5}, ("noise", "sigm"), id="or None"),
        pytest.param("one", {"sigm": 0.5}, ("one", "sigm"), id="a dataclass"),
        pytest.param("many", [{"sigm": 1.0}], ("many", 0, "sigm"), id="a list"),
        pytest.param(
            "deep", {"first": {"sigm": 1.0}}, ("deep", "first", "sigm"), id="nested"
        ),
        pytest.param("sizes", {"widht": 1}, ("sizes", "widht"), id="a typed dict"),
    ],
)
def test_a_misspelt_key_inside_of_an_option_is_refused(
    option: str, given: Any, place: tuple[Any, ...]
) -> None:
    _, ((path, text),) = fitted(Grouped, {option: given})
    assert (path, text) == (place, " is not a setting")


def test_good_keys_make_the_object() -> None:
    plugin = built(Grouped, {"one": {"sigma": 1}, "many": [{"sigma": 2.0}]})
    assert plugin.values["one"] == Noise(1.0)
    assert list(plugin.values["many"]) == [Noise(2.0)]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="it can be checked there")
def test_a_typed_dict_that_cannot_be_checked_is_refused() -> None:
    _, ((path, text),) = fitted(Grouped, {"old": {"widht": 1}})
    assert path == ("old",)
    assert "typing_extensions.TypedDict" in text


def test_all_mistakes_are_told_at_once() -> None:
    _, mistakes = fitted(Typed, {"rat": 1.0, "mode": "mix"})
    lines = [f"{name}{text}" for (name,), text in mistakes]
    assert "rat is no option (did you mean 'rate'?" in lines[0]
    assert lines[1].startswith("mode is 'mix'")
    assert lines[2] == "count is missing; it has no default"


def test_a_class_with_open_options_takes_any() -> None:
    assert built(Open, {"a": 1}).options == {"a": 1}


def test_a_class_without_a_constructor_takes_none() -> None:
    assert isinstance(built(Bare, {}), Bare)
    _, mistakes = fitted(Bare, {"a": 1})
    assert mistakes == [(("a",), " is no option; the options are: none")]


def test_a_class_without_options_is_not_said_to_have_none_beside_a_hint() -> None:
    _, mistakes = fitted(Bare, {"builx": 1}, ["build"])
    assert mistakes == [(("builx",), " is no option (did you mean 'build'?)")]


class Refusing:
    def __init__(self, kind: str) -> None:
        raise {"config": ConfigError, "value": ValueError, "bug": KeyError}[kind]("why")


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        pytest.param("config", ConfigError, "^why$", id="its own sentence stays"),
        pytest.param(
            "value", PluginError, "x: Refusing .*refuses .*why", id="ValueError"
        ),
        pytest.param("bug", BrokenPluginError, "KeyError: 'why'", id="anything else"),
    ],
)
def test_what_a_constructor_raises_is_told(
    kind: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        built(Refusing, {"kind": kind})


@pytest.mark.parametrize(
    ("entry", "spec"),
    [
        pytest.param("csv", PluginSpec("csv", "csv"), id="a name"),
        pytest.param({"csv": None}, PluginSpec("csv", "csv"), id="no options"),
        pytest.param(
            {"csv": {"a": 1}}, PluginSpec("csv", "csv", {"a": 1}), id="with options"
        ),
        pytest.param(
            {"csv": {"id": "two", "a": 1}},
            PluginSpec("csv", "two", {"a": 1}),
            id="an id",
        ),
        pytest.param("./a.py:B", PluginSpec("./a.py:B", "B"), id="a class in a file"),
    ],
)
def test_an_entry_has_one_meaning(entry: Any, spec: PluginSpec) -> None:
    assert parse_specs([entry]) == [spec]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        pytest.param([3], "plugins.0 is 3; write a name", id="a number"),
        pytest.param([{"a": {}, "b": {}}], "write a name, or one", id="two at once"),
        pytest.param([{"a": 3}], "write a name, or one", id="options that are none"),
        pytest.param(["a", {"a": {}}], "'a' is listed twice.*`id: NAME`", id="twice"),
        pytest.param([{"a": {"id": 3}}], "id is 3; use a word", id="an id of 3"),
    ],
)
def test_a_malformed_list_is_refused(entries: list[Any], words: str) -> None:
    with pytest.raises(PluginError, match=words):
        parse_specs(entries)


def test_plugins_are_built_from_files_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("class Mine:\n    def __init__(self, a: int = 0): self.a = a\n")
    ready = ("ready", object())
    built = build_plugins(
        [ready, {f"{file}:Mine": {"a": 2}}, {f"{file}:Mine": {"id": "again"}}]
    )
    assert built[0] == ready
    assert [(name, plugin.a) for name, plugin in built[1:]] == [
        ("Mine", 2),
        ("again", 0),
    ]


def test_mistakes_of_several_plugins_are_told_together(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("class Mine:\n    def __init__(self, a: int): raise RuntimeError\n")
    with pytest.raises(PluginError) as caught:
        build_plugins(["no_such_plugin", {f"{file}:Mine": {"a": "x"}}])
    first, second = str(caught.value).splitlines()
    assert "plugin 'no_such_plugin' is not installed" in first
    assert second == "plugins.Mine.a is 'x', but must be a whole number"
