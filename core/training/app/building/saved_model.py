"""The model of a checkpoint that says what it was made of.

    {"format": 2, "task": {"name", "options"}, "family": {"name", "options", "from"},
     "model": what the family describes, "base": a name or None,
     "freeze": [names], "lora": {option: value} or None}

Format 1 said ``model_type`` beside what the one family of then described.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from training.app.building.recipe import add_adapters
from training.app.config.load import Config
from training.app.config.recipe_checks import DEFAULT_TASK, ONCE_HERE
from training.discovery.parts import (
    build_family,
    build_part,
    find_part,
    named_part,
)
from training.discovery.provenance import announcement_of
from training.errors import CheckpointError, ConfigError
from training.messages.error_texts import text_of
from training.recipes.family import ModelFamily
from training.recipes.recipe import Recipe
from training.recipes.task import Task

__all__ = ["Rebuilt", "described", "named_parts", "rebuild"]

FORMAT = 2


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a checkpoint's description makes; the model's weights are random.

    Attributes:
        task: set on the family.
        family: of the options that the run had.
        model: on the CPU.
        processor: of the model.
    """

    task: Task
    family: ModelFamily
    model: Any
    processor: Any


def described(config: Config, recipe: Recipe, model: Any) -> dict[str, Any]:
    """Return JSON values that a checkpoint carries, for ``rebuild``."""
    name, options = named_part(config.task, "task")
    info = announcement_of(type(recipe.family))
    return {
        "format": FORMAT,
        "task": {"name": name, "options": options},
        "family": {
            "name": config.model.type,
            "options": config.model.options,
            "from": info and info.distribution,
        },
        "model": recipe.family.describe(model, recipe.processor),
        "base": config.model.name,
        "freeze": config.model.freeze,
        "lora": config.model.lora,
    }


def rebuild(
    description: Mapping[str, Any],
    source: str,
    weights: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    parts: tuple[Task, ModelFamily] | None = None,
    is_whole: bool = True,
) -> Rebuilt:
    """Return what ``described`` told; only JSON values are read, nothing is run.

    Args:
        description: of a checkpoint.
        source: the checkpoint, for messages.
        weights: name -> tensor, what the model is to be filled with; another model than
            theirs is then refused before any memory is taken for it.
        config: the configuration that the checkpoint carries; format 1 has the
            family's options there.
        parts: task and family to take in place of those that are described.
        is_whole: whether ``weights`` are all that the model has; if not, the others are
            those of the model that the run began with.
    Raises:
        CheckpointError: the description is of another format, damaged, or of another
            model than that of ``weights``, or names what is not installed.
    """
    plain = _as_format_2(description, config or {})
    if parts is None:
        parts = named_parts(description, source, config)
    from training.checkpoint.part_checks import are_names

    task, family = parts
    lora = plain.get("lora")
    begin: Callable[..., tuple[Any, Any]] = family.rebuild
    if not is_whole:
        begin = _on_base(plain, family, source)
    try:
        if weights is not None and is_whole and not lora:
            family.check(plain["model"], weights)
        model, processor = begin(plain["model"])
    except Exception as error:
        if isinstance(error, ConfigError) and not is_whole:
            raise  # the model that the run began with cannot be had
        # Whatever stands in it is handed to libraries whose errors have no common
        # class.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _damaged(reason) from error
    if lora:
        frozen = plain.get("freeze", ())
        if not isinstance(lora, Mapping) or not are_names(frozen):
            raise _damaged("its adapters have no options, or freeze no names")
        import_module("trainbus_models.model_utils").freeze_model(model, frozen)
        add_adapters(model, lora, ("lora",))
    return Rebuilt(task, family, model, processor)


def _damaged(reason: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint's description of its model is damaged: {reason:.300}"
    )


def _on_base(
    plain: Mapping[str, Any], family: ModelFamily, source: str
) -> Callable[..., tuple[Any, Any]]:
    """Return what rebuilds a model with the weights that its run began with."""
    base, rebuild_on = plain.get("base"), getattr(family, "rebuild_on", None)
    if not isinstance(base, str) or rebuild_on is None:
        raise CheckpointError(
            f"{source!r} holds trained weights alone, and the others cannot be had "
            "without the run's data; go on with its configuration, or write "
            "checkpoints with weights: all"
        )
    return partial(rebuild_on, base)


def _as_format_2(
    description: Mapping[str, Any], config: Mapping[str, Any]
) -> Mapping[str, Any]:
    number = description.get("format")
    if type(number) is not int or number not in (1, FORMAT):
        raise CheckpointError(
            f"the checkpoint describes a model in format {number!r:.60}; this version "
            f"rebuilds formats 1 and {FORMAT}"
        )
    if number == FORMAT:
        return description
    data = config.get("data", {})
    once = {key: data[key] for key in ONCE_HERE if data.get(key) is not None}
    return {
        "task": {"name": config.get("task", DEFAULT_TASK), "options": {}},
        "family": {"name": description.get("model_type"), "options": once},
        "model": description,
    }


def named_parts(
    description: Mapping[str, Any],
    source: str,
    config: Mapping[str, Any] | None = None,
) -> tuple[Task, ModelFamily]:
    """Return the task and the family of a checkpoint, the one knowing the other.

    Args:
        description: of the checkpoint.
        source: the checkpoint, for messages.
        config: the configuration that it carries.
    Raises:
        CheckpointError: the description is of another format or damaged, or names what
            is not installed.
    """
    plain = _as_format_2(description, config or {})
    made: list[Any] = []
    for key, kind in (("task", "task"), ("family", "model")):
        told = plain.get(key)
        options = told.get("options", {}) if isinstance(told, Mapping) else None
        if not isinstance(told, Mapping) or not isinstance(options, Mapping):
            raise CheckpointError(f"{source!r} does not say its {key} and options")
        name, owner = str(told.get("name")), told.get("from")
        try:
            cls = find_part(kind, name, key)
            make = partial(build_family, made[0]) if made else build_part
            made.append(make(cls, options, (key,)))
        except ConfigError as error:
            hint = f" (the run had it from {owner})" if owner else ""
            raise CheckpointError(
                f"{source!r} was made by a {key} that cannot be had: "
                f"{text_of(error)}{hint}"
            ) from error
    task, family = made
    return task, family
