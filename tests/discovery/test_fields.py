"""A Field of pydantic in place of a default: the default in it is the option's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from training.app.config.call_schema import call_schema
from training.discovery.fields import filled
from training.discovery.installed import BrokenPluginError
from training.discovery.signature import (
    fitted_call,
    keyword_only,
    signature_mistakes,
)
from training.discovery.specs import build_plugins
from training.errors import PluginError

LAB = """
from dataclasses import dataclass
from pydantic import Field, validate_call
from training import Callback

class Lab(Callback):
    def __init__(
        self, every: int = Field(3, ge=1), *, names: list = Field(default_factory=list)
    ):
        self.told = every, names

class Needs(Callback):
    def __init__(self, every: int = Field(...)): ...

class Validated:
    @validate_call
    def __init__(self, every: int = Field(3, ge=1)): self.told = every

class Unvalidated:
    @validate_call
    def __init__(self, every: int = Field(None, description="x")): self.told = every

class Renamed:
    @validate_call
    def __init__(self, every: int = Field(3, alias="n")): self.told = every

class Follows:
    @validate_call
    def __init__(self, every: int = Field(default_factory=lambda before: 2)):
        self.told = every

class Orphan:
    def __init__(
        self, at: int = 2, every: int = Field(default_factory=lambda d: d["at"])
    ):
        self.told = every
"""


class Family:
    def build(
        self,
        rows: list[Any],
        *,
        width: int = Field(8, ge=1),
        must: int = Field(...),
        names: list[str] = Field(default_factory=list),  # noqa: B008 - called anew
    ) -> Any:
        return width, must, names


@pytest.fixture
def lab(tmp_path: Path) -> str:
    (tmp_path / "lab.py").write_text(LAB)
    return f"{tmp_path}/lab.py"


def made(*entries: Any) -> list[Any]:
    return [plugin.told for _, plugin in build_plugins(entries)]


def test_of_a_field_in_place_of_a_default_its_default_comes_where_nothing_is_set(
    lab: str,
) -> None:
    first, second = made(f"{lab}:Lab", {f"{lab}:Lab": {"every": 2, "id": "second"}})
    assert (first, second) == ((3, []), (2, []))
    assert first[1] is not second[1]
    with pytest.raises(PluginError, match=r"Needs\.every is missing; it has no"):
        build_plugins([f"{lab}:Needs"])


@pytest.mark.parametrize(
    ("name", "told"),
    [("Validated", 3), ("Unvalidated", None), ("Renamed", 3), ("Follows", 2)],
)
def test_where_pydantic_fills_the_defaults_of_a_constructor_nobody_else_does(
    name: str, told: int | None, lab: str
) -> None:
    assert made(f"{lab}:{name}") == [told]


def test_a_default_that_only_a_model_can_make_is_the_plugins_fault(lab: str) -> None:
    with pytest.raises(BrokenPluginError) as caught:
        build_plugins([f"{lab}:Orphan"])
    told = str(caught.value)
    assert told.startswith("plugins.Orphan: Orphan (")
    assert "cannot be constructed: TypeError: the default of 'every' in Orphan." in told
    assert told.endswith("let the factory take no argument")
    assert made({f"{lab}:Orphan": {"every": 4}}) == [4]


def test_the_builder_of_a_family_gets_what_its_fields_hold() -> None:
    family = Family()
    assert fitted_call(family.build, {})[1] == [
        (("must",), " is missing; it has no default")
    ]
    assert family.build([], **filled(family.build, {"must": 1})) == (8, 1, [])
    assert filled(family.build, {"must": 1, "width": 2})["width"] == 2


def test_a_schema_shows_the_default_in_a_field_and_requires_where_there_is_none() -> (
    None
):
    schema = call_schema(keyword_only(Family.build), "")
    assert schema["properties"]["width"]["default"] == 8
    assert schema["required"] == ["must"]


def test_plugins_show_tells_the_default_in_a_field(
    lab: str, command: Callable[..., tuple[int, str, str]]
) -> None:
    out = command("plugins", "show", f"{lab}:Lab")[1]
    assert "    every: int  = 3\n" in out
    assert "    names: list  = list()\n" in out
    assert "    every: int  required\n" in command("plugins", "show", f"{lab}:Needs")[1]


def test_a_field_in_place_of_a_default_is_found_out() -> None:
    class Lab:
        def __init__(self, every: int = Field(3, ge=1)) -> None: ...

    (told,) = signature_mistakes(Lab)
    assert "'every' has a Field as its default; write it into the type" in told
