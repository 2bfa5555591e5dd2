"""The JSON schema of task, model and readers, with the options of what is installed."""

from __future__ import annotations

import inspect
from typing import Any

from trainbus_data.config import ONCE_FAMILY, ONCE_HERE, SPLITS
from training.app.config.call_schema import by_name, call_schema, classes
from training.discovery.installed import IN_A_FILE
from training.discovery.signature import keyword_only, parameters_of

__all__ = ["add_recipe"]


def add_recipe(schema: dict[str, Any]) -> None:
    """Put into ``schema`` what may stand below ``task``, ``model`` and ``data``."""
    tasks = dict(classes("task"))
    families = dict(classes("model"))
    readers = {name: _options(cls) for name, cls in classes("reader")}
    definitions = schema["$defs"]
    told = schema["properties"]["task"].get("description", "")
    known = {name: _options(cls) for name, cls in tasks.items()}
    schema["properties"]["task"] = {**by_name(known), "description": told}
    data = definitions["DataConfig"]["properties"]
    for split in SPLITS:
        choices = [*by_name(readers)["anyOf"], {"type": "null"}]
        data[split] = {"anyOf": choices, "description": data[split]["description"]}
    if ONCE_FAMILY in families:
        once = _options(families[ONCE_FAMILY])["properties"]
        for name in ONCE_HERE:
            data[name] = {**once[name], "deprecated": True}
    default = {getattr(cls, "default_family", "") for cls in tasks.values()}
    _add_families(definitions["ModelConfig"], families, default)
    _add_metrics(schema, tasks)


def _add_metrics(schema: dict[str, Any], tasks: dict[str, type[Any]]) -> None:
    """Let plugins choose among the metrics of a task that is named without options.

    Options may change what a task measures, and so may what another file names.
    """
    choosing = [
        (name, cls.chooses_metrics)
        for name, cls in classes("callback")
        if getattr(cls, "chooses_metrics", {})
    ]
    cases = []
    for task, cls in tasks.items():
        if not cls.metrics:
            continue
        options = {
            plugin: {
                "properties": {o: _list_of(*m, *cls.metrics) for o, m in c.items()}
            }
            for plugin, c in choosing
        }
        cases.append(
            {
                "if": {"properties": {"task": {"const": task}}, "required": ["task"]},
                "then": {"properties": {"plugins": {"items": {"properties": options}}}},
            }
        )
    schema["allOf"] = cases


def _list_of(*names: str) -> dict[str, Any]:
    known = dict.fromkeys(name for name in names if name != IN_A_FILE)
    choices: list[dict[str, Any]] = [{"enum": list(known)}]
    if IN_A_FILE in names:
        choices.append({"type": "string", "pattern": r"\.py:"})
    return {"items": {"anyOf": choices}}


def _add_families(
    model: dict[str, Any], families: dict[str, type[Any]], default: set[str]
) -> None:
    """Let each family have its options; one that is not installed may have any."""
    told = model["properties"]["type"].get("description", "")
    names = {"anyOf": [{"enum": sorted(families)}, {"type": ["string", "null"]}]}
    model["properties"]["type"] = {**names, "description": told}
    model["additionalProperties"] = True
    own = set(model["properties"])
    cases = []
    for name, cls in families.items():
        properties = dict(_options(cls)["properties"])
        if hasattr(cls, "build"):
            doc = inspect.getdoc(cls.build) or ""
            properties["build"] = call_schema(keyword_only(cls.build), doc)
        allowed = {"enum": sorted(own | properties.keys())}
        then = {"properties": properties, "propertyNames": allowed}
        is_it: dict[str, Any] = {
            "properties": {"type": {"const": name}},
            "required": ["type"],
        }
        if name in default:  # as without a type
            absent: dict[str, Any] = {"not": {"required": ["type"]}}
            is_it = {"anyOf": [is_it, absent]} if len(default) == 1 else is_it
        cases.append({"if": is_it, "then": then})
    model["allOf"] = cases


def _options(cls: type[Any]) -> dict[str, Any]:
    return call_schema(parameters_of(cls), inspect.getdoc(cls) or "")
