"""A JSON schema of the whole configuration, with the options of installed plugins.

For editors: name it in the first line of a file,
``# yaml-language-server: $schema=trainbus.schema.json``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from training.app.config.call_schema import by_name, call_schema, classes
from training.app.config.guide_keys import SECTIONS
from training.app.config.recipe_schema import add_recipe
from training.app.config.schema import Config
from training.discovery.signature import parameters_of
from training.discovery.sources import documented
from training.discovery.specs import PluginSpec
from training.hooks.hook_api import FAILURE_POLICIES

__all__ = ["config_schema", "options_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> dict[str, Any]:
    """Return the schema of a configuration file, as JSON values.

    Plugins that cannot be imported are left out with a warning, and any options are
    allowed for a plugin that is not installed here.
    """
    schema = Config.model_json_schema()
    schema = {"$schema": DIALECT, **schema}
    schema["$defs"].pop(PluginSpec.__name__, None)
    _describe(schema, Config.__doc__ or "")
    for name, definition in schema["$defs"].items():
        _describe(definition, definition.get("description", name))
    known = {name: options_schema(cls) for name, cls in classes("callback")}
    schema["properties"]["plugins"] = {
        "description": "what is enabled, in any order",
        "type": "array",
        "items": by_name(known),
    }
    add_recipe(schema)
    _add_guide_keys(schema, known)
    del schema["required"]  # another file, or Python, may say the rest
    return schema


def options_schema(cls: type[Any]) -> dict[str, Any]:
    """Return the schema of a plugin's options: its constructor's signature."""
    schema = call_schema(parameters_of(cls), inspect.getdoc(cls) or "")
    schema["properties"] = {
        "id": {"type": "string", "description": "what the instance is called"},
        "on_failure": {
            "enum": list(FAILURE_POLICIES),
            "description": "end the run, or go on without the plugin",
        },
        **schema["properties"],
    }
    return schema


def _add_guide_keys(schema: dict[str, Any], known: Mapping[str, Any]) -> None:
    """Add the older keys that ``guide_keys`` translates, marked as deprecated."""
    data = dict(schema["$defs"]["DataConfig"]["properties"])
    splits = {name: data[name] for name in ("train", "validation", "test")}
    flag = {"type": "boolean"}
    layers = schema["$defs"]["ModelConfig"]["properties"]["freeze"]
    top = {
        "task_type": schema["properties"]["task"],
        "data_paths": _section(splits),
        **{name: entry for name, entry in data.items() if name not in splits},
    }
    training = {
        "fp16": flag,
        "use_tensorboard": flag,
        "freeze": _section({"enabled": flag, "layers": layers}),
    }
    for key, plugin in SECTIONS.items():
        options = known.get(plugin, {}).get("properties")
        if options is not None:
            training[key[-1]] = _section({"enabled": flag, **options})
    for properties, keys in (
        (schema["properties"], top),
        (schema["$defs"]["TrainingConfig"]["properties"], training),
    ):
        for name, entry in keys.items():
            properties.setdefault(name, {**entry, "deprecated": True})


def _section(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a mapping of these keys; a flag alone may stand for it."""
    return {
        "type": ["object", "boolean", "null"],
        "properties": dict(properties),
        "additionalProperties": False,
    }


def _describe(definition: dict[str, Any], doc: str) -> None:
    """Take the descriptions of keys from the class's docstring."""
    told = documented(inspect.cleandoc(doc), "Attributes")
    definition["description"] = inspect.cleandoc(doc).partition("\n")[0]
    for name, entry in definition.get("properties", {}).items():
        if name in told:
            entry["description"] = told[name]
