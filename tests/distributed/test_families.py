"""Shipped models train, and answer, on two processes as they do on one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from chats import chat
from drawn import colours, questions
from ranks import Ranks
from torch.utils.data import DataLoader

from trainbus_data.image_classification.task import ImageClassification
from trainbus_data.vqa.task import VQA
from trainbus_models.blip.family import Blip
from trainbus_models.image_classifier.family import ImageClassifier
from training import Trainer
from training.recipes.recipe import Recipe

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

CLOSE = 1e-6
#: Two epochs of batches of 3, 3 and 1 rows; one process has none of the last.
NUM_ROWS, SIZE = 7, 3


def blip() -> tuple[Any, list[dict[str, Any]], Any]:
    family = Blip()
    family.task = VQA()
    rows = questions(8)[:NUM_ROWS]
    built = family.build(rows, hidden_size=16, image_size=32, num_attention_heads=2)
    return family, rows, built


def chat_model() -> tuple[Any, list[dict[str, Any]], Any]:
    family, rows = chat(), questions(8)[:NUM_ROWS]
    return family, rows, family.build(rows, initializer_range=0.3)


def classifier() -> tuple[Any, list[dict[str, Any]], Any]:
    family, rows = ImageClassifier(), colours(NUM_ROWS)
    family.task = ImageClassification()
    return family, rows, family.build(rows)


FAMILIES: dict[str, Callable[[], tuple[Any, list[dict[str, Any]], Any]]] = {
    "blip": blip,
    "chat": chat_model,
    "image_classifier": classifier,
}


def trained(name: str, engine: str) -> dict[str, Any]:
    """Train a small model and evaluate it after each epoch; return how it ended."""
    family, rows, (model, processor) = FAMILIES[name]()
    collate = partial(family.collate, processor)
    data = partial(DataLoader, rows, batch_size=SIZE, collate_fn=collate)
    trainer = Trainer(
        model,
        data(shuffle=True),
        data(),
        optimizer=torch.optim.SGD(model.parameters(), 0.05, momentum=0.9),
        recipe=Recipe(family.task, family, processor),
        plugins=[
            {"distributed": {"engine": engine}},
            {"evaluation": {"keep_predictions": True}},
        ],
        num_epochs=2,
        gradient_accumulation_steps=2,
        max_grad_norm=1.0,
        seed=3,
        device="cpu",
    )
    trainer.train()
    return {
        "weights": [whole(p) for p in model.parameters()],
        "history": [{**row, "seconds": 0.0} for row in trainer.history],
        "predictions": trainer.plugins["evaluation"].predictions,
    }


def whole(value: Any) -> Any:
    value = value.full_tensor() if hasattr(value, "full_tensor") else value
    return value.detach().clone()


def cases() -> list[Any]:
    """Return all models under both engines; two of them always run."""
    shown = {("blip", "fsdp2"), ("chat", "ddp")}
    rest = pytest.mark.exhaustive
    pairs = [(name, engine) for name in FAMILIES for engine in ("ddp", "fsdp2")]
    return [pytest.param(*p, marks=() if p in shown else rest) for p in pairs]


@pytest.mark.parametrize(("name", "engine"), cases())
def test_d24_a_model_trains_and_answers_as_on_one_process(
    two: Ranks, name: str, engine: str
) -> None:
    alone = trained(name, engine)
    assert len(alone["predictions"]) == NUM_ROWS
    for each in two.run(trained, name, engine):
        pairs = zip(alone["weights"], each["weights"], strict=True)
        assert max(float((x - y).abs().max()) for x, y in pairs) < CLOSE
        for own, row in zip(alone["history"], each["history"], strict=True):
            assert row == pytest.approx(own, abs=CLOSE)
        assert len(each["predictions"]) == NUM_ROWS
        for own, made in zip(alone["predictions"], each["predictions"], strict=True):
            assert made == pytest.approx(own, abs=1e-5)
