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
from training.modules.plain_names import as_plain

__all__ = ["describe_model", "rebuild_model"]

FORMAT = 1
MODEL_TYPES = ("blip",)
#: Either holds the vocabulary, as tokenizers are saved now and were before.
VOCABULARIES = frozenset({"tokenizer.json", "vocab.txt"})


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


def rebuild_model(
    description: Mapping[str, Any], weights: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return ``{"model": ..., "processor": ...}``; the weights are random.

    Fill them with ``model.load_state_dict(state["model"])``. Only configuration and
    vocabulary are read from the description; nothing in it is run.

    Args:
        description: what ``describe_model`` returned.
        weights: name -> tensor, what the model is to be filled with; another model than
            theirs is then refused before any memory is taken for it.
    Raises:
        CheckpointError: the description is of another format or damaged, or describes
            another model than that of ``weights``.
    """
    from transformers import BlipConfig

    from trainbus_models.blip.model import BlipVQA

    model_type, number = description.get("model_type"), description.get("format")
    is_known = isinstance(model_type, str) and model_type in MODEL_TYPES
    if type(number) is not int or number != FORMAT or not is_known:
        raise CheckpointError(
            f"the checkpoint describes a model of type {model_type!r:.60}, format "
            f"{number!r:.60}; this version rebuilds {', '.join(MODEL_TYPES)}, format "
            f"{FORMAT}"
        )
    try:
        config = BlipConfig.from_dict(dict(description["config"]))
        if weights is not None:
            _check_sizes(config, weights)
        processor = _rebuild_processor(description["processor_files"])
        return {"model": BlipVQA(config), "processor": processor}
    except Exception as error:
        # Whatever stands in it is handed to three libraries, whose errors have no
        # common class.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"the checkpoint's description of its model is damaged: {reason:.300}"
        ) from error


def _check_sizes(config: Any, weights: Mapping[str, Any]) -> None:
    """Refuse a configuration of another model than the one that had the weights."""
    import torch

    from trainbus_models.blip.model import BlipVQA

    for part in (config.text_config, config.vision_config):
        if part.num_hidden_layers > len(weights):  # each has weights of its own
            raise ValueError(f"{part.num_hidden_layers:,} layers, but fewer weights")
    with torch.device("meta"):
        model = BlipVQA(config)
    named = as_plain(model, weights)
    for name, weight in model.state_dict().items():
        shape, own = tuple(weight.shape), getattr(named.get(name), "shape", None)
        if own is None or tuple(own) != shape:
            found = "not in the checkpoint" if own is None else tuple(own)
            raise ValueError(f"by its config {name} is {shape}, but it is {found}")


def _rebuild_processor(files: Mapping[str, str]) -> Any:
    from transformers import AutoProcessor, BlipProcessor

    if VOCABULARIES.isdisjoint(files):  # the library would make up an empty one
        raise ValueError(f"its files lack {' or '.join(sorted(VOCABULARIES))}")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            # The name alone: a foreign checkpoint must not write elsewhere.
            (Path(folder) / Path(name).name).write_text(text, encoding="utf-8")
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    if not isinstance(processor, BlipProcessor):
        raise TypeError(f"its files make a {type(processor).__name__}")
    return processor
