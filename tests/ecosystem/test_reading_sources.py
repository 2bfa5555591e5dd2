"""A plugin is read from its source alone, and never called broken without a proof."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.discovery import installed
from training.discovery.sources import SourceError, UnknownSourceError, read_class

Command = Callable[..., tuple[int, str, str]]

BODY = "    def on_step_end(self): ...\n"
PLAIN = f"from training import Callback\nclass Watch(Callback):\n{BODY}"


@pytest.fixture
def package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[..., str]:
    """Return a function that writes modules of a package and returns its name."""
    name = f"lab_{abs(hash(request.node.nodeid))}"
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**modules: str) -> str:
        (tmp_path / name).mkdir()
        for module, text in {"__init__": "", **modules}.items():
            (tmp_path / name / f"{module}.py").write_text(text.replace("LAB", name))
        return name

    return write


@pytest.mark.parametrize(
    ("own", "hooks"),
    [
        pytest.param("pass", ("on_step_end",), id="inherited"),
        pytest.param("on_step_end = None", (), id="switched off"),
        pytest.param("on_step_end = print", ("on_step_end",), id="another one"),
    ],
)
def test_none_in_a_hooks_place_switches_an_inherited_one_off(
    own: str, hooks: tuple[str, ...], package: Any
) -> None:
    name = package(inner=f"{PLAIN}\nclass Quiet(Watch):\n    {own}\n")
    assert read_class(f"{name}.inner", "Quiet").hooks == hooks


@pytest.mark.parametrize(
    ("value", "modules"),
    [
        pytest.param("LAB:Watch", {"__init__": PLAIN}, id="a class"),
        pytest.param(
            "LAB:Watch",
            {"__init__": "from .inner import Watch", "inner": PLAIN},
            id="a class that is passed on",
        ),
        pytest.param(
            "LAB:Watch",
            {"__init__": "from LAB.inner import *", "inner": PLAIN},
            id="one among all names",
        ),
        pytest.param(
            "LAB:Other",
            {"__init__": f"{PLAIN}\nOther = Watch\n"},
            id="another name for it",
        ),
        pytest.param(
            "LAB:Other",
            {"__init__": "from . import inner\nOther = inner.Watch", "inner": PLAIN},
            id="a name for one in a module",
        ),
        pytest.param(
            "LAB:Box.Watch",
            {"__init__": "from training import Callback\nclass Box:\n"
             "    class Watch(Callback):\n        def on_step_end(self): ...\n"},
            id="a class in a class",
        ),
        pytest.param(
            "LAB:inner.Watch",
            {"__init__": "import LAB.inner", "inner": PLAIN},
            id="a class in a module in a package",
        ),
        pytest.param(
            "LAB:Watch",
            {"__init__": PLAIN.replace("import Callback", "import Callback as Base")
             .replace("(Callback)", "(Base)")},
            id="the base by another name",
        ),
        pytest.param(
            "LAB:Watch",
            {"__init__": "import training as t\nclass Watch(t.Callback):\n" + BODY},
            id="the base in a module by another name",
        ),
        pytest.param(
            "LAB:Watch",
            {"__init__": "try:\n    from training import Callback\nexcept OSError:\n"
             f"    Callback = None\nclass Watch(Callback):\n{BODY}"},
            id="the base under a condition",
        ),
        pytest.param(
            "LAB:Watch",
            {"__init__": f"from training import Callback\nfrom typing import Generic, "
             f"TypeVar\nT = TypeVar('T')\nclass Base(Callback, Generic[T]):\n{BODY}"
             "class Watch(Base[int]): ...\n"},
            id="a generic base",
        ),
        pytest.param(
            "LAB:Watch",
            {"__init__": "from training import hookimpl as mark\nclass Watch:\n"
             f"    @mark\n{BODY}"},
            id="a mark by another name",
        ),
        pytest.param(
            "LAB:Watch",
            {"__init__": "from training import Callback\nclass Watch(Callback):\n"
             "    def look(self): ...\n    on_step_end = look\n"},
            id="a hook by another name",
        ),
    ],
)  # fmt: skip
def test_what_python_finds_is_found(
    value: str, modules: dict[str, str], package: Any
) -> None:
    name = package(**modules)
    module, _, path = value.replace("LAB", name).partition(":")
    assert read_class(module, path).hooks == ("on_step_end",)
    info = installed.PluginInfo("watch", "lab", "1", f"{module}:{path}", "")
    assert hasattr(installed.load(info), "on_step_end"), "and Python agrees"


def test_a_class_that_derives_from_a_shipped_one_has_its_hooks(package: Any) -> None:
    name = package(
        __init__="from training import CSVLoggerCallback\n"
        "class Watch(CSVLoggerCallback):\n    name = 'watch'\n"
    )
    facts = read_class(name, "Watch")
    assert facts.hooks == read_class("trainbus_logging", "CSVLoggerCallback").hooks
    assert facts.attributes["name"] == "watch"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        pytest.param(
            "def __getattr__(name):\n    from .inner import Watch\n    return Watch\n",
            "makes names when asked",
            id="made when asked",
        ),
        pytest.param("Watch = type('Watch', (), {})", "is computed", id="computed"),
        pytest.param("from json import *", "all names of others", id="from others"),
        pytest.param("from math import Watch", "no source code", id="compiled"),
    ],
)
def test_what_only_a_run_can_tell_is_unknown_and_not_broken(
    source: str, why: str, package: Any, command: Command, install: Any
) -> None:
    name = package(__init__=source, inner=PLAIN)
    with pytest.raises(UnknownSourceError, match=why):
        read_class(name, "Watch")
    install("lab", f"watch = {name}:Watch", None)
    _, out, _ = command("plugins", "list", "--json", "-p", "watch")
    (entry,) = (each for each in json.loads(out) if each["name"] == "watch")
    assert (entry["state"], entry["hooks"]) == ("active", None)
    code, out, _ = command("plugins", "show", "watch")
    assert code == 0
    assert "try: trainbus plugins check watch" in out


def test_a_base_out_of_reach_is_named_and_makes_nothing_of_its_heirs_broken(
    package: Any,
) -> None:
    name = package(
        __init__="from math import Base\nclass Watch(Base):\n"
        "    def on_step_end(self): ...\n    def on_thing(self): ...\n"
    )
    facts = read_class(name, "Watch")
    assert facts.unseen == ("Base",)
    assert facts.hooks == ("on_step_end",)
    assert facts.misspelt == ()


@pytest.mark.parametrize(
    ("source", "why"),
    [
        pytest.param("class Other: ...", "has no class 'Watch'", id="no such class"),
        pytest.param("def Watch(): ...", "a function, not a class", id="a function"),
        pytest.param("class (", "cannot be read", id="no valid code"),
        pytest.param("from .gone import Watch", "gone' is not found", id="no module"),
    ],
)
def test_what_cannot_be_loaded_is_broken(source: str, why: str, package: Any) -> None:
    with pytest.raises(SourceError, match=why) as caught:
        read_class(package(__init__=source), "Watch")
    assert not isinstance(caught.value, UnknownSourceError)


def test_the_options_of_a_dataclass_are_its_fields(package: Any) -> None:
    name = package(
        __init__="""
