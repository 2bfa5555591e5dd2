"""Prompts left, answers right: what a batch of a chat model holds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from chats import chat
from drawn import questions

from trainbus_models.chat.build import TEMPLATE
from trainbus_models.chat.tokens import end_ids, prompt_of
from training.errors import ConfigError, DataError

ROWS = questions(3)


def with_template(tiny: tuple[Any, Any], template: str) -> Any:
    processor = copy.deepcopy(tiny[1])
    processor.chat_template = template
    return processor


def bare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "answer"} for row in rows]


def learnt(processor: Any, batch: Any) -> list[str]:
    """Return what each row's labels say."""
    decode = processor.tokenizer.decode
    return [decode([n for n in row if n != -100]) for row in batch["labels"].tolist()]


def test_training_reads_the_very_prompt_that_generation_reads(tiny):
    family = chat()
    told, asked = (family.collate(tiny[1], r) for r in (ROWS, bare(ROWS)))
    cut = prompt_of(told)
    assert cut.keys() == asked.keys()
    assert all(torch.equal(cut[name], value) for name, value in asked.items())


def test_the_answer_and_its_end_are_learnt_and_nothing_else(tiny):
    batch = chat().collate(tiny[1], ROWS)
    ends = "<end_of_utterance>"
    assert learnt(tiny[1], batch) == [f"{row['answer']}{ends}" for row in ROWS]
    is_label = batch["labels"] != -100
    assert torch.equal(batch["input_ids"][is_label], batch["labels"][is_label])


def test_the_weight_is_the_label_tokens_after_the_shift(tiny):
    batch = chat().collate(tiny[1], ROWS)
    assert batch.loss_weight == int((batch["labels"][:, 1:] != -100).sum())


def test_padding_stands_left_of_prompts_and_right_of_answers(tiny):
    mask = chat().collate(tiny[1], ROWS)["attention_mask"]
    starts = mask.int().argmax(dim=1)
    assert len(set(starts.tolist())) > 1
    for row, start in zip(mask, starts, strict=True):
        length = int(row.sum())
        assert row[start : start + length].all()


def test_rows_without_the_target_have_no_labels_and_no_weight(tiny):
    batch = chat().collate(tiny[1], bare(ROWS))
    assert "labels" not in batch
    assert batch.loss_weight == 0


def test_a_row_without_the_target_among_others_is_not_learnt(tiny):
    rows = [ROWS[0], *bare(ROWS[1:2])]
    batch = chat().collate(tiny[1], rows)
    assert learnt(tiny[1], batch)[1] == ""
    assert batch.loss_weight == chat().collate(tiny[1], ROWS[:1]).loss_weight


def test_an_answer_that_is_too_long_is_cut_without_its_end(tiny, caplog):
    row = ROWS[0] | {"answer": "purple and square"}
    family = chat(max_answer_length=4)
    batch = family.collate(tiny[1], [row])
    assert batch.loss_weight == 4
    assert "purple and square".startswith(learnt(tiny[1], batch)[0])
    assert "model.max_answer_length is 4 tokens" in caplog.text


@pytest.mark.parametrize("limit", [30, None], ids=["option", "tokenizer"])
def test_a_prompt_that_is_too_long_is_refused_and_never_cut(tiny, limit):
    row = ROWS[0] | {"question": "is it red? " * 60}
    with pytest.raises(DataError, match=r"takes \d+ tokens with its picture, more"):
        chat(max_prompt_length=limit).collate(tiny[1], [ROWS[1], row])


@pytest.mark.parametrize("name", ["question", "answer"])
def test_a_text_with_a_pictures_token_is_refused_with_that_text(tiny, name):
    row = ROWS[0] | {name: "<image>\nis it red?"}
    with pytest.raises(DataError, match=r"'<image>\\nis it red\?' has '<image>' in it"):
        chat().collate(tiny[1], [ROWS[1], row])
    with pytest.raises(DataError, match=r"the text '<image> what"):
        chat(prompt="<image> {question}").collate(tiny[1], ROWS)


