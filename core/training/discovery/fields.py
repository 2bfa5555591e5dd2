"""Fields of pydantic that stand as defaults in a signature, and what they hold."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["default_of", "fields_of", "filled"]


def filled(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values``, and of each Field in place of another default what it holds.

    The Field itself would arrive as the value; but a function that ``validate_call``
    made gets from pydantic what it asks for, by the names that pydantic knows.

    Raises:
        TypeError: a default cannot be made, which is the function's own fault.
    """
    if hasattr(function, "raw_function"):
        return dict(values)
    defaults = {}
    for name, field in fields_of(function).items():
        if name in values:
            continue
        if field.default_factory_takes_validated_data:
            raise TypeError(
                f"the default of {name!r} in {function.__qualname__} is made by a "
                "factory that takes validated data, which only a model of pydantic "
                "has; let the factory take no argument"
            )
        defaults[name] = field.get_default(call_default_factory=True)
    return {**defaults, **values}


def fields_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the Fields of pydantic that stand as defaults, by parameter."""
    return {
        each.name: each.default
        for each in inspect.signature(function).parameters.values()
        if each.kind is not each.POSITIONAL_ONLY and _is_field(each.default)
    }


def _is_field(default: Any) -> bool:
    return type(default).__name__ == "FieldInfo"


def default_of(parameter: inspect.Parameter) -> Any:
    """Return a parameter's default; where that is a Field of pydantic, the one in it.

    What a factory will make nobody knows before: there the Field stays.
    """
    default = parameter.default
    if not _is_field(default) or default.default_factory is not None:
        return default
    return parameter.empty if default.is_required() else default.get_default()
