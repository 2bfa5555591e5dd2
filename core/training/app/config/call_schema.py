"""JSON schemas of what is installed: by name, with options from signatures."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from training.discovery import installed
from training.discovery.sources import documented
from training.errors import PluginError

__all__ = ["by_name", "call_schema", "classes"]

log = logging.getLogger(__name__)


def classes(kind: str) -> Iterator[tuple[str, type[Any]]]:
    """Yield name and class of what is installed; what cannot be had is warned of."""
    for info in installed.installed(kind):
        try:
            yield info.name, installed.load(info)
        except PluginError as error:
            log.warning("left out of the schema: %s", error)


def call_schema(
    parameters: Mapping[str, inspect.Parameter], doc: str
) -> dict[str, Any]:
    """Return the schema of the keyword arguments that a docstring describes."""
    told = documented(doc)
    properties: dict[str, Any] = {}
    required = []
    for name, parameter in parameters.items():
        entry = _type_schema(parameter.annotation)
        if name in told:
            entry["description"] = told[name]
        if parameter.default is inspect.Parameter.empty:
            required.append(name)
        elif isinstance(parameter.default, (str, int, float, type(None))):
            entry["default"] = parameter.default
        properties[name] = entry
    return {
        "type": ["object", "null"],
        "description": doc.partition("\n")[0],
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def by_name(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a name, alone or over its options."""
    over_options = {
        "type": "object",
        "properties": dict(known),
        "minProperties": 1,
        "maxProperties": 1,
    }
    names = {"anyOf": [{"enum": sorted(known)}, {"type": "string"}]}
    return {"anyOf": [names, over_options]}


def _type_schema(annotation: Any) -> dict[str, Any]:
    """Return the schema of what a file may write; anything where that is unknown."""
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

    if annotation is Any:
        return {}
    try:
        return TypeAdapter(annotation).json_schema()
    except (PydanticInvalidForJsonSchema, PydanticUserError):
        return {}
