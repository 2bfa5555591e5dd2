"""Load a model by name, family and task, from the hub's cache or from a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.errors import ConfigError, did_you_mean
from training.hardware.device import choose_device

__all__ = ["MODEL_TASKS", "load_model"]

#: (family, task) pairs that can be loaded. The task decides the class: the same folder
#: would load as another model with random weights where they do not fit.
MODEL_TASKS = (("blip", "vqa"),)


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
        model_type: family: ``blip``.
        task: what the model is for: ``vqa``.
        device: such as ``cpu``, ``cuda`` or ``cuda:0``; None: the first GPU if there is
            one, else the CPU.
        load_processor: also load tokenizer and image processor from there.
    Raises:
        ConfigError: an unknown family or task, no such model, a model of another
            family or head, or a device that is not here.
    """
    _check_choice("model_type", model_type, sorted({kind for kind, _ in MODEL_TASKS}))
    tasks = [known for kind, known in MODEL_TASKS if kind == model_type]
    _check_choice("task", task, tasks)
    target = choose_device(device)
    name = os.path.expanduser(model_name)
    _check_folder(name, model_type)
    model = _load_blip(name)
    result: dict[str, Any] = {"model": model.to(target)}
    if load_processor:
        result["processor"] = _load_processor(name)
    return result


def _check_choice(key: str, value: str, choices: list[str]) -> None:
    if value not in choices:
        raise ConfigError(
            f"{key} is {value!r}{did_you_mean(str(value), choices)}; it must be one "
            f"of: {', '.join(choices)}"
        )


def _check_folder(name: str, model_type: str) -> None:
    """Refuse a path that is no folder, and a folder of another family."""
    path = Path(name)
    if not path.is_dir():
        # A hub name is "name" or "owner/name"; anything else was meant as a path.
        if name.count("/") > 1 or name[:1] in {".", "/", "~"} or path.exists():
            raise ConfigError(
                f"model name is {name!r}, which is not a folder here ({Path.cwd()}); "
                "correct the path, or give a hub name such as Salesforce/blip-vqa-base"
            )
        return
    config = path / "config.json"
    try:
        found = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{config} is missing or not a model's configuration; name a folder that "
            "save_pretrained wrote"
        ) from error
    if found != model_type:
        raise ConfigError(
            f"{config} says model_type {found!r}, but {model_type!r} was asked for"
        )


def _load_blip(name: str) -> Any:
    import torch

    from trainbus_models.blip.model import BlipVQA

    model, info = _or_config_error(
        name,
        lambda: BlipVQA.from_pretrained(
            name,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=False,
        ),
    )
    missing = sorted(info["missing_keys"])
    mismatched = sorted(str(key) for key in info.get("mismatched_keys", ()))
    if missing or mismatched:
        lacking = [*missing, *mismatched]
        raise ConfigError(
            f"{name!r} holds no BLIP for vqa: {len(lacking)} weights are missing or of "
            f"another shape, such as {lacking[0]}; use a checkpoint fine-tuned or "
            "pre-trained for question answering"
        )
    return model


def _load_processor(name: str) -> Any:
    from transformers import AutoProcessor

    return _or_config_error(
        name, lambda: AutoProcessor.from_pretrained(name, trust_remote_code=False)
    )


def _or_config_error(name: str, load: Callable[[], Any]) -> Any:
    """Call ``load``; turn what a missing or broken model raises into one sentence."""
    from safetensors import SafetensorError

    try:
        return load()
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if Path(name).is_dir():
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(f"{name!r} cannot be loaded: {reason}") from error
        raise ConfigError(
            f"{name!r} is neither a folder here nor a model in the hub's cache, and "
            "the hub did not give it; check the name, or fetch it once with network "
            f"access: hf download {name}"
        ) from error
