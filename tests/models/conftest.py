"""A tiny BLIP with enlarged weights, so that a wrong mask would show."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image

from trainbus_models.blip.build import build_blip

TEXTS = ["what color is this large shape?", "is it red?", "yes", "no", "dark red"]


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """Return a tiny BLIP in eval mode and its processor; do not change them."""
    built = build_blip(
        TEXTS,
        hidden_size=16,
        image_size=32,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    built["model"].eval()
    return built


@pytest.fixture(scope="session")
def encode(tiny: dict[str, Any]) -> Callable[..., dict[str, torch.Tensor]]:
    """Return a maker of model inputs, padded to a length, with answers if given."""
    processor = tiny["processor"]

    def make(
        questions: list[str], answers: list[str] | None = None, length: int = 12
    ) -> dict[str, torch.Tensor]:
        images = [Image.new("RGB", (32, 32), (len(q) * 5, 80, 200)) for q in questions]
        inputs = processor(
            images=images,
            text=questions,
            padding="max_length",
            max_length=length,
            return_tensors="pt",
        )
        if answers is None:
            return dict(inputs)
        tokens = processor.tokenizer(answers, padding=True, return_tensors="pt")
        start = tiny["model"].config.text_config.bos_token_id
        decoder_ids = tokens["input_ids"].clone()
        decoder_ids[:, 0] = start
        mask = tokens["attention_mask"]
        return dict(inputs) | {
            "decoder_input_ids": decoder_ids,
            "decoder_attention_mask": mask,
            "labels": decoder_ids.masked_fill(mask == 0, -100),
        }

    return make