from dataclasses import dataclass, field
from typing import ClassVar
from training import Callback

@dataclass
class Base(Callback):
    every: int = 5

@dataclass
class Watch(Base):
    \"\"\"Watch.

    Args:
        paths: where to look.
    \"\"\"

    name: ClassVar[str] = "watch"
    paths: list[str] = field(default_factory=list)
    seen: int = field(default=0, init=False)
    level: str = field(default="low")
"""
    )
    options = read_class(name, "Watch").options
    assert [(each.name, each.default) for each in options] == [
        ("every", "5"),
        ("paths", "list()"),
        ("level", "'low'"),
    ]
    assert options[1].doc == "where to look."


@pytest.mark.parametrize(
    ("annotation", "told"),
    [
        ("Annotated[int, Ge(1)]", "int >= 1"),
        ("Annotated[int, Ge(-1)] | None", "int >= -1 | None"),
        ("Annotated[float, Gt(0), Lt(math.inf)]", "float > 0, < inf"),
        ("Annotated[str, MinLen(1)]", "str length >= 1"),
        ("list[Annotated[int, Le(9)]]", "list[int <= 9]"),
        (
            "Annotated[list[Annotated[int, Ge(1)]], MaxLen(2)]",
            "list[int >= 1] length <= 2",
        ),
        ("Annotated[float, Field(gt=0)]", "float Field(gt=0)"),
        ("dict[str, int]", "dict[str, int]"),
    ],
)
def test_the_bounds_of_an_option_are_told_in_signs(
    annotation: str, told: str, package: Any
) -> None:
    name = package(
        __init__="from training import Callback\n"
        "class Watch(Callback):\n"
        f"    def __init__(self, every: {annotation} = 1): ...\n"
    )
    (option,) = read_class(name, "Watch").options
    assert option.type == told


def test_an_awaitable_hook_is_listed_as_broken(install: Any, command: Command) -> None:
    source = PLAIN.replace("def", "async def")
    install("lab", "watch = lab_awaits:Watch", source)
    _, out, _ = command("plugins", "list", "--json")
    (entry,) = (each for each in json.loads(out) if each["name"] == "watch")
    assert entry["state"] == "broken"
    assert "on_step_end is `async def`, which nobody awaits" in entry["why"]
