"""Whether a configuration is that of the model whose weights are at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import BlipConfig

from trainbus_models.blip.model import BlipVQA
from training.modules.plain_names import as_plain

__all__ = ["require_match"]


def require_match(described: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """Refuse a configuration of another model; no memory is taken for it.

    Raises:
        ValueError: a weight is missing or of another shape.
    """
    config = BlipConfig.from_dict(dict(described))
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
