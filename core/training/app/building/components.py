"""Data, model and processor of a configuration, before there is a trainer.

The pipeline is imported late: the kernel knows neither data nor models.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from training.app.building.recipe import (
    add_adapters,
    make_recipe,
    model_settings,
)
from training.app.building.saved_model import SavedModel
from training.app.config.load import Config
from training.discovery.fields import filled
from training.errors import CheckpointError, ConfigError
from training.messages.error_texts import text_of
from training.recipes.family import ModelFamily
from training.recipes.recipe import Recipe
from training.recipes.task import Task

if TYPE_CHECKING:
    import torch

__all__ = [
    "Parts",
    "build_parts",
    "data_facts",
    "make_pipeline",
    "require_training_rows",
    "told_at",
]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a configuration asks for, short of the trainer.

    Attributes:
        pipeline: a ``DataPipeline`` that is set up with the processor.
        model: on its device, frozen where asked.
        recipe: task, family and processor.
    """

    pipeline: Any
    model: Any
    recipe: Recipe


def build_parts(
    config: Config,
    saved: SavedModel | None = None,
    plugins: Iterable[tuple[str, Any]] = (),
) -> Parts:
    """Return data, model and recipe, seeded, on the device, frozen.

    Args:
        config: what to build.
        saved: a checkpoint's model, which is then rebuilt in place of the configured
            one: its vocabulary may differ by now.
        plugins: of the run, by name.
    Raises:
        TrainbusError: something does not fit; nothing has been written by then, except
            synthetic pictures.
    """
    from training.hardware.device import choose_device
    from training.hardware.rng import seed_everything

    device = choose_device(config.training.device, config.place(("training", "device")))
    seed_everything(config.seed)
    task, family = make_recipe(config, plugins)
    pipeline = make_pipeline(config, config.data, task, family, device)
    # Rows before weights: a mistake in the data shows in a second, not after minutes.
    pipeline.rows("train")
    if saved is None:
        model, processor = _make_model(config, pipeline, family)
    else:
        if saved.family != config.model.type:
            raise CheckpointError(
                f"{saved.source!r} holds a model of the family {saved.family!r:.60}, "
                f"but {config.place(('model', 'type'))} is {config.model.type!r}; name "
                "that one"
            )
        model, rebuilt = saved.rebuilt((task, family))
        processor = rebuilt.processor
    model = model.to(device)
    pipeline.use_processor(processor)
    pipeline.setup()
    if config.model.freeze:
        freeze_model = import_module("trainbus_models.model_utils").freeze_model
        with told_at(config, "freeze"):
            freeze_model(model, config.model.freeze)
    if config.model.lora and saved is None:  # else it came with them
        add_adapters(model, config.model.lora, ("model", "lora"), config.place)
    settings = model_settings(config, task, family)
    return Parts(pipeline, model, Recipe(task, family, processor, settings))


def make_pipeline(
    config: Config,
    data: Any,
    task: Task,
    family: ModelFamily,
    device: torch.device | None = None,
) -> Any:
    """Return the pipeline of a section of data, which may be another than config's.

    Args:
        config: says where things stand.
        data: the section.
        task: what rows hold.
        family: makes batches.
        device: where they will be used, if that is known.
    """
    return import_module("trainbus_data.data_pipeline").DataPipeline(
        data,
        folder=data.drawn_in(config.training.save_dir),
        task=task,
        family=family,
        device=device,
        locate=config.place,
    )


def require_training_rows(config: Config) -> None:
    """Raise ``ConfigError`` if a configuration names no rows to train on."""
    if config.data.train is None and config.data.synthetic is None:
        raise ConfigError(
            f"{config.place(('data', 'train'))} is missing; name the rows to train on"
        )


def data_facts(pipeline: Any, task: Task, judged: str = "validation") -> dict[str, Any]:
    """Return what is known of the rows before a model has seen them.

    Args:
        pipeline: a ``DataPipeline``.
        task: knows what scores without looking.
        judged: the split that the model is measured on.
    Returns:
        ``rows``: their number by split; ``floors``: what answers score on ``judged``
        that look at nothing, but for sets too large to hold; ``example``: a row of
        ``judged``, or else a training row, as ``predict`` takes it, by field.
    """
    rows = {split: pipeline.rows(split) for split in ("train", "validation", "test")}
    facts: dict[str, Any] = {
        "rows": {split: len(part) for split, part in rows.items() if part}
    }
    is_large = pipeline.is_indexed("train") or pipeline.is_indexed(judged)
    if len(rows["train"]) and len(rows[judged]) and not is_large:
        floors = task.floors(rows["train"], rows[judged])
        if floors:
            facts["floors"] = floors
    asked = [split for split in (judged, "train") if rows[split]]
    if asked:
        facts["example"] = pipeline.example(asked[0])
    return facts


def _make_model(config: Config, pipeline: Any, family: Any) -> tuple[Any, Any]:
    """Call ``load`` or ``build``: the family has what the configuration asks for."""
    model, rows = config.model, pipeline.training_rows()
    made: tuple[Any, Any]
    if model.build is None:
        with told_at(config, "name"):
            made = family.load(model.name, rows)
    else:
        options = dict(model.build)
        takes_seed = "seed" in inspect.signature(family.build).parameters
        if takes_seed and options.get("seed") is None:
            options["seed"] = config.seed
        with told_at(config, "build"):
            made = family.build(rows, **filled(family.build, options))
    return made


@contextmanager
def told_at(config: Config, key: str) -> Iterator[None]:
    """Say of what is refused where ``model.<key>`` is written: a builder knows none."""
    try:
        yield
    except ConfigError as error:
        place = config.place(("model", key))
        raise ConfigError(f"{place}: {text_of(error)}") from error
