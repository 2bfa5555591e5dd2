"""Data, model and processor of a configuration, before there is a trainer.

``trainbus_data`` and ``trainbus_models`` are imported late: the kernel knows neither.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from training.app.config.load import Config
from training.errors import ConfigError

__all__ = ["Parts", "build_parts", "data_facts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a configuration asks for, short of the trainer.

    Attributes:
        pipeline: a ``DataPipeline`` that is set up with ``processor``.
        model: on its device, frozen where asked.
        processor: tokenizer and image processor of that model.
    """

    pipeline: Any
    model: Any
    processor: Any


def build_parts(
    config: Config,
    description: Mapping[str, Any] | None = None,
    weights: Mapping[str, Any] | None = None,
) -> Parts:
    """Return data, model and processor, seeded, on the device, frozen.

    Args:
        config: what to build.
        description: a checkpoint's description of its model, which is then rebuilt in
            place of the configured one: its vocabulary may differ by now.
        weights: of that checkpoint, which the rebuilt model must be able to take.
    Raises:
        TrainbusError: something does not fit; nothing has been written by then, except
            synthetic pictures.
    """
    from training.hardware.device import choose_device
    from training.hardware.rng import seed_everything

    device = choose_device(config.training.device)
    seed_everything(config.seed)
    pipeline = import_module("trainbus_data.data_pipeline").DataPipeline(
        config.data, folder=config.training.save_dir / "pictures"
    )
    # Rows before weights: a mistake in the data shows in a second, not after minutes.
    pipeline.rows("train")
    if description is None:
        result = _make_model(config, pipeline, device)
    else:
        result = import_module("trainbus_models.packing").rebuild_model(
            description, weights
        )
    _require_fit(config, result["model"])
    model, processor = result["model"].to(device), result["processor"]
    pipeline.use_processor(processor, model.config.text_config.bos_token_id)
    pipeline.setup()
    if config.model.freeze:
        import_module("trainbus_models.model_utils").freeze_model(
            model, config.model.freeze
        )
    return Parts(pipeline, model, processor)


def _require_fit(config: Config, model: Any) -> None:
    """Refuse texts and pictures of other sizes than the model takes."""
    data, most = config.data, model.max_text_tokens
    for key in ("max_question_length", "max_answer_length"):
        length = getattr(data, key)
        if length > most:
            raise ConfigError(
                f"{config.place(('data', key))} is {length:,}, but the model has "
                f"positions for {most:,} tokens; use at most that, or another model"
            )
    if data.image_size not in (None, model.image_size):
        raise ConfigError(
            f"{config.place(('data', 'image_size'))} is {data.image_size:,}, but the "
            f"model looks at {model.image_size} x {model.image_size} pixels; use "
            f"{model.image_size}, or leave it out"
        )


def data_facts(pipeline: Any, judged: str = "validation") -> dict[str, Any]:
    """Return what is known of the rows before a model has seen them.

    Args:
        pipeline: a ``DataPipeline``.
        judged: the split that the model is measured on.
    Returns:
        ``rows``: their number by split; ``floors``: what answers score on ``judged``
        that see no picture, but for files too large to hold; ``example``: an image and
        a question of ``judged``.
    """
    rows = {split: pipeline.rows(split) for split in ("train", "validation", "test")}
    facts: dict[str, Any] = {
        "rows": {split: len(part) for split, part in rows.items() if part}
    }
    is_large = pipeline.is_indexed("train") or pipeline.is_indexed(judged)
    if len(rows["train"]) and len(rows[judged]) and not is_large:
        answer_floors = import_module("trainbus_data.vqa.baselines").answer_floors
        facts["floors"] = answer_floors(rows["train"], rows[judged])
    if rows[judged]:
        image = os.path.relpath(pipeline.image_path(judged, 0))
        facts["example"] = [image, rows[judged][0]["question"]]
    return facts


def _make_model(config: Config, pipeline: Any, device: Any) -> dict[str, Any]:
    model = config.model
    if model.build is None:
        load = import_module("trainbus_models.model_loader").load_model
        result: dict[str, Any] = load(
            model_name=model.name,
            model_type=model.type,
            task=config.task,
            device=device,
            load_processor=True,
        )
        return result
    if model.type != "blip":
        raise ConfigError(
            f"{config.place(('model', 'type'))} is {model.type!r}, but model.build "
            "makes: blip"
        )
    options = {"seed": config.seed, **model.build.model_dump(exclude_none=True)}
    build = import_module("trainbus_models.blip.build").build_blip
    built: dict[str, Any] = build(pipeline.training_texts(), **options)
    return built
