"""The model of a checkpoint that says what it was made of.

    {"format": 2, "task": {"name", "options"}, "family": {"name", "options", "from"},
     "model": what the family describes, "base": a name or None,
     "freeze": [names], "lora": {option: value} or None}

Format 1 said ``model_type`` beside what the one family of then described.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import import_module
from typing import Any

from training.app.building.recipe import add_adapters
from training.app.config.load import Config
from training.app.config.recipe_checks import DEFAULT_TASK, ONCE_HERE, does_task
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

__all__ = ["SavedModel", "described", "fill"]

FORMAT = 2


def described(config: Config, recipe: Recipe, model: Any) -> dict[str, Any]:
    """Return JSON values that a checkpoint carries, for ``SavedModel``."""
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


@dataclass(frozen=True)
class SavedModel:
    """What a checkpoint says of its model.

    Attributes:
        source: the checkpoint, for messages.
        description: what ``described`` told.
        weights: name -> tensor, what the model is to be filled with; another model than
            theirs is refused before any memory is taken for it.
        is_whole: whether ``weights`` are all that the model has; if not, the others are
            those of the model that the run began with.
        config: the configuration that the checkpoint carries; format 1 has the
            family's options there.
    """

    source: str
    description: Mapping[str, Any]
    weights: Mapping[str, Any] | None = None
    is_whole: bool = True
    config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, state: Mapping[str, Any], source: str) -> SavedModel | None:
        """Return what a checkpoint says; None where it does not say how to rebuild.

        Raises:
            CheckpointError: something else is there.
        """
        from training.checkpoint.checks.parts import shown
        from training.modules.frozen_weights import is_whole

        metadata = state.get("metadata", {})
        found, config = metadata.get("model"), metadata.get("config", {})
        if found is None:
            return None
        if not isinstance(found, Mapping):
            raise CheckpointError(
                f"{source!r} does not say how its model was made: metadata.model is "
                f"{shown(found)}, not the mapping that `trainbus run` writes"
            )
        return cls(source, found, state["model"], is_whole(state), config)

    @property
    def family(self) -> str:
        """The name of the model's family.

        Raises:
            CheckpointError: the description is of another format or damaged.
        """
        name: str = self._named("family")["name"]
        return name

    def parts(self) -> tuple[Task, ModelFamily]:
        """Return the task and the family, the one knowing the other.

        Raises:
            CheckpointError: the description is of another format or damaged, or names
                what is not installed, or a family that does not do the task.
        """
        task = self._part("task", "task", build_part)
        family = self._part("family", "model", partial(build_family, task))
        name = self._told["task"]["name"]
        if not does_task(type(family), name):  # its rows lack what the family reads
            raise _damaged(
                f"its family {self.family!r} does not do the task {name!r}, but "
                f"{', '.join(family.tasks) or 'none'}"
            )
        return task, family

    def rebuilt(
        self, parts: tuple[Task, ModelFamily] | None = None
    ) -> tuple[Any, Recipe]:
        """Return the model, on the CPU and not filled yet, and its recipe.

        Only JSON values are read, nothing is run.

        Args:
            parts: task and family to take in place of those that are described.
        Raises:
            CheckpointError: as ``parts``; or what is described is another model than
                that of the weights.
        """
        from training.checkpoint.checks.parts import are_names

        task, family = parts or self.parts()
        told = self._told
        lora = told.get("lora")
        begin = family.rebuild if self.is_whole else self._on_base(family)
        try:
            if self.weights is not None and self.is_whole and not lora:
                family.check(told["model"], self.weights)
            model, processor = begin(told["model"])
        except Exception as error:
            if isinstance(error, ConfigError) and not self.is_whole:
                raise  # the model that the run began with cannot be had
            # Whatever stands in it is handed to libraries whose errors have no common
            # class.
            reason = " ".join(str(error).split()) or type(error).__name__
            raise _damaged(reason) from error
        if lora:
            frozen = told.get("freeze", ())
            if not isinstance(lora, Mapping) or not are_names(frozen):
                raise _damaged("its adapters have no options, or freeze no names")
            import_module("trainbus_models.model_utils").freeze_model(model, frozen)
            add_adapters(model, lora, ("lora",))
        return model, Recipe(task, family, processor)

    @cached_property
    def _told(self) -> Mapping[str, Any]:
        """The description in format 2, whichever the checkpoint has it in."""
        number = self.description.get("format")
        if type(number) is not int or number not in (1, FORMAT):
            raise CheckpointError(
                f"the checkpoint describes a model in format {number!r:.60}; this "
                f"version rebuilds formats 1 and {FORMAT}"
            )
        if number == FORMAT:
            return self.description
        config = _mapping(self.config)
        data = _mapping(config.get("data"))
        once = {key: data[key] for key in ONCE_HERE if data.get(key) is not None}
        name = self.description.get("model_type")
        return {
            "task": {"name": config.get("task", DEFAULT_TASK), "options": {}},
            "family": {"name": name, "options": once},
            "model": self.description,
        }

    def _named(self, key: str) -> Mapping[str, Any]:
        """Return what is said of the task or the family: a name, and maybe options."""
        part = _mapping(self._told.get(key))
        is_named = isinstance(part.get("name"), str)
        if not is_named or not isinstance(part.get("options", {}), Mapping):
            raise CheckpointError(
                f"{self.source!r} does not say its {key} and options; its description "
                "of the model is damaged"
            )
        return part

    def _part(self, key: str, kind: str, make: Callable[..., Any]) -> Any:
        """Return the task or the family, made of its options."""
        part = self._named(key)
        options, owner = part.get("options", {}), part.get("from")
        try:
            return make(find_part(kind, part["name"], key), options, (key,))
        except ConfigError as error:
            hint = f" (the run had it from {owner})" if owner else ""
            raise CheckpointError(
                f"{self.source!r} was made by a {key} that cannot be had: "
                f"{text_of(error)}{hint}"
            ) from error

    def _on_base(self, family: ModelFamily) -> Callable[..., tuple[Any, Any]]:
        """Return what rebuilds a model with the weights that its run began with."""
        base = self._told.get("base")
        rebuild_on = getattr(family, "rebuild_on", None)
        if not isinstance(base, str) or rebuild_on is None:
            raise CheckpointError(
                f"{self.source!r} holds trained weights alone, and the others cannot "
                "be had without the run's data; go on with its configuration, or write "
                "checkpoints with weights: all"
            )
        return partial(rebuild_on, base)


def fill(model: Any, state: Mapping[str, Any], source: str) -> None:
    """Give the model the weights of a checkpoint, all of them, as a resume would.

    Raises:
        CheckpointError: names, shapes or kinds of numbers differ; says which.
    """
    from training.checkpoint.state import check_model
    from training.modules.plain_names import load_weights

    whole = dict(state)
    check_model(model, whole, source)
    load_weights(model, whole["model"])


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return ``value`` where it is a mapping; something else there says nothing."""
    return value if isinstance(value, Mapping) else {}


def _damaged(reason: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint's description of its model is damaged: {reason:.300}"
    )
