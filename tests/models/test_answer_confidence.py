"""How sure a generating family is: the mean over the tokens that it generated."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from chats import chat
from drawn import questions

from trainbus_models.answer_confidence import mean_log_probabilities
from trainbus_models.blip.family import Blip
from trainbus_models.chat.tokens import end_ids, with_answers

ASKED = ["what color is this large shape?", "is it red?", "is it no dark red?"]


def made_of(logits: list[list[list[float]]], tokens: list[list[int]]) -> Any:
    return SimpleNamespace(
        logits=[torch.tensor(step) for step in logits], sequences=torch.tensor(tokens)
    )


def test_the_end_token_counts_and_what_follows_it_does_not() -> None:
    even, sure = [0.0, 0.0], [100.0, 0.0]
    made = made_of([[even, even], [sure, even]], [[7, 0, 1], [7, 1, 0]])
    first, second = mean_log_probabilities(made, 1, [1])
    assert first == pytest.approx((-0.693147 - 100) / 2)
    assert second == pytest.approx(-0.693147)


def test_an_answer_that_was_cut_is_the_mean_of_all_its_tokens() -> None:
    made = made_of([[[0.0, 0.0]], [[0.0, 0.0]]], [[0, 0]])
    assert mean_log_probabilities(made, 0, [1]) == [pytest.approx(-0.693147)]


def mean_of(logits: torch.Tensor, ids: torch.Tensor) -> float:
    """Return the mean log-probability of ids (A,) under logits (A, V)."""
    return logits.detach().log_softmax(-1).gather(1, ids[:, None]).mean().item()


@pytest.mark.parametrize("num_beams", [1, 3])
def test_blip_says_what_its_decoder_makes_of_the_whole_answer(
    tiny: dict[str, Any], encode: Callable[..., Any], num_beams: int
) -> None:
    model, processor, family = tiny["model"], tiny["processor"], Blip()
    options = {"max_new_tokens": 5, "num_beams": num_beams}
    batch = encode(ASKED)
    said = family.predict_with_confidence(model, processor, batch, **options)
    assert [text for text, _ in said] == family.predict(
        model, processor, batch, **options
    )
    end = model.config.text_config.sep_token_id
    for row, (_, sure) in enumerate(said):
        one = {name: value[row : row + 1] for name, value in batch.items()}
        ids = model.generate(**one, **options)[0]
        ids = ids[: ids.tolist().index(end) + 1] if end in ids.tolist() else ids
        image = model._see(one["pixel_values"], False)
        seen = model._read(one["input_ids"], one["attention_mask"], image)
        mask = torch.where(one["attention_mask"] > 0, 0.0, -1e30)[:, None, None]
        logits = model.text_decoder(
            input_ids=ids[None, :-1],
            encoder_hidden_states=seen,
            encoder_attention_mask=mask,
        ).logits[0]
        assert sure == pytest.approx(mean_of(logits, ids[1:]), abs=1e-5)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_chat_says_what_the_model_makes_of_the_whole_answer(num_beams: int) -> None:
    rows = questions(3)
    family = chat(max_answer_length=5, num_beams=num_beams)
    model, processor = family.build(rows, initializer_range=0.3)
    ends = end_ids(processor)
    bare = [{k: v for k, v in row.items() if k != "answer"} for row in rows]
    with torch.no_grad():
        said = family.predict_with_confidence(
            model, processor, family.collate(processor, rows)
        )
        for row, (text, sure) in zip(bare, said, strict=True):
            prompt = dict(family.collate(processor, [row]))
            width, ids = family._generate(model, processor, prompt)
            answer = ids[0, width:].tolist()
            places = [n for n, token in enumerate(answer) if token in ends]
            answer = answer[: places[0] + 1] if places else answer
            whole = with_answers(prompt, [answer])
            whole.pop("labels")
            logits = model(**whole).logits[0, width - 1 : -1]
            assert sure == pytest.approx(
                mean_of(logits, torch.tensor(answer)), abs=1e-5
            )
            assert text == family.predict(model, processor, prompt)[0]
