"""Tasks, model families and readers by name, their options checked like a plugin's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from training.discovery.signature import fitted
from training.discovery.specs import (
    Locate,
    construct,
    load_class,
    name_and_options,
    refuse_mistakes,
)
from training.documents.document import Key, dotted
from training.errors import ConfigError, PluginError
from training.recipes.class_checks import class_mistakes
from training.recipes.family import ModelFamily
from training.recipes.task import Task


def named_part(entry: Any, place: str) -> tuple[str, dict[str, Any]]:
    """Return (name, options) of ``NAME`` or ``{NAME: {option: value}}``.

    Raises:
        ConfigError: it has another form.
    """
    name, given = name_and_options(entry)
    if not name:
        raise ConfigError(
            f"{place} is {entry!r}, but must be a name, or one "
            "`name: {option: value}`"
        )
    return name, dict(given)


def find_part(kind: str, name: str, place: str) -> type[Any]:
    """Return the class of a task, model family or reader.

    Raises:
        PluginError: nobody or more than one provides it, it cannot be imported, or it
            is of another kind.
    """
    cls = load_class(name, place, kind)
    if mistakes := class_mistakes(kind, cls):
        raise PluginError(
            f"{place}: {cls.__module__}.{cls.__qualname__} is no {kind}: "
            f"{'; '.join(mistakes)}"
        )
    return cls


def build_part(
    cls: type[Any],
    options: Mapping[str, Any],
    at: Key,
    locate: Locate = dotted,
    also: Iterable[str] = (),
) -> Any:
    """Return an instance of ``cls``, its options checked against its signature.

    Args:
        cls: from ``find_part``.
        options: the constructor's keyword arguments.
        at: where they stand in the configuration.
        locate: turns a path in the configuration into words, for messages.
        also: further keys that may stand there, for suggestions.
    Raises:
        PluginError: every option that is unknown, missing or of the wrong type, one a
            line; or what the constructor refuses.
    """
    values, mistakes = fitted(cls, options, also)
    refuse_mistakes(mistakes, locate, at)
    return construct(cls, values, locate(at))


def build_pair(
    task: Any,
    family: str | None,
    options: Mapping[str, Any],
    locate: Locate = dotted,
    also: Iterable[str] = (),
) -> tuple[Task, ModelFamily]:
    """Return a task and its family, the one knowing the other.

    Args:
        task: a name, or one over its options.
        family: a name; None: the task's default.
        options: of the family.
        locate: turns a path in the configuration into words, for messages.
        also: further keys that may stand beside ``options``, for suggestions.
    Raises:
        PluginError: one is unknown, or an option does not fit.
    """
    place = locate(("task",))
    name, given = named_part(task, place)
    cls = find_part("task", name, place)
    made: Task = build_part(cls, given, ("task", name), locate)
    kind = family or made.default_family
    found = find_part("model", kind, locate(("model", "type")))
    return made, build_family(made, found, options, ("model",), locate, also)


def build_family(
    task: Task,
    cls: type[Any],
    options: Mapping[str, Any],
    at: Key,
    locate: Locate = dotted,
    also: Iterable[str] = (),
) -> ModelFamily:
    """Return the family of a task, which knows that task.

    A class that is both is made once, unless the family has options of its own.

    Args:
        task: made already.
        cls: of the family, from ``find_part``.
        options: of the family.
        at: where they stand in the configuration.
        locate: turns a path in the configuration into words, for messages.
        also: further keys that may stand there, for suggestions.
    Raises:
        PluginError: an option does not fit.
    """
    is_both = type(task) is cls and not options
    family: Any = task if is_both else build_part(cls, options, at, locate, also)
    family.task = task
    made: ModelFamily = family
    return made
