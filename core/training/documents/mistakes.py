"""Say in one sentence per mistake what pydantic found wrong with a configuration."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from training.documents.document import dotted
from training.documents.yaml_file import Lines
from training.errors import ConfigError, did_you_mean

__all__ = ["describe_mistake", "explain"]

#: pydantic's error type -> what the value should be, from the error's context.
_EXPECTED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "bool_parsing": lambda _: "true or false",
    "bool_type": lambda _: "true or false",
    "dict_type": lambda _: "a mapping of keys",
    "finite_number": lambda _: "a finite number",
    "float_parsing": lambda _: "a number",
    "float_type": lambda _: "a number",
    "greater_than": lambda at: f"greater than {at['gt']}",
    "greater_than_equal": lambda at: f"at least {at['ge']}",
    "int_from_float": lambda _: "a whole number",
    "int_parsing": lambda _: "a whole number",
    "int_type": lambda _: "a whole number",
    "less_than": lambda at: f"less than {at['lt']}",
    "less_than_equal": lambda at: f"at most {at['le']}",
    "list_type": lambda _: "a list",
    "literal_error": lambda at: f"one of: {at['expected']}".replace(" or ", ", "),
    "model_attributes_type": lambda _: "a mapping of keys",
    "model_type": lambda _: "a mapping of keys",
    "none_required": lambda _: "null",
    "path_type": lambda _: "a path",
    "string_pattern_mismatch": lambda at: f"a text that matches {at['pattern']}",
    "string_too_short": lambda at: f"at least {at['min_length']} character(s) long",
    "string_type": lambda _: "text",
    "too_short": lambda at: f"a list of at least {at['min_length']}",
    "tuple_type": lambda _: "a list",
}


def explain(
    error: ValidationError,
    source: str,
    lines: Lines | None = None,
    model: type[BaseModel] | None = None,
    prefix: Sequence[str | int] = (),
) -> ConfigError:
    """Return the ConfigError that says every mistake in one sentence each.

    Args:
        error: what validating ``model`` raised.
        source: file name, or what else the values came from.
        lines: line of each value by its path in that file, as read_yaml_with_lines
            returns them; where known it is put behind ``source``.
        model: the model that was validated; names the choices for an unknown key.
        prefix: path of the validated mapping in the whole file, such as ``("data",)``.
    """
    sentences: list[str] = []
    for mistake in error.errors(include_url=False):
        sentence = describe_mistake(mistake, tuple(prefix), model)
        line = _nearest_line(lines, (*prefix, *mistake["loc"]))
        place = f"{source}:{line}" if line is not None else source
        if (told := f"{place}: {sentence}") not in sentences:
            sentences.append(told)
    return ConfigError("\n".join(sentences))


def describe_mistake(
    mistake: Mapping[str, Any],
    prefix: tuple[str | int, ...],
    model: type[BaseModel] | None,
) -> str:
    """Return one of ``ValidationError.errors()`` as a sentence, without its place.

    Args:
        mistake: what pydantic says.
        prefix: path of the validated mapping in the whole file.
        model: the model that was validated; names the choices for an unknown key.
    """
    kind, location, at = mistake["type"], mistake["loc"], mistake.get("ctx", {})
    name = dotted((*prefix, *location))
    if kind in {"extra_forbidden", "unexpected_keyword_argument"}:
        choices = _fields_at(model, location[:-1])
        hint = did_you_mean(str(location[-1]), choices)
        listed = f"; known here: {', '.join(sorted(choices))}" if choices else ""
        return f"{name} is not a setting{hint}{listed}"
    if kind in {"missing", "missing_argument"}:
        return f"{name} is missing"
    if kind in {"value_error", "assertion_error"}:
        reason = str(at.get("error", mistake["msg"]))
        return f"{name}: {reason}" if name else reason
    value = _show(mistake["input"])
    describe = _EXPECTED.get(kind)
    if describe is None:
        return f"{name} is {value}: {mistake['msg']}"
    return f"{name} is {value}, but must be {describe(at)}"


def _show(value: Any) -> str:
    """Return a value as YAML writes it, cut at 60 characters."""
    text = repr(value)
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    return text if len(text) <= 60 else text[:57] + "..."


def _nearest_line(lines: Lines | None, path: tuple[str | int, ...]) -> int | None:
    """Return the line of a value, or of the nearest one that holds it."""
    if lines is None:
        return None
    for end in range(len(path), 0, -1):
        if path[:end] in lines:
            return lines[path[:end]]
    return None


def _fields_at(
    model: type[BaseModel] | None, location: Sequence[str | int]
) -> list[str]:
    """Return the keys known at a place, or none where the model does not say."""
    for part in location:
        if model is None:
            break
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation)
    return list(model.model_fields) if model is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the first model inside ``list[Model] | None`` and the like."""
    if inspect.isclass(annotation):
        return annotation if issubclass(annotation, BaseModel) else None
    for argument in typing.get_args(annotation):
        if (found := _model_in(argument)) is not None:
            return found
    return None
