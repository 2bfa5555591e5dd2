"""Any vision and language model with a chat template, asked about one picture."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from trainbus_models.answer_confidence import WITH_LOGITS, mean_log_probabilities
from trainbus_models.chat import turns
from trainbus_models.chat.tokens import (
    answer_ids,
    end_ids,
    prompt_of,
    read_prompts,
    refuse_picture_tokens,
    warn_of_special_tokens,
    with_answers,
)
from trainbus_models.pretrained import load_model, load_part
from trainbus_models.sizes import Count, Deviation, Layers, Seed
from trainbus_models.transformers_family import GENERATION, TransformersFamily
from training.errors import ConfigError, DataError
from training.messages.tables import count
from training.recipes.batch import Batch

__all__ = ["Chat"]

logger = logging.getLogger(__name__)

#: Rows that a vocabulary is learnt from.
NUM_TEXT_ROWS = 100_000
#: Beyond this a tokenizer means that it knows of no limit.
NO_LIMIT = 1 << 24


class Chat(TransformersFamily):
    """``AutoModelForImageTextToText`` with a chat template: prompt in, answer out.

    A row becomes a user's turn, which is its picture and ``prompt``, and an assistant's
    turn, which is the target. Only the assistant's tokens are learnt, the end token
    included. A row whose prompt is too long is refused; only answers are cut.

    Args:
        prompt: what the user says below the picture; ``{question}`` stands for that
            text of the row. None: the first text that every row has, or else "Describe
            the picture."
        max_prompt_length: most tokens of a prompt, those of the picture included; None:
            what the tokenizer allows, less the answer.
        max_answer_length: most tokens of an answer, its end token included; of longer
            ones that much is learnt.
        num_beams: beams of generated answers; 1 is greedy.
    """

    tasks = ("vqa", "captioning")
    auto_model = "AutoModelForImageTextToText"
    is_deterministic = True
    confidence = "mean_log_probability"

    def __init__(
        self,
        prompt: str | None = None,
        max_prompt_length: PositiveInt | None = None,
        max_answer_length: PositiveInt = 16,
        num_beams: PositiveInt = 1,
    ) -> None:
        self.prompt = prompt
        self.max_prompt_length = max_prompt_length
        self.max_answer_length = max_answer_length
        self.num_beams = num_beams
        self._has_warned = False

    def load(self, name: str, rows: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
        """Return the model and its processor.

        Args:
            name: a folder written by ``save_pretrained``, or a hub name.
            rows: not looked at.
        Raises:
            ConfigError: there is no such model, it has no chat template, or a package
                that its processor needs is missing.
        """
        import transformers

        self._check_task()
        processor = load_part(transformers.AutoProcessor, name)
        tokenizer: Any = getattr(processor, "tokenizer", processor)
        templates = [
            getattr(each, "chat_template", None) for each in (processor, tokenizer)
        ]
        if not any(templates) or not hasattr(processor, "image_processor"):
            raise ConfigError(
                f"{name!r} has no chat template for pictures and texts; use a model "
                "that was tuned to chat about pictures, or write a family for it"
            )
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return load_model(transformers.AutoModelForImageTextToText, name), processor

    def build(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        hidden_size: Count = 64,
        vision_layers: Layers = 1,
        text_layers: Layers = 2,
        num_attention_heads: Count = 4,
        patch_size: Count = 16,
        image_size: Count = 64,
        vocab_size: Count = 512,
        max_text_length: Count = 256,
        initializer_range: Deviation = 0.08,
        seed: Seed = 0,
    ) -> tuple[Any, Any]:
        """Return a small Idefics3 with random weights, and its processor.

        Args:
            rows: of training; their texts are what the vocabulary is learnt from.
            hidden_size: width of both stacks.
            vision_layers: layers of the image encoder.
            text_layers: layers of the decoder.
            num_attention_heads: must divide ``hidden_size``.
            patch_size: side of an image patch, in pixels; must divide ``image_size``.
            image_size: side of the square images, in pixels.
            vocab_size: most tokens; bytes and special ones take 263.
            max_text_length: most tokens of prompt and answer, the picture's included.
            initializer_range: standard deviation of the weights; the library's 0.02 is
                meant for width 768.
            seed: of the weights; the global random state is left as it was.
        Raises:
            ConfigError: the sizes do not divide, or ``vocab_size`` is too small.
        """
        from trainbus_models.chat.build import build_chat

        self._check_task()
        return build_chat(
            self._texts_of(rows),
            hidden_size=hidden_size,
            vision_layers=vision_layers,
            text_layers=text_layers,
            num_attention_heads=num_attention_heads,
            patch_size=patch_size,
            image_size=image_size,
            vocab_size=vocab_size,
            max_text_length=max_text_length,
            initializer_range=initializer_range,
            seed=seed,
        )

    def prepare(self, processor: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        """Warn of texts that the model does not read as they are written."""
        read = [*turns.shown_fields(self._prompt), self.task.target]
        warn_of_special_tokens(processor.tokenizer, rows, read, self.split)

    def collate(self, processor: Any, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Return what the model's processor makes of pictures and prompts, and labels.

        Keys, with P tokens of a padded prompt and A of a padded answer:
            input_ids, attention_mask, labels: (B, P + A), int64; without targets (B, P)
                and no labels.
            pixel_values and others: as the model's processor makes them.

        Raises:
            DataError: a prompt is too long, or a text has a picture's token in it.
            ConfigError: the chat template does not fit.
        """
        asked = [turns.fill(self._prompt, row) for row in rows]
        answers = [row.get(self.task.target) for row in rows]
        said = [str(answer) for answer in answers if answer is not None]
        refuse_picture_tokens(processor, [*asked, *said])
        heads, tails = turns.render(processor, asked, answers)
        picture = turns.picture_field(self.task)
        pictures = [row[picture].open() for row in rows]
        prompts = read_prompts(processor, heads, pictures)
        self._check_lengths(processor, asked, prompts)
        known = [tail for tail in tails if tail is not None]
        if not known:
            return Batch(prompts, [dict(row) for row in rows], 0)
        ids = iter(answer_ids(processor, known, end_ids(processor)))
        learnt = [self._cut(next(ids)) if tail is not None else [] for tail in tails]
        # A prompt comes first, so that every one of these is a target of the loss.
        weight = sum(map(len, learnt))
        return Batch(with_answers(prompts, learnt), [dict(row) for row in rows], weight)

    def predict(
        self, model: Any, processor: Any, batch: Mapping[str, Any]
    ) -> list[str]:
        """Return what the model says to each prompt, without special tokens."""
        width, ids = self._generate(model, processor, batch)
        return _texts(processor, ids[:, width:])

    def predict_with_confidence(
        self, model: Any, processor: Any, batch: Mapping[str, Any]
    ) -> list[tuple[str, float]]:
        """Return the same with the mean log-probability of its tokens.

        Keeps the logits of all tokens until the last one is generated.
        """
        width, made = self._generate(model, processor, batch, **WITH_LOGITS)
        sure = mean_log_probabilities(made, width, end_ids(processor))
        texts = _texts(processor, made.sequences[:, width:])
        return list(zip(texts, sure, strict=True))

    def export(self, model: Any, processor: Any, folder: Path) -> None:
        """Write both, so that a plain ``generate`` ends an answer as ``predict`` does.

        A template may end a turn by a token that the model's configuration lacks.
        """
        super().export(model, processor, folder)
        path = folder / GENERATION
        told = json.loads(path.read_text("utf-8"))
        own = told.get("eos_token_id")
        ends = [*end_ids(processor), *(own if isinstance(own, list) else [own])]
        told["eos_token_id"] = [n for n in dict.fromkeys(ends) if n is not None]
        told["pad_token_id"] = processor.tokenizer.pad_token_id
        path.write_text(json.dumps(told, indent=2) + "\n", "utf-8")

    def _generate(
        self, model: Any, processor: Any, batch: Mapping[str, Any], **more: Any
    ) -> tuple[int, Any]:
        """Return the width of the prompts, and what ``generate`` makes of them."""
        prompts = prompt_of(batch)
        made = model.generate(
            **prompts,
            max_new_tokens=self.max_answer_length,
            do_sample=False,
            num_beams=self.num_beams,
            eos_token_id=end_ids(processor),
            pad_token_id=processor.tokenizer.pad_token_id,
            **more,
        )
        return prompts["input_ids"].shape[1], made

    def _check_task(self) -> None:
        """Refuse options that do not fit the task, before there is a model."""
        turns.picture_field(self.task)
        _ = self._prompt

    @property
    def _prompt(self) -> str:
        if self.prompt is None:
            return turns.default_prompt(self.task)
        turns.check_prompt(self.prompt, self.task)
        return self.prompt

    def _texts_of(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """Yield prompts and targets of up to 100,000 rows, evenly spread."""
        for index in range(0, len(rows), max(1, len(rows) // NUM_TEXT_ROWS)):
            row = rows[index]
            yield "User:" + turns.fill(self._prompt, row)
            yield "Assistant:" + str(row[self.task.target])

    def _check_lengths(
        self, processor: Any, asked: Sequence[str], prompts: Mapping[str, Any]
    ) -> None:
        allowed = processor.tokenizer.model_max_length
        limit = self.max_prompt_length or allowed - self.max_answer_length
        if prompts["input_ids"].shape[1] <= limit or limit > NO_LIMIT:
            return
        lengths = prompts["attention_mask"].sum(dim=1).tolist()
        place = max(range(len(lengths)), key=lengths.__getitem__)
        raise DataError(
            f"the prompt {asked[place][:60]!r} takes "
            f"{count(lengths[place], 'token')} with its picture, more than "
            f"max_prompt_length {limit}; raise that, if the model "
            "has positions for it, or drop the row: cut prompts ask something else"
        )

    def _cut(self, answer: list[int]) -> list[int]:
        if len(answer) > self.max_answer_length and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "model.max_answer_length is %s, which cuts an answer of %d",
                count(self.max_answer_length, "token"), len(answer),
            )  # fmt: skip
        return answer[: self.max_answer_length]


def _texts(processor: Any, answers: Any) -> list[str]:
    """Return the texts of (B, A) tokens of answers, without special ones."""
    texts = processor.tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [text.strip() for text in texts]
