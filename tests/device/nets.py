"""What is trained on a device without data: small models, and batches they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from chats import chat
from drawn import colours, questions
from torch import Tensor, nn

from trainbus_data.image_classification.task import ImageClassification
from trainbus_models.blip.build import build_blip
from trainbus_models.image_classifier.family import ImageClassifier

#: (a model in train mode, batches on the host, options of the trainer)
Work = tuple[nn.Module, list[Any], dict[str, Any]]


class Perceptron(nn.Module):
    """A classifier with dropout, which draws, and BatchNorm, which keeps statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1)),
            nn.Linear(16, 3),
        )

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.layers(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def perceptron() -> Work:
    batches = [{"x": torch.randn(4, 8), "labels": torch.arange(4) % 3}] * 2
    return Perceptron(), batches, {"loss_per": "samples"}


def blip() -> Work:
    """Return BLIP for questions: a picture, a question, an answer of three tokens."""
    texts = ["is it red?", "yes"]
    built = build_blip(texts, hidden_size=16, image_size=32, num_attention_heads=2)
    ids = torch.randint(4, 10, (2, 5))
    batch = {
        "pixel_values": torch.randn(2, 3, 32, 32),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "decoder_input_ids": ids[:, :3],
        "decoder_attention_mask": torch.ones_like(ids[:, :3]),
        "labels": ids[:, :3],
    }
    return built["model"].train(), [batch], {"loss_per": "labels"}


def chat_with_pictures() -> Work:
    family, rows = chat(), questions(2)
    model, processor = family.build(rows)
    return model.train(), [family.collate(processor, rows)], {}


def chat_model() -> Work:
    """Return one that is told nothing but words: the library reads its pictures."""
    model, batches, _ = chat_with_pictures()
    words = [
        {k: v for k, v in batch.items() if not k.startswith("pixel")}
        for batch in batches
    ]
    return model, words, {"loss_per": "samples"}


def image_classifier() -> Work:
    family, rows = ImageClassifier(), colours(4)
    family.task = ImageClassification()
    model, processor = family.build(rows)
    return model.train(), [family.collate(processor, rows)], {}


WORKS: Mapping[str, Callable[[], Work]] = {
    "perceptron": perceptron,
    "blip": blip,
    "chat": chat_model,
    "image_classifier": image_classifier,
}
