"""Options of plugins: ranges are part of the type, and all mistakes come at once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Lt, MinLen
from processes import printed_by
from pydantic import Field

from training.app.config.json_schema import options_schema
from training.app.config.load import load_config
from training.discovery.signature import (
    checked_options,
    fitted,
    instance,
)
from training.discovery.specs import build_plugins
from training.documents.document import dotted
from training.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from nowhere import Unknown

Command = Callable[..., tuple[int, str, str]]


class Bounded:
    """Takes options in ranges."""

    def __init__(
        self,
        count: Annotated[int, Ge(1)] = 1,
        share: Annotated[float, Field(gt=0, lt=1)] = 0.5,
        every: Annotated[int, Gt(0)] | None = None,
        sizes: list[Annotated[int, Ge(0)]] | None = None,
        title: Annotated[str, MinLen(2)] = "ab",
        either: int | list[int] = 0,
    ) -> None: ...


BOUNDED = """
from __future__ import annotations
from typing import Annotated
from annotated_types import Ge

class Bounded:
    def __init__(self, count: Annotated[int, Ge(1)] = 1) -> None: ...
"""


COUNTING = """
from typing import Annotated
from pydantic import BeforeValidator
from training import checked_options

seen = []

class Counting:
    @checked_options
    def __init__(
        self, count: Annotated[int, BeforeValidator(lambda n: seen.append(n) or n)]
    ) -> None:
        self.checked = list(seen)
        seen.clear()
"""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 0}, "count is 0, but must be at least 1"),
        ({"share": 1.5}, "share is 1.5, but must be less than 1"),
        ({"every": 0}, "every is 0, but must be greater than 0"),
        ({"sizes": [-2, -1]}, "sizes[0] is -2, but must be at least 0"),
        ({"sizes": [3, -1]}, "sizes[1] is -1, but must be at least 0"),
        ({"title": "a"}, "title is 'a', but must be at least 2 character(s) long"),
        ({"either": "a"}, "either is 'a', but must be a whole number or a list"),
        ({"either": ["a"]}, "either is ['a'], but must be a whole number or list[int]"),
    ],
)
def test_a_value_out_of_its_range_is_refused(
    options: dict[str, Any], words: str
) -> None:
    _, ((path, text),) = fitted(Bounded, options)
    assert f"{dotted(path)}{text}" == words


def test_ranges_are_in_the_schema() -> None:
    properties = options_schema(Bounded)["properties"]
    assert properties["count"] == {"type": "integer", "minimum": 1, "default": 1}
    assert properties["share"]["exclusiveMaximum"] == 1
    assert properties["every"]["anyOf"][0] == {"type": "integer", "exclusiveMinimum": 0}
    assert properties["title"]["minLength"] == 2


class Checked:
    """Takes options in ranges, from Python as well."""

    name = "lab"

    @checked_options
    def __init__(
        self,
        count: Annotated[int, Ge(1)] = 1,
        *,
        share: Annotated[float, Gt(0), Lt(1)] = 0.5,
        mode: Literal["min", "max"] = "min",
        where: str | os.PathLike[str] | None = None,
        helper: Unknown | None = None,
        anything: Any = None,
    ) -> None:
        self.given = count, share, mode, where, helper, anything


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"count": 0}, "lab.count is 0, but must be at least 1"),
        ({"count": True}, "lab.count is true, but must be a whole number"),
        ({"share": math.nan}, "lab.share is nan, but must be a number"),
        (
            {"mode": "mix"},
            "lab.mode is 'mix' (did you mean 'min'?), but must be one of: 'min', 'max'",
        ),
        ({"where": 3}, "lab.where is 3, but must be text"),
    ],
)
def test_a_checked_constructor_refuses_what_does_not_fit_its_signature(
    call: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Checked(**call)
    assert str(caught.value) == words


def test_a_checked_constructor_tells_all_mistakes_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Checked(0, share=1.0, mode="mix")  # type: ignore[arg-type]
    told = [line.split(" is ")[0] for line in str(caught.value).splitlines()]
    assert told == ["lab.count", "lab.share", "lab.mode"]


def test_a_checked_constructor_gets_what_fits_as_it_was_passed() -> None:
    helper, path = object(), Path("a")
    plugin = Checked(3, share=0.1, mode="max", where=path, helper=helper, anything=0)  # type: ignore[arg-type]
    assert plugin.given == (3, 0.1, "max", path, helper, 0)
    assert Checked().given == (1, 0.5, "min", None, None, None)


@pytest.mark.parametrize(
    ("call", "imported"),
    [("Checked()", "[]"), ("Checked(1)", "[]"), ("Checked(2)", "['pydantic']")],
)
def test_a_checked_constructor_imports_pydantic_only_for_what_is_no_default(
    call: str, imported: str
) -> None:
    code = f"""{BOUNDED}
