"""Task and family of a configuration, and what sets a model of them apart."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from inspect import Parameter
from pathlib import PurePath
from typing import Any

from training.app.config.load import Config
from training.app.config.recipe_checks import OF_EVERY_MODEL
from training.discovery import installed
from training.discovery.parts import (
    build_pair,
    build_part,
    named_part,
)
from training.discovery.signature import (
    fitted,
    fitted_call,
    keyword_only,
    parameters_of,
)
from training.discovery.specs import Locate
from training.documents.document import Key, dotted
from training.errors import ConfigError, did_you_mean
from training.recipes.family import ModelFamily
from training.recipes.task import Task

__all__ = [
    "add_adapters",
    "make_recipe",
    "model_settings",
]


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
    """Yield a sentence for each metric that an option lists and the task has not.

    One of the user's own the plugin has taken already, if it takes such.
    """
    listed = config.plugins[name].options.get(option) or ()
    task, _ = named_part(config.task, "task")
    takes_own = installed.IN_A_FILE in known
    names = [metric for metric in known if metric != installed.IN_A_FILE]
    way = f", or name one of your own: {installed.IN_A_FILE}" if takes_own else ""
    for metric in listed:
        is_own = takes_own and installed.is_file(str(metric))
        if metric not in names and not is_own:
            yield (
                f"{config.place(('plugins', name, option))} has {metric!r}"
                f"{did_you_mean(str(metric), names)}; with the task {task!r} choose "
                f"from: {', '.join(names)}{way}"
            )


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