def test_texts_with_special_tokens_of_the_model_are_told_with_their_number(
    tiny, caplog
):
    family = chat()
    family.split = "train"
    rows = [
        *ROWS,
        ROWS[0] | {"answer": "stop <end_of_utterance> now"},
        ROWS[1] | {"question": "</s> is it red?"},
        ROWS[2] | {"kind": "<s>"},  # which the prompt does not show
    ]
    family.prepare(tiny[1], bare(ROWS))
    assert not caplog.messages
    family.prepare(tiny[1], rows)
    (told,) = caplog.messages
    assert told.startswith(
        "a special token of the model's is in a text of 2 of "
        f"{len(rows)} rows of train, such as '<end_of_utterance>' in the answer "
        "'stop <end_of_utterance> now'"
    )


def test_a_template_that_ends_in_a_blank_joins_no_token_to_the_answer(tiny):
    blank = TEMPLATE.replace("}}:", "}}: ").replace("Assistant:", "Assistant: ")
    processor = with_template(tiny, blank)
    batch = chat().collate(processor, ROWS[:1])
    prompt = prompt_of(batch)["input_ids"][0]
    assert processor.tokenizer.decode(prompt).endswith("Assistant: ")
    assert learnt(processor, batch)[0].startswith(ROWS[0]["answer"])


def test_a_template_that_writes_answers_otherwise_is_refused(tiny):
    template = TEMPLATE.replace("Assistant:{% endif", "Bot:{% endif")
    with pytest.raises(ConfigError, match="chat template does not write the same"):
        chat().collate(with_template(tiny, template), ROWS)


def test_without_an_end_in_the_template_the_text_ends(tiny):
    template = TEMPLATE.replace("<end_of_utterance>", "")
    processor = with_template(tiny, template)
    batch = chat().collate(processor, ROWS[:1])
    assert learnt(processor, batch)[0].endswith("</s>")
    assert end_ids(processor) == [processor.tokenizer.eos_token_id]


def test_what_the_template_writes_after_the_end_is_not_learnt(tiny):
    template = TEMPLATE.replace("<end_of_utterance>", "<end_of_utterance></s>")
    processor = with_template(tiny, template)
    assert learnt(processor, chat().collate(processor, ROWS[:1])) == [
        f"{ROWS[0]['answer']}<end_of_utterance>"
    ]


@pytest.mark.parametrize("prefix", ["", "<s>"], ids=["tokenizer", "template"])
def test_there_is_one_start_token_whoever_writes_it(tiny, prefix):
    from tokenizers.processors import TemplateProcessing

    processor = with_template(tiny, prefix + TEMPLATE)
    backend = processor.tokenizer.backend_tokenizer
    start = processor.tokenizer.bos_token_id
    backend.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", start)]
    )
    batch = chat().collate(processor, ROWS)
    assert (batch["input_ids"] == start).sum(dim=1).tolist() == [1] * len(ROWS)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        pytest.param("{qestion}", "did you mean 'question'", id="misspelt"),
        pytest.param("{answer}", "shows the field 'answer'", id="the target"),
        pytest.param("{image}", "shows the field 'image'", id="the picture"),
        pytest.param("{question", "which is no format string", id="an open brace"),
        pytest.param("{}", "shows the field ''", id="no name"),
    ],
)
def test_a_prompt_that_cannot_be_filled_is_refused(tiny, prompt, message):
    family = chat(prompt=prompt)
    with pytest.raises(ConfigError, match=message):
        family.collate(tiny[1], ROWS)
    with pytest.raises(ConfigError, match=message):
        family.build(ROWS)


def test_a_prompt_of_ones_own_is_what_the_model_reads(tiny):
    batch = chat(prompt="{question} In a word.").collate(tiny[1], bare(ROWS[:1]))
    text = tiny[1].tokenizer.decode(batch["input_ids"][0])
    assert f"{ROWS[0]['question']} In a word.<end_of_utterance>" in text


def test_a_row_that_lacks_what_the_prompt_shows_is_refused(tiny):
    with pytest.raises(DataError, match="a row has no 'kind'"):
        chat(prompt="{kind}: {question}").collate(tiny[1], ROWS)