import sys
from training import checked_options

class Checked:
    @checked_options
    def __init__(
        self, count: Annotated[int, Ge(1)] = 1, helper: Nowhere | None = None
    ) -> None: ...

{call}
print(sorted({{"torch", "pydantic"}} & set(sys.modules)))
"""
    assert printed_by(code) == imported


def test_without_the_decorator_python_may_pass_anything() -> None:
    Bounded(count=0)


def test_a_call_that_python_refuses_is_refused_in_pythons_words() -> None:
    with pytest.raises(TypeError, match=r"Checked\.__init__\(\) got an unexpected key"):
        Checked(cuont=0)  # type: ignore[call-arg]


def test_a_subclass_is_told_of_by_its_own_name_and_adds_options_of_its_own() -> None:
    class Child(Checked):
        name = "child"

        def __init__(self, extra: int, count: int) -> None:
            super().__init__(count)

    assert Child(0, 1).given[0] == 1
    with pytest.raises(ConfigError, match=r"^child\.count is 0"):
        Child(0, 0)


def test_a_checked_constructor_is_the_same_schema() -> None:
    class Plain:
        __init__ = Checked.__init__.__wrapped__  # type: ignore[attr-defined]

    assert options_schema(Checked)["properties"] == options_schema(Plain)["properties"]
    assert fitted(Checked, {"count": 0}) == fitted(Plain, {"count": 0})


def test_an_option_is_checked_once_on_its_way_from_a_list_to_the_constructor(
    tmp_path: Path,
) -> None:
    file = tmp_path / "lab.py"
    file.write_text(COUNTING)
    ((_, plugin),) = build_plugins([{f"{file}:Counting": {"count": 1}}])
    assert plugin.checked == [1]
    assert type(plugin)(2).checked == [2]


def test_what_a_constructor_constructs_in_turn_is_checked() -> None:
    class Outer:
        @checked_options
        def __init__(self, count: int = 1) -> None:
            self.inner = Checked(count)

    class Child(Checked):
        def __init__(self, share: float = 0.5) -> None:
            super().__init__(0, share=share)

    assert instance(Outer, {"count": 2}).inner.given[0] == 2
    with pytest.raises(ConfigError, match=r"^lab\.count is 0"):
        instance(Outer, {"count": 0})
    with pytest.raises(ConfigError, match=r"^lab\.count is 0"):
        instance(Child, {})


def test_a_value_of_no_type_in_a_union_is_one_mistake(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("data: {train: a}\nmodel: {name: m}\ntraining: {compile: 3}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    told = "training.compile is 3, but must be true or false or a mapping of keys"
    assert str(caught.value) == f"{path}:3: {told}"


def test_an_unknown_name_hides_no_other_mistake(
    install: Any, tmp_path: Path, command: Command
) -> None:
    install("lab", "bounded = lab_bounded:Bounded", BOUNDED)
    path = tmp_path / "run.yaml"
    path.write_text(
        "data: {train: a}\n"
        "model: {name: m}\n"
        "training: {num_epochs: 0}\n"
        "plugins:\n"
        "  - cvs\n"
        "  - bounded: {count: 0}\n"
        "  - csv: {file_name: a, on_failure: never}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    places = [line.split(" ")[:2] for line in str(caught.value).splitlines()]
    assert places == [
        [f"{path}:3:", "training.num_epochs"],
        [f"{path}:5:", "plugins.cvs:"],
        [f"{path}:6:", "plugins.bounded.count"],
        [f"{path}:7:", "plugins.csv.file_name"],
        [f"{path}:7:", "plugins.csv.on_failure"],
    ]
    code, _, err = command("run", str(path))
    assert code == 2
    assert err.count("trainbus: error: ") == 5


@pytest.mark.parametrize("option", ["id", "on_failure"])
def test_an_option_that_no_configuration_could_set_is_refused_where_it_is_chosen(
    option: str, tmp_path: Path
) -> None:
    file = tmp_path / f"lab_{option}.py"
    file.write_text(f"class Lab:\n    def __init__(self, {option}: str = 'a'): ...\n")
    with pytest.raises(PluginError) as caught:
        build_plugins([f"{file}:Lab"])
    told = str(caught.value)
    assert told.startswith("plugins.Lab: Lab (")
    assert told.endswith(
        f"cannot be configured: the option {option!r} is reserved for the "
        "configuration; rename it"
    )


@pytest.mark.parametrize(("name", "use"), [("csv", "csv"), ("two", "csv")])
@pytest.mark.parametrize("by", ["the list", "-p csv"])
def test_an_id_is_refused_elsewhere_than_in_the_list_of_plugins(
    by: str, name: str, use: str, tmp_path: Path, command: Command
) -> None:
    path = tmp_path / "run.yaml"
    first, option = ("  - csv\n", []) if by == "the list" else ("", by.split())
    path.write_text(f"plugins:\n{first}  - csv: {{id: two, filename: b.csv}}\n")
    change = ["--set", f"plugins.{name}.id=other"]
    code, _, err = command("plan", str(path), *option, *change)
    assert code == 2
    (told,) = err.splitlines()
    assert told == (
        f"trainbus: error: --set: plugins.{name}: plugin {name!r} gets its id in a "
        f"configuration's list of plugins alone; write there: - {use}: {{id: ...}}"
    )


def test_an_id_that_is_what_the_plugin_is_called_may_be_said_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.yaml"
    listed = "plugins:\n  - csv: {id: two, filename: b.csv}\n"
    path.write_text("data: {train: a}\nmodel: {name: m}\n" + listed)
    said = load_config(path, ["plugins.two.id=two"])
    assert said.plugins == load_config(path).plugins


def test_what_constructors_refuse_comes_together_with_its_places() -> None:
    with pytest.raises(PluginError) as caught:
        build_plugins(
            [
                {"lr_scheduling": {"type": "step"}},
                {"lr_scheduling": {"type": "plateau", "warmup": 3, "id": "second"}},
            ]
        )
    first, second = str(caught.value).splitlines()
    assert first.startswith("plugins.lr_scheduling: lr_scheduling.type is 'step', wh")
    assert second.startswith("plugins.second: lr_scheduling.warmup is 3.0, but")


def test_bounds_of_several_shipped_plugins_are_told_at_once_with_their_paths() -> None:
    with pytest.raises(PluginError) as caught:
        build_plugins(
            [
                {"checkpointing": {"save_top_k": -2, "save_frequency": 0, "modus": 1}},
                {"early_stopping": {"patience": -1, "min_delta": math.inf}},
                {"lr_scheduling": {"type": "cosin", "gamma": 0, "factor": 1}},
                {"evaluation": {"metrics": [3], "num_beams": 0}},
                {"progress": {"verbose": 3}},
                {"tensorboard": {"every_n_steps": 0}},
            ]
        )
    told = [line.split(" ", 1) for line in str(caught.value).splitlines()]
    assert [place for place, _ in told] == [
        "plugins.checkpointing.save_top_k",
        "plugins.checkpointing.save_frequency",
        "plugins.checkpointing.modus",
        "plugins.early_stopping.patience",
        "plugins.early_stopping.min_delta",
        "plugins.lr_scheduling.type",
        "plugins.lr_scheduling.gamma",
        "plugins.lr_scheduling.factor",
        "plugins.evaluation.metrics[0]",
        "plugins.evaluation.num_beams",
        "plugins.progress.verbose",
        "plugins.tensorboard.every_n_steps",
    ]
    words = dict(told)  # type: ignore[arg-type]
    finite = "is inf, but must be a finite number"
    assert words["plugins.early_stopping.min_delta"] == finite
    assert "(did you mean 'cosine'?)" in words["plugins.lr_scheduling.type"]
