"""A text, its label, and a small BERT that tells one by the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

from training import Batch, ModelFamily, Task
from training.plugin import likeliest

__all__ = ["Texts", "TextClassification"]

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


@dataclass
class Texts:
    """The processor: how texts become tokens, and what the labels are called."""

    tokenizer: Tokenizer
    labels: list[str]


class TextClassification(Task, ModelFamily):
    """One of some labels for each text.

    Args:
        max_length: tokens that a text is cut to.
    """

    name = "text_classification"
    fields: ClassVar = {"text": "text", "label": "text", "kind": "text?"}
    target = "label"
    metrics = ("accuracy",)
    default_family = "text_classification"
    tasks = ("text_classification",)
    confidence = "probability"

    def __init__(self, max_length: int = 128) -> None:
        self.max_length = max_length

    def score(self, prediction: Any, row: Mapping[str, Any]) -> dict[str, float]:
        """Return whether the label is right."""
        return {"accuracy": float(prediction == row["label"])}

    def build(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        hidden_size: int = 64,
        num_layers: int = 2,
        vocab_size: int = 2000,
        seed: int = 0,
    ) -> tuple[Any, Texts]:
        """Return a small BERT with random weights, its words learnt from ``rows``."""
        from transformers import BertConfig, BertForSequenceClassification

        labels = sorted({row["label"] for row in rows})
        tokenizer = self._learn([row["text"] for row in rows], vocab_size)
        config = BertConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=hidden_size,
            intermediate_size=4 * hidden_size,
            num_hidden_layers=num_layers,
            num_attention_heads=4,
            max_position_embeddings=self.max_length,
            initializer_range=0.08,  # the library's 0.02 is meant for width 768
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = BertForSequenceClassification(config)
        return model.eval(), Texts(tokenizer, labels)

    def collate(self, processor: Texts, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Return tokens and mask (B, T), and label numbers (B,), int64.

        -100 is no part of the loss: no label, or one that training never had.
        """
        read = processor.tokenizer.encode_batch([row["text"] for row in rows])
        tensors = {
            "input_ids": torch.tensor([each.ids for each in read]),
            "attention_mask": torch.tensor([each.attention_mask for each in read]),
        }
        kept = [dict(row) for row in rows]
        if not any("label" in row for row in rows):
            return Batch(tensors, kept, 0)
        numbers: dict[Any, int] = {name: n for n, name in enumerate(processor.labels)}
        labels = torch.tensor([numbers.get(row.get("label"), -100) for row in rows])
        tensors["labels"] = labels
        return Batch(tensors, kept, int((labels != -100).sum()))  # its loss: a mean

    def predict(self, model: Any, processor: Texts, batch: Batch) -> list[str | None]:
        """Return the likeliest label of each text; None where a logit is NaN."""
        said = self.predict_with_confidence(model, processor, batch)
        return [label for label, _ in said]

    def predict_with_confidence(
        self, model: Any, processor: Texts, batch: Batch
    ) -> list[tuple[str | None, float]]:
        """Return the same, each with its probability."""
        asked = {name: value for name, value in batch.items() if name != "labels"}
        logits = model(**asked).logits
        labels = likeliest(logits, processor.labels)
        sure = logits.softmax(dim=-1).amax(dim=-1)
        return list(zip(labels, sure.tolist(), strict=True))

    def sample_rows(self) -> list[dict[str, str]]:
        """Return rows that ``trainbus plugins check`` tries the family on."""
        return [
            {"text": "what a lovely film", "label": "good"},
            {"text": "awful", "label": "bad"},
            {"text": "a lovely cast, a fine story", "label": "good"},
            {"text": "the story is awful and dull", "label": "bad"},
            {"text": "fine", "label": "good"},
            {"text": "it is a film", "label": "neither"},
        ]

    def describe(self, model: Any, processor: Texts) -> dict[str, Any]:
        """Return configuration, words and labels."""
        return {
            "config": {k: v for k, v in model.config.to_dict().items() if k in SIZES},
            "tokenizer": processor.tokenizer.to_str(),
            "labels": processor.labels,
        }

    def rebuild(self, description: Mapping[str, Any]) -> tuple[Any, Texts]:
        """Return model and processor; the weights are random."""
        from transformers import BertConfig, BertForSequenceClassification

        labels = list(description["labels"])
        config = BertConfig(**description["config"], id2label=dict(enumerate(labels)))
        tokenizer = Tokenizer.from_str(description["tokenizer"])
        return BertForSequenceClassification(config), Texts(tokenizer, labels)

    def export(self, model: Any, processor: Texts, folder: Path) -> None:
        """Write model, configuration and tokenizer as other programs read them."""
        model.save_pretrained(folder)
        processor.tokenizer.save(str(folder / "tokenizer.json"))

    def _learn(self, texts: list[str], vocab_size: int) -> Tokenizer:
        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = BpeTrainer(
            vocab_size=vocab_size, special_tokens=SPECIAL, show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        ends = [(token, SPECIAL.index(token)) for token in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=ends
        )
        tokenizer.enable_truncation(self.max_length)
        tokenizer.enable_padding()
        return tokenizer


#: What of the configuration makes the model; the rest is the library's own.
SIZES = frozenset(
    (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
        *("num_attention_heads", "max_position_embeddings", "initializer_range"),
        *("hidden_dropout_prob", "attention_probs_dropout_prob"),
    )
)
