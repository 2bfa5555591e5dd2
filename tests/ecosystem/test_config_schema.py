"""`trainbus config schema` accepts what the program accepts, and refuses the rest."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from training.app.config.guide_keys import GUIDE_KEYS
from training.app.config.json_schema import config_schema, options_schema

jsonschema = pytest.importorskip("jsonschema")
CONFIGS = Path(__file__).resolve().parents[2] / "config"


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json.loads(json.dumps(config_schema()))
    cls = jsonschema.validators.validator_for(schema)
    cls.check_schema(schema)
    return cls(schema)


class Numbers(yaml.SafeLoader):
    """Reads ``2e-3`` as a number, as the program does."""


Numbers.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name
)
def test_a_shipped_configuration_fits_the_schema(path: Path, validator: Any) -> None:
    tree = yaml.load(path.read_text(encoding="utf-8"), Loader=Numbers)
    assert [e.message for e in validator.iter_errors(tree)] == []


GOOD: dict[str, Any] = {
    "task": "vqa",
    "data": {"train": "a.jsonl"},
    "model": {"name": "m"},
    "plugins": [
        "csv",
        {"csv": {"id": "two", "filename": "b.csv", "on_failure": "fatal"}},
        {"early_stopping": {"patience": 0, "mode": "max"}},
        {"checkpointing": {"save_top_k": -1, "every_n_steps": None}},
        {"lr_scheduling": {"type": "plateau", "factor": 0.5}},
        {"evaluation": {"metrics": ["loss", "exact_match"]}},
        {"./mine.py:Mine": {"anything": 1}},
        {"not_installed_here": None},
    ],
    "requires": ["trainbus-ema>=0.2"],
}


def test_everything_a_list_of_plugins_may_hold_fits(validator: Any) -> None:
    assert [e.message for e in validator.iter_errors(GOOD)] == []


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        pytest.param("image_classification", "macro_f1", id="of a task"),
        pytest.param({"vqa": {"metric": "anls"}}, "anls", id="of a task's options"),
        pytest.param("./own.py:Task", "speed", id="of a task that is in a file"),
        pytest.param("not_installed_here", "speed", id="of one that is elsewhere"),
        pytest.param(None, "speed", id="of what another file names"),
    ],
)
def test_a_metric_that_a_task_may_have_fits(
    task: Any, metric: str, validator: Any
) -> None:
    tree = {"plugins": [{"evaluation": {"metrics": ["loss", metric]}}]}
    tree |= {"task": task} if task else {}
    assert [e.message for e in validator.iter_errors(tree)] == []


def test_the_older_keys_of_the_guide_fit_and_are_marked_as_such(
    validator: Any,
) -> None:
    tree = {
        "task_type": "vqa",
        "data_paths": {"train": "a.jsonl", "validation": "b.jsonl"},
        "batch_size": 4,
        "model": {"name": "m"},
        "training": {
            "fp16": True,
            "use_tensorboard": True,
            "scheduler": {"type": "cosine"},
            "early_stopping": {"enabled": True, "monitor": "val_loss", "patience": 3},
            "freeze": {"enabled": True, "layers": ["vision_model"]},
        },
    }
    assert [e.message for e in validator.iter_errors(tree)] == []
    keys = validator.schema["$defs"]["TrainingConfig"]["properties"]
    old = {name for name, entry in keys.items() if entry.get("deprecated")}
    assert old == set(GUIDE_KEYS)
    tree["training"]["early_stopping"]["patience"] = "three"  # type: ignore[index]
    assert list(validator.iter_errors(tree))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param(("trianing",), {}, id="an unknown section"),
        pytest.param(("data", "batch_size"), "many", id="text for a number"),
        pytest.param(("plugins",), [{"csv": {"file_name": "a"}}], id="unknown option"),
        pytest.param(
            ("plugins",), [{"early_stopping": {"patience": "3"}}], id="a wrong type"
        ),
        pytest.param(
            ("plugins",), [{"early_stopping": {"mode": "up"}}], id="no such choice"
        ),
        pytest.param(
            ("plugins",), [{"checkpointing": {"save_top_k": -2}}], id="below its bound"
        ),
        pytest.param(
            ("plugins",), [{"lr_scheduling": {"factor": 1}}], id="at an open bound"
        ),
        pytest.param(
            ("plugins",), [{"evaluation": {"metrics": ["f2"]}}], id="no such metric"
        ),
        pytest.param(
            ("plugins",), [{"evaluation": {"metrics": ["f1"]}}], id="another task's"
        ),
        pytest.param(("plugins",), [{"csv": {"on_failure": "no"}}], id="no policy"),
        pytest.param(("plugins",), [{"csv": {}, "progress": {}}], id="two in one"),
    ],
)
def test_a_mistake_does_not_fit(
    path: tuple[str, ...], value: Any, validator: Any
) -> None:
    tree = copy.deepcopy(GOOD)
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    assert list(validator.iter_errors(tree))


def test_an_option_has_type_default_and_doc() -> None:
    class Lab:
        """Watch.

        Args:
            every: steps between looks.
            path: where to write.
        """

        def __init__(self, path: str, every: int = 5) -> None: ...

    schema = options_schema(Lab)
    assert schema["properties"]["every"] == {
        "type": "integer",
        "default": 5,
        "description": "steps between looks.",
    }
    assert schema["required"] == ["path"]
