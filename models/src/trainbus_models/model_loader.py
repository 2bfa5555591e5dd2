"""Load a model by name, family and task, from the hub's cache or from a folder."""

from __future__ import annotations

import os
from typing import Any

from training.discovery.parts import build_family, build_part, find_part
from training.errors import ConfigError, did_you_mean
from training.hardware.device import choose_device

__all__ = ["load_model"]


def load_model(
    model_name: str | os.PathLike[str],
    model_type: str,
    task: str,
    device: str | Any | None = None,
    load_processor: bool = False,
) -> dict[str, Any]:
    """Return ``{"model": ...}``, and ``"processor"`` when asked for.

    The weights are float32 whatever the file holds, and the model is in eval mode.

    Args:
        model_name: a folder written by ``save_pretrained``, or a hub name such as
            ``Salesforce/blip-vqa-base``.
        model_type: family, such as ``blip``.
        task: what the model is for, such as ``vqa``.
        device: such as ``cpu``, ``cuda`` or ``cuda:0``; None: the first GPU if there is
            one, else the CPU.
        load_processor: also return tokenizer and image processor from there.
    Raises:
        ConfigError: an unknown family or task, no such model, a model of another
            family or head, or a device that is not here.
    """
    cls = find_part("model", model_type, "model_type")
    if task not in cls.tasks:
        raise ConfigError(
            f"task is {task!r}{did_you_mean(str(task), cls.tasks)}; {model_type} "
            f"does: {', '.join(cls.tasks)}"
        )
    made = build_part(find_part("task", task, "task"), {}, ("task",))
    family = build_family(made, cls, {}, ("model_type",))
    target = choose_device(device)
    load, alone = getattr(family, "load", None), getattr(family, "load_model", None)
    if load is None:
        raise ConfigError(f"model_type {model_type!r} loads no model by name")
    name = os.fspath(model_name)
    if alone is not None and not load_processor:
        return {"model": alone(name).to(target)}
    model, processor = load(name, [])
    result: dict[str, Any] = {"model": model.to(target)}
    return {**result, "processor": processor} if load_processor else result
