"""Answers are read as people write them, whatever blanks word pieces are joined by."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast

from trainbus_models.blip.build import build_blip
from trainbus_models.blip.family import Blip
from trainbus_models.blip.tokens import TokenCache
from training import VQAEvaluator
from training.recipes.answer_texts import echo_of, texts_of
from training.recipes.batch import Batch

# What people answer.
TABLE = """
10:30|10:30 am|john 3:16|2:30 p.m.|3:1|50%|10-20%|$5|$5.99|$.50|$1,000|$10-$20|1,000
1,000,000|5,000 feet|3.5|0.5 miles|.5|-5|-5 degrees|-$5|1/2|24/7|1-2-2012|#1|#love
#22 and #7|6'2|6'2"|12"|6'|6' tall|90's|1980's|t-shirt|x-ray|merry-go-round|wi-fi|7-up
f-16|3-d|n/a|and/or|o'clock|10 o'clock|don't know|can't tell|it's john's|men's|we're
you'll|d'angelo|o'neil's|girls' room|rock 'n' roll|rock n' roll|u.s.a.|u.s. open|a.m.
st. john|dr. pepper|no. 1|nike.com|www.nike.com|(left)|left (red)|area [5]|yes?|stop!
"stop"|'stop'|route "66"|10%-20%|b-52|says "no entry" here|5" pipe|no...|yes, no
red, white, blue|1, 2, 3|2010, 2011|yes, 300|a. b|5 + 3|salt & pepper|a|-|?|$|%|'|"
...|john 3:16, 4:2|2.5%|no, it isn't
"""
WRITTEN = TABLE.strip().replace("\n", "|").split("|")
# What may be meant in either way, as word pieces tell it.
AMBIGUOUS = {
    "b&w": "b & w",
    "red:white": "red : white",
    "says 'stop'": "says ' stop '",
    "the '80s": "the ' 80s",
    "f(x)": "f (x)",
    "a+": "a +",
    "from -10 to -5": "from - 10 to - 5",
    '5" x 7"': '5 " x 7 "',
    "50 % 'off'": "50% ' off '",
}


@pytest.fixture(scope="module")
def word_pieces():
    texts = [*WRITTEN, *AMBIGUOUS, "red color", "红色", "[sep] token", "[dec]"]
    built = build_blip(texts, hidden_size=16, num_attention_heads=2, vocab_size=4096)
    return built["processor"].tokenizer


@pytest.fixture(params=["joined as they are", "cleaned", "cleaned twice"])
def tokenizer(request, word_pieces, monkeypatch):
    cleanup = request.param != "joined as they are"
    decoder = decoders.WordPiece(prefix="##", cleanup=cleanup)
    monkeypatch.setattr(word_pieces.backend_tokenizer, "decoder", decoder)
    is_twice = request.param == "cleaned twice"
    monkeypatch.setattr(word_pieces, "clean_up_tokenization_spaces", is_twice)
    return word_pieces


def test_an_answer_comes_back_from_word_pieces_as_it_was_written(tokenizer):
    every = tokenizer(WRITTEN)["input_ids"]
    assert all(tokenizer.unk_token_id not in ids for ids in every)
    found = {text: echo_of(tokenizer, text) for text in WRITTEN}
    assert found == {text: text for text in WRITTEN}


def test_what_may_be_meant_in_either_way_stays(tokenizer):
    assert {text: echo_of(tokenizer, text) for text in AMBIGUOUS} == AMBIGUOUS


@pytest.mark.parametrize("text", ["[SEP] token", "[PAD]", "a [MASK]", "[DEC]"])
def test_a_special_token_in_an_answer_is_text_as_any_other(word_pieces, text):
    tokens = TokenCache(word_pieces, 12, "answer")
    ids, mask = tokens.of([text], trim=True)
    start, *own, end = ids[0].tolist()
    special = word_pieces.all_special_ids
    assert (start, end) == (word_pieces.cls_token_id, word_pieces.sep_token_id)
    assert not set(own) & {*special}
    assert mask.all()
    processor = type("Processor", (), {"tokenizer": word_pieces})()
    assert Blip().echo(processor, text) == text.lower()
    assert texts_of(word_pieces, ids) == [text.lower()]


@pytest.mark.parametrize("text", ["10 : 30", "50 %", "t - shirt", "红 色", "1, 000"])
def test_a_tokenizer_that_keeps_blanks_has_meant_them(text):
    tokenizer = byte_level(text)
    assert texts_of(tokenizer, [tokenizer(text)["input_ids"]]) == [text]


def byte_level(text, **special):
    bytes_of_text = Tokenizer(models.BPE())
    bytes_of_text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_of_text.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        initial_alphabet=alphabet,
        special_tokens=[*special.values()],
        show_progress=False,
    )
    bytes_of_text.train_from_iterator([text], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bytes_of_text, **special)


class Knows(nn.Module):
    """Answers with its question."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, question, labels):
        return {"loss": self.weight}

    def generate(self, question, **options):
        return question


@pytest.mark.parametrize("text", ["red<|end|>", "<|end|>", "a<|end|>b", "red"])
@pytest.mark.parametrize("is_split", [False, True])
def test_the_guides_evaluator_reads_a_special_token_as_the_batch_does(text, is_split):
    tokenizer = byte_level("red", eos_token="<|end|>")
    made = tokenizer(text, split_special_tokens=is_split, return_tensors="pt")
    read = text if is_split else text.replace("<|end|>", "")
    assert_read(tokenizer, made["input_ids"], text, read)


@pytest.mark.parametrize("text", ["[SEP] token", "[PAD]", "a [MASK]", "token"])
def test_the_guides_evaluator_reads_a_special_token_as_blip_does(word_pieces, text):
    ids, _ = TokenCache(word_pieces, 12, "answer").of([text], trim=True)
    assert_read(word_pieces, ids, text, text.lower())


def assert_read(tokenizer, ids, text, read):
    """The evaluator takes what decodes to ``read`` for right, and nothing else."""
    other = tokenizer("other" * 4, return_tensors="pt")["input_ids"]
    for question, is_right in ((ids, 1.0), (other, 0.0)):
        batch = Batch({"question": question, "labels": ids}, [{"answer": text}], 1)
        found = VQAEvaluator(Knows(), tokenizer).evaluate([batch], True)
        assert found["exact_match"] == is_right
    assert texts_of(tokenizer, ids) == [read]


def test_the_guides_evaluator_reads_answers_as_a_run_does(tiny, tokenizer):
    processor = type("Processor", (), {"tokenizer": tokenizer})()
    for text in ("t-shirt", "红色", "says 'stop'"):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        batch = {"question": ids, "labels": ids}
        found = VQAEvaluator(Knows(), processor).evaluate([batch], True)
        assert found["predictions"] == [Blip().echo(processor, text)]
