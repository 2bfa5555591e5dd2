"""Describe a model and its processor in JSON values, and rebuild them from those.

A checkpoint that carries the description answers questions on its own, without the
folder or the hub that the model once came from.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.errors import CheckpointError

__all__ = ["describe_model", "rebuild_model"]

FORMAT = 1
MODEL_TYPES = ("blip",)


def describe_model(model: Any, processor: Any, model_type: str) -> dict[str, Any]:
    """Return JSON values from which ``rebuild_model`` makes both again, bar weights.

    Args:
        model: a BlipVQA.
        processor: its processor; about 1 MB of text for the hub's vocabulary.
        model_type: family: ``blip``.
    """
    with tempfile.TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        files = {
            path.name: path.read_text(encoding="utf-8")
            for path in sorted(Path(folder).iterdir())
            if path.suffix in {".json", ".txt"}
        }
    return {
        "format": FORMAT,
        "model_type": model_type,
        "config": model.config.to_dict(),
        "processor_files": files,
    }


def rebuild_model(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"model": ..., "processor": ...}``; the weights are random.

    Fill them with ``model.load_state_dict(state["model"])``. Only configuration and
    vocabulary are read from the description; nothing in it is run.

    Raises:
        CheckpointError: the description is of another format or damaged.
    """
    from transformers import AutoProcessor, BlipConfig

    from models.blip import BlipVQA

    model_type = description.get("model_type")
    if description.get("format") != FORMAT or model_type not in MODEL_TYPES:
        raise CheckpointError(
            f"the checkpoint describes a model of type {model_type!r}, format "
            f"{description.get('format')!r}; this version rebuilds "
            f"{', '.join(MODEL_TYPES)}, format {FORMAT}"
        )
    try:
        config = BlipConfig.from_dict(dict(description["config"]))
        with tempfile.TemporaryDirectory() as folder:
            for name, text in description["processor_files"].items():
                # The name alone: a foreign checkpoint must not write elsewhere.
                (Path(folder) / Path(name).name).write_text(text, encoding="utf-8")
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        return {"model": BlipVQA(config), "processor": processor}
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"the checkpoint's description of its model is damaged: {error}"
        ) from error
