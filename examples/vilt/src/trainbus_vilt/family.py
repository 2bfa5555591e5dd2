"""ViLT as a model family of trainbus."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trainbus_vilt.small import small_model, small_processor
from training import Batch, ConfigError, ModelFamily
from training.plugin import likeliest

__all__ = ["Vilt"]

log = logging.getLogger(__name__)

#: As many annotators make an answer fully right, as in VQA v2.
ENOUGH = 3


class Vilt(ModelFamily):
    """One of a list of answers for each question about a picture.

    The processor carries the list in ``answers``.

    Args:
        num_answers: most answers in the list that a fresh model gets.
        max_question_length: tokens that a question is cut to.
    """

    tasks = ("vqa",)
    confidence = "probability"

    def __init__(self, num_answers: int = 3129, max_question_length: int = 40) -> None:
        self.num_answers = num_answers
        self.max_question_length = max_question_length

    def load(self, name: str, rows: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
        """Return a fine-tuned model, its list of answers and its processor."""
        from transformers import ViltProcessor

        from trainbus_vilt.model import ViltVQA

        try:
            model = ViltVQA.from_pretrained(
                name, dtype=torch.float32, trust_remote_code=False
            )
            processor = ViltProcessor.from_pretrained(name, trust_remote_code=False)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{name!r} cannot be loaded: {reason}") from error
        return model.eval(), _with_answers(processor, model.config)

    def build(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        hidden_size: int = 64,
        num_layers: int = 2,
        image_size: int = 64,
        patch_size: int = 16,
        vocab_size: int = 512,
        seed: int = 0,
    ) -> tuple[Any, Any]:
        """Return a small model with random weights; answers and words are the rows'."""
        counts = Counter(row["answer"] for row in rows)
        answers = sorted(name for name, _ in counts.most_common(self.num_answers))
        left = sum(counts.values()) - sum(counts[name] for name in answers)
        if left:
            log.warning("%d of %d answers are not in the list", left, len(rows))
        texts = [row["question"] for row in rows]
        processor = small_processor(texts, vocab_size, image_size, patch_size)
        model = small_model(
            processor.tokenizer,
            answers,
            seed,
            hidden_size=hidden_size,
            num_hidden_layers=num_layers,
            image_size=image_size,
            patch_size=patch_size,
            max_position_embeddings=self.max_question_length,
        )
        return model, _with_answers(processor, model.config)

    def collate(self, processor: Any, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Return pixels, tokens, their masks, and scores (B, answers), float32.

        A row without an answer has scores that the loss leaves out.
        """
        from trainbus_vilt.model import IGNORED

        made = processor(
            images=[row["image"].open() for row in rows],
            text=[row["question"] for row in rows],
            padding="max_length",
            truncation=True,
            max_length=self.max_question_length,
            return_tensors="pt",
        )
        tensors, kept = dict(made), [dict(row) for row in rows]
        if not any("answer" in row for row in rows):
            return Batch(tensors, kept, 0)
        tensors["labels"] = torch.zeros(len(rows), len(processor.answers))
        numbers = {answer: number for number, answer in enumerate(processor.answers)}
        for place, row in enumerate(rows):
            if "answer" not in row:
                tensors["labels"][place] = IGNORED
                continue
            for answer, score in _scores(row).items():
                if answer in numbers:
                    tensors["labels"][place, numbers[answer]] = score
        weight = sum("answer" in row for row in rows)  # its loss: a mean over these
        return Batch(tensors, kept, weight)

    def predict(self, model: Any, processor: Any, batch: Batch) -> list[str]:
        """Return the likeliest answer of each row; none, ``""``, where one is NaN."""
        said = self.predict_with_confidence(model, processor, batch)
        return [answer for answer, _ in said]

    def predict_with_confidence(
        self, model: Any, processor: Any, batch: Batch
    ) -> list[tuple[str, float]]:
        """Return the same with its probability, each answer being right or not."""
        asked = {name: value for name, value in batch.items() if name != "labels"}
        devices = [model.device] if model.device.type == "cuda" else []
        # The library puts patches in a random order, in eval mode, too.
        with torch.random.fork_rng(devices=devices):
            logits = model(**asked).logits
        answers = likeliest(logits, processor.answers, otherwise="")
        sure = logits.amax(dim=-1).sigmoid()
        return list(zip(answers, sure.tolist(), strict=True))

    def describe(self, model: Any, processor: Any) -> dict[str, Any]:
        """Return the configuration, answers among it, and the processor's files."""
        config = model.config.to_dict()
        config["id2label"] = {str(n): name for n, name in enumerate(processor.answers)}
        with tempfile.TemporaryDirectory() as folder:
            processor.save_pretrained(folder)
            files = {p.name: p.read_text("utf-8") for p in Path(folder).iterdir()}
        return {"config": config, "files": dict(sorted(files.items()))}

    def rebuild(self, description: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return model and processor; the weights are random."""
        from transformers import ViltConfig, ViltProcessor

        from trainbus_vilt.model import ViltVQA

        config = ViltConfig.from_dict(dict(description["config"]))
        with tempfile.TemporaryDirectory() as folder:
            for name, text in description["files"].items():
                (Path(folder) / Path(name).name).write_text(text, "utf-8")
            processor = ViltProcessor.from_pretrained(folder, trust_remote_code=False)
        return ViltVQA(config), _with_answers(processor, config)


def _scores(row: Mapping[str, Any]) -> dict[str, float]:
    """Return answer -> how right it is, from 0 to 1."""
    answers = row.get("answers") or ()
    if len(answers) < ENOUGH:
        return {row["answer"]: 1.0}
    return {a: min(1.0, count / ENOUGH) for a, count in Counter(answers).items()}


def _with_answers(processor: Any, config: Any) -> Any:
    processor.answers = [name for _, name in sorted(config.id2label.items())]
    return processor
