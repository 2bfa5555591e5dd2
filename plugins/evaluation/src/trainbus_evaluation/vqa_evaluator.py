"""Evaluate a model that answers questions in words, without a recipe at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from trainbus_evaluation.forward import ComputeLoss, ModelRunner
from trainbus_evaluation.generated import AnswerTexts, longest_answer, question_of
from trainbus_evaluation.own_metrics import Metric
from trainbus_evaluation.task_evaluator import TaskEvaluator
from trainbus_evaluation.vqa_accuracy import answer_scores
from training import ConfigError, checked_options
from training.plugin import USUAL_GENERATION, attribute_of

METRICS = ("loss", "accuracy", "exact_match")


class VQAEvaluator(TaskEvaluator):
    """Measure validation loss, accuracy and exact match of generated answers.

    ``accuracy`` of a row with several annotators' ``answers`` is the official VQA
    accuracy (revision ``VQA_EVAL_REVISION``); otherwise prediction and answer must be
    equal after the official normalisation. ``exact_match``: the prediction is the text
    that decoding the answer's own tokens gives, which a perfect model can reach.
    ``accuracy/<kind>`` is the accuracy of the rows of that ``kind``. All are in [0, 1].

    Args:
        model: returns ``loss`` for a batch with ``labels``, and has ``generate``.
        processor: has a ``tokenizer``, or is one.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"``; None: where the model is.
        max_new_tokens: longest answer in tokens, its end token included; None: 10, or
            as many as the longest answer of a batch has.
        num_beams: 1 decodes greedily.
        metrics: which of ``loss``, ``accuracy``, ``exact_match`` to measure, and your
            own, as a ``TaskEvaluator`` takes them; the loss always is measured, and
            without the others no answer is generated.
        compute_loss: ``batch -> (loss, weight)``, such as a trainer's method; by
            default the model's own loss.
    Raises:
        ConfigError: an argument does not fit.
    """

    @checked_options
    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        device: str | torch.device | None = None,
        max_new_tokens: Annotated[int, Ge(1)] | None = None,
        num_beams: Annotated[int, Ge(1), Le(1000)] = 1,
        metrics: Sequence[Metric] = METRICS,
        *,
        compute_loss: ComputeLoss | None = None,
    ) -> None:
        if not callable(getattr(model, "generate", None)):
            raise ConfigError(
                f"VQAEvaluator needs a model that can generate, but "
                f"{type(model).__name__} has no generate(); use Evaluator"
            )
        self._start(model, metrics, METRICS)
        self.max_new_tokens = max_new_tokens
        self.num_beams = num_beams
        self._texts = AnswerTexts(processor)
        self._runner = ModelRunner(model, device, compute_loss=compute_loss)

    @property
    def _target(self) -> str:
        return "answer"

    def _loss(
        self, batch: Any, moved: Any, device: torch.device, samples: int | None
    ) -> tuple[Tensor, float]:
        if not isinstance(batch, Mapping) or "labels" not in batch:
            raise ConfigError(
                f"VQAEvaluator needs mappings with 'labels', but a batch is "
                f"{type(batch).__name__}; use Evaluator"
            )
        return self._weighed(batch, moved, device, samples)

    def _answer(
        self, batch: Mapping[str, Any], moved: Mapping[str, Any], is_kept: bool
    ) -> list[dict[str, Any]]:
        """Return the rows of a batch with predictions and scores."""
        most, tokenizer = self.max_new_tokens, self._texts.tokenizer
        self._warn_of_cut(batch, tokenizer, most)
        if most is None:  # no longer than that can be right
            usual = USUAL_GENERATION["max_new_tokens"]
            most = max(usual, longest_answer(batch, tokenizer))
        ids = self.model.generate(  # type: ignore[operator]
            **question_of(moved),
            max_new_tokens=most,
            num_beams=self.num_beams,
            do_sample=False,
        )
        predictions = self._texts.decode(ids)
        rows: Sequence[Mapping[str, Any]] | None = attribute_of(batch, "rows")
        labels = batch["labels"]
        if rows is None:
            references = self._texts.of_labels(labels)
            rows = [{"answer": reference} for reference in references]
        else:
            references = [
                self._texts.reference(str(row["answer"]), labels, number)
                for number, row in enumerate(rows)
            ]
        records = []
        for row, said, right in zip(rows, predictions, references, strict=True):
            answers = row.get("answers") or ()
            scores = answer_scores(said, str(row["answer"]), right, answers)
            records.append({**row, "prediction": said, **scores})
        return records

    def _scores(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the means of accuracy, exact match, and accuracy of each kind."""
        return self._means(records)
