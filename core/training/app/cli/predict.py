"""The command ``predict``: what the model of a checkpoint makes of a row."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from training.app.cli.commands import description, fill
from training.errors import CheckpointError, ConfigError

__all__ = ["predict"]


def predict(arguments: argparse.Namespace) -> None:
    """Say what the model of a checkpoint makes of one row."""
    from training.app.building.recipe import rebuild
    from training.hardware.device import choose_device
    from training.layout import read_state
    from training.modules.frozen_weights import LEFT_OUT

    device = choose_device(arguments.device)
    state = read_state(arguments.checkpoint)
    described = description(state, arguments.checkpoint)
    if described is None:
        raise CheckpointError(
            f"{arguments.checkpoint!r} does not say how its model was made; only runs "
            "of `trainbus run` or create_trainer_from_config write that"
        )
    saved = _saved_config(state, arguments.checkpoint)
    most = _max_pixels(saved, arguments.checkpoint)
    source, is_whole = arguments.checkpoint, LEFT_OUT not in state
    made = rebuild(described, source, state["model"], saved, None, is_whole)
    fill(made.model, state, arguments.checkpoint)
    made.model.to(device).eval()
    said = _predict(made, _fields(arguments), most)
    print(said if isinstance(said, str) else json.dumps(said))


def _saved_config(state: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Return the configuration that a checkpoint carries, its section of data checked.

    Raises:
        CheckpointError: it is nothing that a run can have had.
    """
    from training.checkpoint.part_checks import shown

    values: Any = state.get("metadata", {})
    found: list[Mapping[str, Any]] = []
    for at in ("config", "config.data"):
        values = values.get(at.rpartition(".")[2], {})
        if not isinstance(values, Mapping):
            raise CheckpointError(
                f"{source!r} does not say how its rows were read: metadata.{at} "
                f"is {shown(values)}, not a mapping"
            )
        found.append(values)
    return found[0]


def _max_pixels(config: Mapping[str, Any], source: str) -> int:
    from training.app.config.schema import DataConfig
    from training.checkpoint.part_checks import shown

    name = "max_image_pixels"
    value = config.get("data", {}).get(name, DataConfig.model_fields[name].default)
    if type(value) is not int or not 1 <= value <= sys.maxsize:
        raise CheckpointError(
            f"{source!r} does not say how its rows were read: metadata.config.data."
            f"{name} is {shown(value)}, not a whole number from 1 to {sys.maxsize:,}"
        )
    return value


def _fields(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the row that is asked about, by field.

    Raises:
        ConfigError: one is no ``NAME=VALUE``, or given twice.
    """
    given = [
        f"{name}={value}"
        for name in ("image", "question")
        if (value := getattr(arguments, name)) is not None
    ]
    fields: dict[str, str] = {}
    for text in [*given, *arguments.fields]:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(
                f"--field {text!r} has no value; write --field NAME=VALUE"
            )
        if name in fields:
            raise ConfigError(f"--field {name} is given twice; keep one")
        fields[name] = value
    return fields


def _predict(made: Any, fields: Mapping[str, str], max_pixels: int) -> Any:
    """Return what the model says of one row."""
    import torch

    from training.feed.batches import batch_to_device

    asked = import_module("trainbus_data.asked")
    row = asked.asked_row(made.task, fields, max_pixels)
    batch = asked.batch_of(made.family, made.processor, row)
    device = next((p.device for p in made.model.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        moved = batch_to_device(batch, device)
        return made.family.predict(made.model, made.processor, moved)[0]
