"""BLIP as a family: how it is loaded, fed, asked, described and written."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from trainbus_models.pretrained import check_folder, load_processor, load_weights
from trainbus_models.processor_files import described_processor, processor_of
from trainbus_models.sizes import (
    Count,
    Deviation,
    Fraction,
    Layers,
    Length,
    Seed,
    Side,
)
from training.errors import ConfigError
from training.messages.tables import count
from training.recipes.answer_texts import echo_of, texts_of
from training.recipes.family import ModelFamily

if TYPE_CHECKING:
    from torch import nn

    from trainbus_models.blip.tokens import TokenCache
    from trainbus_models.pixels import PixelCache
    from training.recipes.batch import Batch

__all__ = ["Blip"]

logger = logging.getLogger(__name__)

#: Either holds the vocabulary, as tokenizers are saved now and were before.
VOCABULARIES = frozenset({"tokenizer.json", "vocab.txt"})
#: Entries of a batch that only training feeds to the model.
ANSWER_KEYS = ("labels", "decoder_input_ids", "decoder_attention_mask")


class Blip(ModelFamily):
    """BLIP for visual question answering: an image encoder and a decoder of answers.

    Args:
        processor: hub name or folder of image processor and tokenizer, for a pipeline
            without a model.
        image_size: side in pixels that pictures are resized to; None: the processor's.
        max_question_length: tokens every question is padded or cut to.
        max_answer_length: tokens an answer is cut to, and generated at most.
    """

    tasks = ("vqa",)
    is_deterministic = True
    confidence = "mean_log_probability"

    def __init__(
        self,
        processor: Annotated[str, Field(min_length=1)] = "Salesforce/blip-vqa-base",
        image_size: Side | None = None,
        max_question_length: Length = 32,
        max_answer_length: Length = 10,
    ) -> None:
        self.processor_name = processor
        self.image_size = image_size
        self.max_question_length = max_question_length
        self.max_answer_length = max_answer_length
        #: What ``generate`` starts an answer from; that of the model at hand.
        self.start_token_id: int | None = None
        #: The latest processor, and what is remembered of its work.
        self._made: tuple[Any, PixelCache, TokenCache, TokenCache] | None = None
        self._echoes: dict[str, str] = {}

    def load(self, name: str, rows: Sequence[Any]) -> tuple[nn.Module, Any]:
        """Return the model and the processor of a folder or a hub name.

        Raises:
            ConfigError: there is no such model, or it is of another family or head.
        """
        return self.load_model(name), load_processor(os.path.expanduser(name))

    def load_model(self, name: str) -> nn.Module:
        """Return the model alone, of a folder or a hub name."""
        name = os.path.expanduser(name)
        check_folder(name, "blip")
        return self._fit(_load_blip(name))

    def build(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        hidden_size: Count = 64,
        vision_layers: Layers = 1,
        text_layers: Layers = 1,
        patch_size: Count = 16,
        image_size: Count = 64,
        vocab_size: Count = 512,
        num_attention_heads: Count = 4,
        max_text_length: Count = 64,
        initializer_range: Deviation = 0.08,
        dropout: Fraction = 0.0,
        label_smoothing: Fraction = 0.0,
        seed: Seed = 0,
    ) -> tuple[nn.Module, Any]:
        """Return a small model with fresh weights, its vocabulary learnt from rows.

        Args:
            rows: their questions and answers are what is learnt from.
            hidden_size: width of all three stacks.
            vision_layers: layers of the image encoder.
            text_layers: layers of the question encoder, and of the answer decoder.
            patch_size: side of an image patch, in pixels.
            image_size: side of the square images, in pixels.
            vocab_size: most word pieces of the tokenizer, learnt from the rows.
            num_attention_heads: must divide ``hidden_size``.
            max_text_length: positions of the text stacks, in tokens.
            initializer_range: standard deviation of the fresh weights.
            dropout: of hidden states and attention, in the text stacks.
            label_smoothing: of the answer's cross entropy.
            seed: of the weights; left out: the run's seed.
        """
        from trainbus_models.blip.build import build_blip

        texts = [row["question"] for row in rows] + [row["answer"] for row in rows]
        built = build_blip(
            texts,
            hidden_size=hidden_size,
            vision_layers=vision_layers,
            text_layers=text_layers,
            patch_size=patch_size,
            image_size=image_size,
            vocab_size=vocab_size,
            num_attention_heads=num_attention_heads,
            max_text_length=max_text_length,
            initializer_range=initializer_range,
            dropout=dropout,
            label_smoothing=label_smoothing,
            seed=seed,
        )
        return self._fit(built["model"]), built["processor"]

    def load_processor(self) -> Any:
        """Return the processor that the option names, for a pipeline without a model.

        Raises:
            ConfigError: there is none of that name.
        """
        name = os.path.expanduser(self.processor_name)
        processor = load_processor(name, "model.processor")
        self._start_of(processor)
        return processor

    def prepare(self, processor: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        """Tokenise the texts of these rows, and warn of those that are cut."""
        _, questions, answers = self._made_for(processor)
        questions.prepare((row["question"] for row in rows), self.split)
        given = (row["answer"] for row in rows if "answer" in row)
        answers.prepare(given, self.split)

    def collate(self, processor: Any, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Return the batch of some rows, with B questions of Q tokens, A of answers.

        Keys:
            pixel_values: (B, 3, H, W), float32.
            input_ids, attention_mask: (B, Q), int64.
            decoder_input_ids: (B, A), int64; the first is the model's start token.
            decoder_attention_mask: (B, A), int64.
            labels: (B, A), int64; as decoder_input_ids, -100 at padding and in rows
                without an answer.

        The last three are left out where no row has an answer. Pixels are bytes, uint8,
        where their normalising is left to the device.
        """
        import torch

        from training.recipes.batch import Batch

        pixels, questions, answers = self._made_for(processor)
        ids, mask = questions.of([row["question"] for row in rows])
        tensors = {
            "pixel_values": pixels.get([row["image"] for row in rows]),
            "input_ids": ids,
            "attention_mask": mask,
        }
        weight = 0
        is_known = torch.tensor(["answer" in row for row in rows])
        if is_known.any():
            ids, mask = answers.of([row.get("answer", "") for row in rows], trim=True)
            ids[:, 0] = self._start_of(processor)
            tensors["decoder_input_ids"] = ids
            tensors["decoder_attention_mask"] = mask
            learnt = mask * is_known[:, None]
            tensors["labels"] = ids.masked_fill(learnt == 0, -100)
            # The model predicts each token from those before: the first is no target.
            weight = int(learnt[:, 1:].sum())
        kept: list[Any] = list(rows)
        batch = Batch(tensors, kept, weight, {"pixel_values": pixels.normalise})
        return batch if self.is_fed_from_host else batch.finished()

    def echo(self, processor: Any, value: str) -> str:
        """Return what a model that knows ``value`` would be decoded to."""
        if value not in self._echoes:
            self._echoes[value] = echo_of(
                processor.tokenizer, value, split_special_tokens=True
            )
        return self._echoes[value]

    def predict(
        self,
        model: nn.Module,
        processor: Any,
        batch: Mapping[str, Any],
        *,
        max_new_tokens: int | None = None,
        num_beams: int = 1,
    ) -> list[str]:
        """Return the generated answer of each row.

        Args:
            model: generates.
            processor: decodes.
            batch: of ``collate``.
            max_new_tokens: longest answer in tokens, its end token included; None: as
                long as one is learnt.
            num_beams: 1 decodes greedily.
        """
        options = self._generation(max_new_tokens, num_beams)
        return texts_of(processor.tokenizer, _generate(model, batch, options))

    def predict_with_confidence(
        self,
        model: nn.Module,
        processor: Any,
        batch: Mapping[str, Any],
        *,
        max_new_tokens: int | None = None,
        num_beams: int = 1,
    ) -> list[tuple[str, float]]:
        """Return the same with the mean log-probability of its tokens.

        Keeps the logits of all tokens until the last one is generated.
        """
        from trainbus_models.answer_confidence import (
            WITH_LOGITS,
            mean_log_probabilities,
        )

        options = self._generation(max_new_tokens, num_beams)
        made = _generate(model, batch, options | WITH_LOGITS)
        config: Any = model.config
        sure = mean_log_probabilities(made, 1, [config.text_config.sep_token_id])
        texts = texts_of(processor.tokenizer, made.sequences)
        return list(zip(texts, sure, strict=True))

    def describe(self, model: nn.Module, processor: Any) -> dict[str, Any]:
        """Return the configuration, and the files of the processor as text."""
        config: Any = model.config
        return {"config": config.to_dict(), **described_processor(processor)}

    def export(self, model: nn.Module, processor: Any, folder: Path) -> None:
        """Write both, and warn of what the library's own class does otherwise."""
        super().export(model, processor, folder)
        logger.warning(
            "transformers' BlipForQuestionAnswering lets an answer look at the padding "
            "of its question, so that the exported model may answer padded questions "
            "otherwise than predict does; ask it one question at a time, or batch "
            "questions of equal length, without padding"
        )

    def check(self, description: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
        """Refuse a configuration of another model than the one with the weights."""
        from trainbus_models.blip.matching import require_match

        require_match(description["config"], weights)

    def rebuild(self, description: Mapping[str, Any]) -> tuple[nn.Module, Any]:
        """Return model and processor; only configuration and vocabulary are read."""
        from transformers import AutoProcessor, BlipConfig, BlipProcessor

        from trainbus_models.blip.model import BlipVQA

        config = BlipConfig.from_dict(dict(description["config"]))
        files = description["processor_files"]
        if VOCABULARIES.isdisjoint(files):  # the library would make up an empty one
            raise ValueError(f"its files lack {' or '.join(sorted(VOCABULARIES))}")
        processor = processor_of(description, AutoProcessor)
        if not isinstance(processor, BlipProcessor):
            raise TypeError(f"its files make a {type(processor).__name__}")
        return self._fit(BlipVQA(config)), processor

    def _fit(self, model: Any) -> nn.Module:
        """Refuse texts and pictures of other sizes than the model takes."""
        most = model.max_text_tokens
        for key in ("max_question_length", "max_answer_length"):
            length = getattr(self, key)
            if length > most:
                raise ConfigError(
                    f"model.{key} is {length:,}, but the model has positions for "
                    f"{most:,} tokens; use at most that, or another model"
                )
        if self.image_size not in (None, model.image_size):
            raise ConfigError(
                f"model.image_size is {self.image_size:,}, but the model looks at "
                f"{model.image_size} x {model.image_size} pixels; use "
                f"{model.image_size}, or leave it out"
            )
        self.start_token_id = model.config.text_config.bos_token_id
        return model  # type: ignore[no-any-return]

    def _generation(self, max_new_tokens: int | None, num_beams: int) -> dict[str, int]:
        """Return how answers are generated: as long as they are learnt, if not said."""
        # That counts the start token, too, which is not generated.
        most = self.max_answer_length if max_new_tokens is None else max_new_tokens
        return {"max_new_tokens": most, "num_beams": num_beams}

    def _made_for(self, processor: Any) -> tuple[PixelCache, TokenCache, TokenCache]:
        """Return what is remembered of pictures, questions and answers."""
        from trainbus_models.blip.tokens import TokenCache
        from trainbus_models.pixels import PixelCache

        if self._made is None or self._made[0] is not processor:
            pictures, tokenizer = processor.image_processor, processor.tokenizer
            self._made = (
                processor,
                PixelCache(pictures, self.cache_bytes, self.image_size),
                TokenCache(tokenizer, self.max_question_length, "question"),
                TokenCache(tokenizer, self.max_answer_length, "answer"),
            )
        return self._made[1:]

    def _start_of(self, processor: Any) -> int:
        if self.start_token_id is None:
            name = os.path.expanduser(self.processor_name)
            self.start_token_id = _start_token_of(name, processor)
        return self.start_token_id

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}


def _load_blip(name: str) -> Any:
    from trainbus_models.blip.model import BlipVQA

    model, lacking = load_weights(BlipVQA, name)
    if lacking:
        raise ConfigError(
            f"{name!r} holds no BLIP for vqa: missing or of another shape: "
            f"{count(len(lacking), 'weight')}, such as {lacking[0]}; use a checkpoint "
            "fine-tuned or pre-trained for question answering"
        )
    return model


def _generate(model: Any, batch: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Return what ``generate`` makes of the batch without its answers."""
    asked = {key: v for key, v in batch.items() if key not in ANSWER_KEYS}
    return model.generate(**asked, **options, do_sample=False)


def _start_token_of(name: str, processor: Any) -> int:
    """Return the id that the model named like the processor starts answers from."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError):
        config = None  # a folder with a processor and no model
    token = getattr(getattr(config, "text_config", None), "bos_token_id", None)
    if token is None:
        token = processor.tokenizer.bos_token_id
    if token is None:
        raise ConfigError(
            f"neither the model {name!r} nor the tokenizer says which token starts an "
            "answer; pass bos_token_id=model.config.text_config.bos_token_id"
        )
    return int(token)
