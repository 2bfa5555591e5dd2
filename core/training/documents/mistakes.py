"""Say in one sentence per mistake what pydantic found wrong with a value.

One wording for all that a person writes: a configuration, and options of plugins.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf, isnan
from typing import Any

from pydantic import BaseModel, ValidationError

from training.documents.document import Key, as_yaml, dotted
from training.errors import did_you_mean

__all__ = ["explain", "mistakes_in"]

#: What a value should be -> the types of pydantic's errors that say so. Names in
#: braces are in the error's context.
_RULES = {
    "a finite number": "finite_number",
    "a list": "frozen_set_type list_type set_type tuple_type",
    "a mapping of keys": "dataclass_type dict_type model_attributes_type model_type",
    "a number": "float_parsing float_type",
    "a path": "path_type",
    "a text that matches {pattern}": "string_pattern_mismatch",
    "a whole number": "int_from_float int_parsing int_type",
    "an object that only Python code can pass": "needs_python_object",
    "at least {ge}": "greater_than_equal",
    "at least {min_length} character(s) long": "string_too_short",
    "at least {min_length} item(s) long": "too_short",
    "at most {le}": "less_than_equal",
    "at most {max_length} character(s) long": "string_too_long",
    "at most {max_length} item(s) long": "too_long",
    "greater than {gt}": "greater_than",
    "less than {lt}": "less_than",
    "null": "none_required",
    "one of: {expected}": "enum literal_error",
    "text": "string_type",
    "true or false": "bool_parsing bool_type",
}
_EXPECTED = {kind: rule for rule, kinds in _RULES.items() for kind in kinds.split()}
_MISSING = ("missing", "missing_argument")
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


def explain(
    error: ValidationError,
    value: Any,
    model: type[BaseModel],
    origin: Callable[[Key], str],
    prefix: Key = (),
) -> list[str]:
    """Return a sentence for every mistake, each with its place.

    Args:
        error: what validating ``model`` raised.
        value: what was validated.
        model: names the choices for an unknown key.
        origin: path in the whole file -> ``"file:line"`` or the like.
        prefix: path of ``value`` in the whole file, such as ``("data",)``.
    """
    sentences: list[str] = []
    for path, text in mistakes_in(error, value, model, prefix):
        told = f"{dotted((*prefix, *path))}{text}".removeprefix(": ")
        place = origin((*prefix, *path))
        sentences.append(f"{place}: {told}" if place else told)
    return sentences


def mistakes_in(
    error: ValidationError,
    value: Any,
    model: type[BaseModel] | None = None,
    prefix: Key = (),
) -> Iterator[tuple[Key, str]]:
    """Yield where each mistake is, and what is to be said behind that place.

    A value that fits none of several types is one mistake.

    Args:
        error: what validating ``value`` raised.
        value: what was validated.
        model: its model; names the choices for an unknown key.
        prefix: path of ``value`` in the whole file.
    """
    found: dict[Key, tuple[Any, list[Any]]] = {}
    for each in error.errors(include_url=False):
        path, given = _written(value, each)
        found.setdefault(path, (given, []))[1].append(each)
    for path, (given, mistakes) in found.items():
        kind = mistakes[0]["type"]
        if kind in _MISSING:
            yield path, " is missing"
        elif kind in _UNKNOWN_KEY:
            yield path, _unknown_key(path, mistakes[0].get("input"), model, prefix)
        else:
            yield path, _misfit(len(path), given, mistakes)


def _written(value: Any, mistake: Mapping[str, Any]) -> tuple[Key, Any]:
    """Return the part of a mistake's location that is written, and what stands there.

    What follows is pydantic's name for the type of a union that was tried.
    """
    location: Key = mistake["loc"]
    if mistake["type"] in {*_UNKNOWN_KEY, *_MISSING}:
        return location, None
    for depth, part in enumerate(location):
        is_index = isinstance(value, (list, tuple)) and isinstance(part, int)
        if not is_index and not (isinstance(value, Mapping) and part in value):
            return location[:depth], value
        value = value[part]
    return location, value


def _unknown_key(
    path: Key, given: Any, root: type[BaseModel] | None, prefix: Key
) -> str:
    name, model = str(path[-1]), _model_at(root, path[:-1])
    known = sorted(model.model_fields) if model is not None else []
    hint = did_you_mean(name, [*known, *getattr(model, "older_keys", ())])
    elsewhere = [dotted((*prefix, *key)) for key in _places_of(name, given, root)]
    if elsewhere and not hint:
        hint = f" (did you mean {' or '.join(elsewhere[:3])}?)"
    listed = f"; known here: {', '.join(known)}" if known else ""
    return f" is not a setting{hint}{listed}"


def _places_of(
    name: str, given: Any, model: type[BaseModel] | None, levels: int = 4
) -> list[Key]:
    """Return where ``model`` has a key of that name, which may hold ``given``."""
    fields = model.model_fields if model is not None else {}
    sections = {key: _section_in(field.annotation) for key, field in fields.items()}
    found: list[Key] = [(name,)] if name in fields else []
    # One key was written below it: that is the setting.
    if found and isinstance(given, Mapping) and len(given) == 1:
        inner, (key,) = sections[name], given
        found = [(name, str(key))] if inner and str(key) in inner.model_fields else []
    for key, section in sections.items():
        deeper = _places_of(name, given, section, levels - 1) if levels else []
        found += [(key, *rest) for rest in deeper]
    return found


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model of a section, None for a list or a mapping of several."""
    parts = [annotation, *typing.get_args(annotation)]
    return next(
        (p for p in parts if inspect.isclass(p) and issubclass(p, BaseModel)), None
    )


def _misfit(depth: int, value: Any, mistakes: Sequence[Mapping[str, Any]]) -> str:
    rules = dict.fromkeys(_expected(each, depth) for each in mistakes)
    rule = " or ".join(filter(None, rules))
    if rule:
        hint = did_you_mean(str(value), re.findall(r"'(.*?)'", rule))
        return f" is {as_yaml(value)}{hint}, but must be {rule}"
    return f": {mistakes[0].get('ctx', {}).get('error', mistakes[0]['msg'])}"


def _expected(mistake: Mapping[str, Any], depth: int) -> str:
    """Return what the value should be, "" where pydantic tells no such rule."""
    if len(mistake["loc"]) > depth + 1:  # in an item, for one type of a union
        return str(mistake["loc"][depth])
    at = mistake.get("ctx", {})
    kind = "finite_number" if at.get("lt") == inf else mistake["type"]
    given = mistake.get("input")
    is_nan = isinstance(given, float) and isnan(given)
    if is_nan and kind != "finite_number" and at.keys() & {"ge", "gt", "le", "lt"}:
        return "a number"  # no bound is what is wrong with it
    rule = _EXPECTED.get(kind)
    if rule is None:
        return str(mistake["msg"]).partition(" should be ")[2]
    told = {name: str(bound).removesuffix(".0") for name, bound in at.items()}
    if kind in ("enum", "literal_error"):
        told["expected"] = told["expected"].replace(" or ", ", ")
    return rule.format_map(told)


def _model_at(model: type[BaseModel] | None, path: Key) -> type[BaseModel] | None:
    """Return the model of a section, None where a model does not say."""
    for part in path:
        if model is not None and isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation)
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the first model inside ``list[Model] | None`` and the like."""
    if inspect.isclass(annotation):
        return annotation if issubclass(annotation, BaseModel) else None
    for argument in typing.get_args(annotation):
        if (found := _model_in(argument)) is not None:
            return found
    return None
