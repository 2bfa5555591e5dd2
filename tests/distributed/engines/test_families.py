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
    small = {"hidden_size": 16, "image_size": 32, "num_attention_heads": 2}
    return family, rows, family.build(rows, initializer_range=0.3, **small)


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
            # Also of its size: next to a loss of 6.5, float32 has steps of 5e-7.
            assert row == pytest.approx(own, rel=CLOSE, abs=CLOSE)
        assert len(each["predictions"]) == NUM_ROWS
        for own, made in zip(alone["predictions"], each["predictions"], strict=True):
            assert made == pytest.approx(own, abs=1e-5)


#: Family -> classes of layers that answer, sharded by themselves.
LAYERS = {"blip": ["BlipTextLayer"], "chat": []}
LONGEST, NO_TOKEN = 6, 10**6


def generated(name: str, row: int | None, end: int) -> list[int]:
    """Return the tokens of an answer that ends with the token ``end``.

    Args:
        name: of the family.
        row: that is asked about; None: that of this process's number.
        end: the token.
    """
    family, rows, (model, processor) = FAMILIES[name]()
    trainer = Trainer(
        model,
        [],
        optimizer=torch.optim.SGD(model.parameters(), 0.05),
        plugins=[{"distributed": {"engine": "fsdp2", "shard_modules": LAYERS[name]}}],
        device="cpu",
    )
    asked_row = dict(rows[trainer.rank if row is None else row])
    del asked_row["answer"]
    asked = dict(family.collate(processor, [asked_row]))
    if name == "blip":
        model.config.text_config.sep_token_id = end
    else:
        asked["eos_token_id"], asked["pad_token_id"] = end, 0
    with torch.no_grad():
        ids = model.generate(**asked, do_sample=False, max_new_tokens=LONGEST)
    prompt = 1 if name == "blip" else asked["input_ids"].shape[1]
    answer = ids[0, prompt:].tolist()
    # A process that waits for the other fills its answer up.
    return answer[: answer.index(end) + 1] if end in answer else answer


@pytest.mark.parametrize("name", LAYERS)
def test_d24_answers_of_unequal_length_wait_for_one_another(
    two: Ranks, name: str
) -> None:
    first, second = (generated(name, row, NO_TOKEN) for row in (0, 1))
    end = next(token for token in first[:-1] if token not in second)
    alone = [generated(name, row, end) for row in (0, 1)]
    assert len(alone[0]) < len(alone[1]) == LONGEST
    assert two.run(generated, name, None, end) == alone
