"""Evaluate a model that answers questions about images in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from trainbus_evaluation.evaluator import check_not_empty, checked_metrics
from trainbus_evaluation.forward import ComputeLoss, ModelRunner
from trainbus_evaluation.generated import AnswerTexts, question_of
from trainbus_evaluation.metrics import WeightedMean
from trainbus_evaluation.vqa_accuracy import normalise, vqa_accuracy
from training import ConfigError, checked_options
from training.plugin import batch_to_device, evaluating, sample_sizes

METRICS = ("loss", "accuracy", "exact_match")


class VQAEvaluator:
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
        max_new_tokens: longest answer in tokens, its end token included.
        num_beams: 1 decodes greedily.
        metrics: which of ``loss``, ``accuracy``, ``exact_match`` to measure; the loss
            always is, and without the others no answer is generated.
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
        max_new_tokens: Annotated[int, Ge(1)] = 10,
        num_beams: Annotated[int, Ge(1), Le(1000)] = 1,
        metrics: Sequence[str] = METRICS,
        *,
        compute_loss: ComputeLoss | None = None,
    ) -> None:
        if not callable(getattr(model, "generate", None)):
            raise ConfigError(
                f"VQAEvaluator needs a model that can generate, but "
                f"{type(model).__name__} has no generate(); use Evaluator"
            )
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.num_beams = num_beams
        self.metrics = checked_metrics(metrics, METRICS)
        self._texts = AnswerTexts(processor)
        self._runner = ModelRunner(model, device, compute_loss=compute_loss)

    @property
    def device(self) -> torch.device | None:
        """The device that was asked for; None: where the model is."""
        return self._runner.device

    def metric_names(self, dataloader: Iterable[Any]) -> tuple[str, ...] | None:
        """Return the keys of the numbers that ``evaluate`` returns.

        None if the kinds of rows cannot be known before, which takes a
        ``dataloader.dataset`` with ``rows``.
        """
        names = ["val_loss", *(name for name in self.metrics if name != "loss")]
        if "accuracy" in names:
            rows = getattr(getattr(dataloader, "dataset", None), "rows", None)
            if not isinstance(rows, (list, tuple)):
                return None
            names += sorted(
                {_kind_name(row["kind"]) for row in rows if row.get("kind")}
            )
        return tuple(names)

    def evaluate(
        self, dataloader: Iterable[Any], return_predictions: bool = False
    ) -> dict[str, Any]:
        """Return the metrics of the model on ``dataloader``.

        Args:
            dataloader: yields mappings for the model; a batch's ``rows`` (dicts with
                ``answer`` and, where there are, ``answers`` and ``kind``) say what is
                right, or else its decoded ``labels``.
            return_predictions: add ``predictions`` and ``labels`` (texts, in order) and
                ``records``: each row with its prediction and scores.
        Raises:
            DataError: the loader gave no batch.
            ConfigError: a batch is no mapping, or the model returns no loss.
        """
        device = self._runner.place()
        loss, records = WeightedMean(), list[dict[str, Any]]()
        needs_answers = return_predictions or self.metrics != ("loss",)
        num_batches = 0
        # Not inference_mode: a tensor that a module caches would break training.
        with evaluating(self.model), torch.no_grad():
            sizes = sample_sizes(dataloader)
            for batch, samples in zip(dataloader, sizes, strict=False):
                num_batches += 1
                loss.add(*self._loss(batch, device, samples))
                if needs_answers:
                    records += self._answer(batch, device)
        check_not_empty(num_batches)
        results: dict[str, Any] = {"val_loss": loss.value()}
        results |= self._scores(records)
        if return_predictions:
            results["predictions"] = [record["prediction"] for record in records]
            results["labels"] = [record["answer"] for record in records]
            results["records"] = records
        return results

    def _loss(
        self, batch: Any, device: torch.device, samples: int | None
    ) -> tuple[Tensor, float]:
        if not isinstance(batch, Mapping) or "labels" not in batch:
            raise ConfigError(
                f"VQAEvaluator needs mappings with 'labels', but a batch is "
                f"{type(batch).__name__}; use Evaluator"
            )
        loss, weight, outputs = self._runner.loss_and_outputs(batch, device, samples)
        if loss is None:
            raise ConfigError(
                f"the model returned {type(outputs).__name__} without a loss; use a "
                "model that returns one for a batch with 'labels'"
            )
        return loss, weight

    def _answer(
        self, batch: Mapping[str, Any], device: torch.device
    ) -> list[dict[str, Any]]:
        """Return the rows of a batch with predictions and scores."""
        ids = self.model.generate(  # type: ignore[operator]
            **question_of(batch_to_device(batch, device)),
            max_new_tokens=self.max_new_tokens,
            num_beams=self.num_beams,
            do_sample=False,
        )
        predictions = self._texts.decode(ids)
        rows: Sequence[Mapping[str, Any]] | None = getattr(batch, "rows", None)
        if rows is None:
            labels = self._texts.of_labels(batch["labels"])
            rows = [{"answer": label, "_is_decoded": True} for label in labels]
        return [
            self._record(row, prediction)
            for row, prediction in zip(rows, predictions, strict=True)
        ]

    def _record(self, row: Mapping[str, Any], prediction: str) -> dict[str, Any]:
        answer = str(row["answer"])
        is_decoded = row.get("_is_decoded", False)
        reference = answer if is_decoded else self._texts.reference(answer)
        answers = row.get("answers") or ()
        if len(answers) > 1:
            score = vqa_accuracy(prediction, answers)
        else:
            right = {normalise(answer), normalise(reference)}
            score = float(normalise(prediction) in right)
        return {
            **{name: value for name, value in row.items() if name != "_is_decoded"},
            "prediction": prediction,
            "accuracy": score,
            "exact_match": float(prediction == reference),
        }

    def _scores(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the means of accuracy, exact match, and accuracy of each kind."""
        groups: dict[str, list[float]] = {}
        for record in records:
            for metric in ("accuracy", "exact_match"):
                if metric in self.metrics:
                    groups.setdefault(metric, []).append(record[metric])
            if "accuracy" in self.metrics and record.get("kind"):
                name = _kind_name(record["kind"])
                groups.setdefault(name, []).append(record["accuracy"])
        return {name: sum(scores) / len(scores) for name, scores in groups.items()}


def _kind_name(kind: str) -> str:
    """Return the metric's name of a kind: ``"yes/no"`` is ``accuracy/yes_no``."""
    slug = "".join(c if c.isalnum() else "_" for c in str(kind).strip()).lower()
    return f"accuracy/{slug}"
