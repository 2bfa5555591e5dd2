"""Task and family of a configuration, or of a checkpoint that says what it was made of.

    {"format": 2, "task": {"name", "options"}, "family": {"name", "options", "from"},
     "model": what the family describes, "base": a name or None,
     "freeze": [names], "lora": {option: value} or None}

Format 1 said ``model_type`` beside what the one family of then described.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from inspect import Parameter
from pathlib import PurePath
from typing import Any

from training.app.config.load import Config
from training.app.config.recipe_checks import DEFAULT_TASK, OF_EVERY_MODEL, ONCE_HERE
from training.discovery.parts import (
    build_family,
    build_pair,
    build_part,
    find_part,
    named_part,
)
from training.discovery.provenance import announcement_of
from training.discovery.signature import (
    fitted,
    fitted_call,
    keyword_only,
    parameters_of,
)
from training.discovery.specs import Locate
from training.documents.document import Key, dotted
from training.errors import CheckpointError, ConfigError, did_you_mean
from training.messages.error_texts import text_of
from training.recipes.family import ModelFamily
from training.recipes.recipe import Recipe
from training.recipes.task import Task

__all__ = [
    "Rebuilt",
    "add_adapters",
    "described",
    "make_recipe",
    "model_settings",
    "named_parts",
    "rebuild",
]

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


def make_recipe(
    config: Config, plugins: Iterable[tuple[str, Any]] = ()
) -> tuple[Task, ModelFamily]:
    """Return the task and the family that ``config`` names, the one knowing the other.

    Args:
        config: names them.
        plugins: of the run, by name; they may choose among the task's metrics.
    Raises:
        PluginError: what a constructor refuses.
        ConfigError: a plugin is to measure what the task does not.
    """
    model = config.model
    pair = build_pair(
        config.task, model.type, model.options, config.place, OF_EVERY_MODEL
    )
    mistakes = [
        mistake
        for name, plugin in plugins
        for option, more in getattr(plugin, "chooses_metrics", {}).items()
        for mistake in _unmeasured(config, name, option, (*more, *pair[0].metrics))
    ]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return pair


def _unmeasured(
    config: Config, name: str, option: str, known: Sequence[str]
) -> Iterator[str]:
    """Yield a sentence for each metric that an option lists and the task has not."""
    listed = config.plugins[name].options.get(option) or ()
    task, _ = named_part(config.task, "task")
    for metric in listed:
        if metric not in known:
            yield (
                f"{config.place(('plugins', name, option))} has {metric!r}"
                f"{did_you_mean(metric, known)}; with the task {task!r} choose from: "
                f"{', '.join(known)}"
            )


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


def model_settings(config: Config, task: Task, family: Any) -> dict[str, Any]:
    """Return by dotted name the options that decide what the model computes.

    With their defaults: an option left out and the same one written out are equal.
    """
    model, cls = config.model, type(family)
    own = model.options
    if family is task:  # made once, of the task's options
        own = named_part(config.task, "task")[1]
    settings = _resolved("model", parameters_of(cls), own, fitted(cls, own)[0])
    if model.build is not None:
        values, _ = fitted_call(cls.build, model.build)
        names = keyword_only(cls.build)
        found = _resolved("model.build", names, model.build, values)
        found.pop("model.build.seed", None)  # the checkpoint has the weights
        settings |= found
    if model.lora is not None:
        cls = import_module("trainbus_models.lora").Lora
        values, _ = fitted(cls, model.lora)
        settings |= _resolved("model.lora", parameters_of(cls), model.lora, values)
    return settings


def _resolved(
    at: str,
    parameters: Mapping[str, Parameter],
    given: Mapping[str, Any],
    values: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what is given and the other defaults, where JSON has them; no paths."""
    defaults = {name: each.default for name, each in parameters.items()}
    found = {}
    for name, value in {**defaults, **given}.items():
        if not isinstance(values.get(name), PurePath):  # says where, not what
            with suppress(TypeError):  # a default may be anything
                found[f"{at}.{name}"] = json.loads(json.dumps(value))
    return found


def add_adapters(
    model: Any, options: Mapping[str, Any], at: Key, locate: Locate = dotted
) -> None:
    """Put low-rank adapters into ``model`` and freeze all else.

    Raises:
        ConfigError: the options do not fit, or the model does not.
    """
    cls = import_module("trainbus_models.lora").Lora
    build_part(cls, options, at, locate).add_to(model)


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
