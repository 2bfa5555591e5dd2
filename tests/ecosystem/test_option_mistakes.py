"""Options of plugins: ranges are part of the type, and all mistakes come at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from annotated_types import Ge, Gt, MinLen
from pydantic import Field

from training.app.config import load_config
from training.app.json_schema import options_schema
from training.errors import ConfigError, PluginError
from training.options import build_plugins, option_mistakes, signature_mistakes

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
    ) -> None: ...


BOUNDED = """
from __future__ import annotations
from typing import Annotated
from annotated_types import Ge

class Bounded:
    def __init__(self, count: Annotated[int, Ge(1)] = 1) -> None: ...
"""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 0}, "is 0, but must be greater than or equal to 1"),
        ({"share": 1.5}, "is 1.5, but must be less than 1"),
        ({"every": 0}, "is 0, but must be greater than 0"),
        ({"sizes": [3, -1]}, "is [3, -1], but must be greater than or equal to 0"),
        ({"title": "a"}, "is 'a': String should have at least 2 characters"),
    ],
)
def test_a_value_out_of_its_range_is_refused(
    options: dict[str, Any], words: str
) -> None:
    (name,) = options
    assert option_mistakes(Bounded, options) == [(name, words)]


def test_ranges_are_in_the_schema() -> None:
    properties = options_schema(Bounded)["properties"]
    assert properties["count"] == {"type": "integer", "minimum": 1, "default": 1}
    assert properties["share"]["exclusiveMaximum"] == 1
    assert properties["every"]["anyOf"][0] == {"type": "integer", "exclusiveMinimum": 0}
    assert properties["title"]["minLength"] == 2


def test_a_field_in_place_of_a_default_is_found_out() -> None:
    class Lab:
        def __init__(self, every: int = Field(3, ge=1)) -> None: ...

    (told,) = signature_mistakes(Lab)
    assert "'every' has a Field as its default; write it into the type" in told


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


def test_what_constructors_refuse_comes_together_with_its_places() -> None:
    with pytest.raises(PluginError) as caught:
        build_plugins(
            [
                {"early_stopping": {"min_delta": -1}},
                {"early_stopping": {"min_epochs": -1, "id": "second"}},
            ]
        )
    first, second = str(caught.value).splitlines()
    assert first.startswith("plugins.early_stopping: early_stopping.min_delta is -1")
    assert second.startswith("plugins.second: early_stopping.min_epochs is -1")
