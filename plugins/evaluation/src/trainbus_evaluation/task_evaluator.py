"""Evaluate what a configuration trains: a task's scores of a family's predictions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from trainbus_evaluation.evaluator import placed
from trainbus_evaluation.forward import ComputeLoss, ModelRunner
from trainbus_evaluation.generated import longest_answer
from trainbus_evaluation.metrics import LossMeans
from trainbus_evaluation.own_metrics import Metric, checked_metrics, own_results
from trainbus_evaluation.warned import WarnOnce
from training import ConfigError, checked_options
from training.plugin import (
    attribute_of,
    followed_options,
    slug,
    strategy_of,
)

#: Options of generated predictions, for a family whose ``predict`` takes them; beside
#: another family whatever differs from these is refused.
GENERATION = {"max_new_tokens": None, "num_beams": 1}


class TaskEvaluator:
    """Measure validation loss, and what a task scores of the predictions of its rows.

    A metric is the mean of the task's scores over rows; the first of its metrics is
    also reported by ``kind``, as in ``accuracy/<kind>``, where rows have one. One of
    your own is given two lists, of the rows that say what is right and in their order:
    what was predicted, and that target. A function ``(predictions, targets)`` returns
    the number; an object is reset, has one ``update`` with both, and computes it.

    Args:
        model: returns ``loss`` for a batch with labels.
        recipe: task, family and processor, such as a trainer's.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"``; None: where the model is.
        max_new_tokens: longest prediction in tokens, where predictions are generated;
            None: the family's own length.
        num_beams: 1 decodes greedily.
        metrics: which of ``loss`` and the task's metrics to measure, and your own, or
            their ``./file.py:NAME``; None: all of the task. The loss always is, and
            without the others nothing is predicted.
        compute_loss: ``batch -> (loss, weight)``, such as a trainer's method; by
            default the model's own loss.
    Raises:
        ConfigError: an argument does not fit.
    """

    @checked_options
    def __init__(
        self,
        model: nn.Module,
        recipe: Any,
        device: str | torch.device | None = None,
        max_new_tokens: Annotated[int, Ge(1)] | None = None,
        num_beams: Annotated[int, Ge(1)] = 1,
        metrics: Sequence[Metric] | None = None,
        *,
        compute_loss: ComputeLoss | None = None,
    ) -> None:
        known = ("loss", *recipe.task.metrics)
        self._start(model, known if metrics is None else metrics, known)
        self._runner = ModelRunner(model, device, compute_loss=compute_loss)
        self._recipe = recipe
        given = {"max_new_tokens": max_new_tokens, "num_beams": num_beams}
        self._options = followed_options(recipe.family, given)
        for name, usual in GENERATION.items():
            if name not in self._options and given[name] != usual:
                kind = type(recipe.family).__name__
                raise ConfigError(
                    f"{name} is {given[name]}, but predictions of the family {kind} do "
                    "not follow it; leave it out, or set the family's own option, if "
                    "it has one, below model"
                )

    def _start(
        self,
        model: nn.Module,
        metrics: Sequence[Metric],
        known: Sequence[str],
    ) -> None:
        self.model = model
        chosen = checked_metrics(metrics, known)
        self.metrics = tuple(chosen)
        self._own = {name: own for name, own in chosen.items() if own is not None}
        #: The rows that were answered last, each with its prediction and scores.
        self.records: list[dict[str, Any]] = []
        self._warn_once = WarnOnce()
        #: The metric that is also reported by kind, if it is measured.
        self._by_kind = next((n for n in known[1:2] if n in self._shipped), "")

    @property
    def _shipped(self) -> list[str]:
        """The metrics that are scores of rows, and the loss."""
        return [name for name in self.metrics if name not in self._own]

    @property
    def device(self) -> torch.device | None:
        """The device that was asked for; None: where the model is."""
        return self._runner.device

    def metric_names(self, dataloader: Iterable[Any]) -> tuple[str, ...] | None:
        """Return the keys of the numbers that ``evaluate`` returns.

        None if the kinds of rows cannot be known before, which takes a
        ``dataloader.dataset`` with ``rows``; or what a ``step_fn`` may return.
        """
        if (parts := self._runner.part_names()) is None:
            return None
        names = ["val_loss", *parts, *(n for n in self.metrics if n != "loss")]
        if self._by_kind:
            rows = getattr(getattr(dataloader, "dataset", None), "rows", None)
            if not isinstance(rows, (list, tuple)):
                return None
            kinds = {row["kind"] for row in rows if row.get("kind")}
            names += sorted({self._kind_name(kind) for kind in kinds})
        return tuple(names)

    def evaluate(
        self, dataloader: Iterable[Any], return_predictions: bool = False
    ) -> dict[str, Any]:
        """Return the metrics of the model on ``dataloader``.

        Args:
            dataloader: yields mappings for the model, each with its ``rows``.
            return_predictions: add ``predictions`` and ``labels`` (what was predicted
                and what is right, in order) and ``records``: each row with its
                prediction, scores, and how sure the family is, if it tells.
        Raises:
            DataError: the loader gave no batch.
            ConfigError: a batch is no mapping, the model returns no loss, or a metric
                of your own no number.
        """
        device = self._runner.place()
        loss, answers = LossMeans(), list[list[dict[str, Any]]]()
        needs_answers = return_predictions or tuple(self.metrics) != ("loss",)
        with self._runner.evaluating():
            for batch, moved, samples, counts in placed(dataloader, device):
                mean, weight = self._loss(batch, moved, device, samples)
                loss.add(mean, weight if counts else 0.0, self._runner.parts)
                if needs_answers:
                    answered = self._answer(batch, moved, return_predictions)
                    answers.append(answered if counts else [])
        strategy = strategy_of(dataloader)
        loss.unite(strategy)
        # Batch by batch, and in each by rank: that is the loader's order.
        of_batches = zip(*strategy.gather(answers), strict=True)
        records = [row for parts in of_batches for part in parts for row in part]
        self.records = records
        results: dict[str, Any] = {"val_loss": loss.value(), **loss.parts()}
        results |= self._scores(records)
        if self._own:  # one process computes, so that all have the same bits
            results |= strategy.on_main(lambda: self._own_results(records))
        if return_predictions:
            results["predictions"] = [record["prediction"] for record in records]
            results["labels"] = [record.get(self._target) for record in records]
            results["records"] = records
        return results

    @property
    def _target(self) -> str:
        return str(self._recipe.task.target)

    def _loss(
        self, batch: Any, moved: Any, device: torch.device, samples: int | None
    ) -> tuple[Tensor, float]:
        if not isinstance(batch, Mapping) or attribute_of(batch, "rows") is None:
            raise ConfigError(
                f"TaskEvaluator needs mappings with rows, but a batch is "
                f"{type(batch).__name__}; use Evaluator"
            )
        if attribute_of(batch, "loss_weight") == 0:
            return torch.zeros(()), 0.0  # nothing in it is labelled
        return self._weighed(batch, moved, device, samples)

    def _weighed(
        self, batch: Any, moved: Any, device: torch.device, samples: int | None
    ) -> tuple[Tensor, float]:
        loss, weight, outputs = self._runner.loss_and_outputs(
            batch, moved, device, samples
        )
        if loss is None:
            raise ConfigError(
                f"the model returned {type(outputs).__name__} without a loss; use a "
                "model that returns one for a batch with 'labels'"
            )
        return loss, weight

    def _answer(
        self, batch: Mapping[str, Any], moved: Mapping[str, Any], is_kept: bool
    ) -> list[dict[str, Any]]:
        """Return the rows of a batch with predictions and scores.

        Args:
            batch: has rows.
            moved: the same on the device.
            is_kept: whether to ask how sure the family is, too.
        """
        if "decoder_input_ids" in batch:  # else labels may cover the question, too
            most = self._options.get("max_new_tokens")
            self._warn_of_cut(batch, self._recipe.processor, most)
        rows: Sequence[Mapping[str, Any]] = batch.rows  # type: ignore[attr-defined]
        given = self.model, moved, len(rows)
        if is_kept:
            answers = self._recipe.answer(*given, **self._options)
        else:
            said = self._recipe.predict(*given, **self._options)
            answers = [{"prediction": prediction} for prediction in said]
        return [
            {**row, **answer, **self._scored(row, answer["prediction"])}
            for row, answer in zip(rows, answers, strict=True)
        ]

    def _warn_of_cut(
        self, batch: Mapping[str, Any], processor: Any, most: int | None
    ) -> None:
        """Tell, once, of an answer that is learnt and is too long to be generated.

        Args:
            batch: may have labels.
            processor: of the model.
            most: tokens that are generated at most; None: as many as are learnt.
        """
        if most is None:
            return
        needed = longest_answer(batch, processor) - 1  # the start may be a label
        if needed - 1 > most:  # the end alone may lack
            self._warn_once(
                "max_new_tokens is %d, but a right answer takes %d with its end: no "
                "prediction can equal it; leave max_new_tokens out, or raise it",
                most, needed,
            )  # fmt: skip

    def _scored(self, row: Mapping[str, Any], prediction: Any) -> dict[str, float]:
        """Return the task's scores of one row; none where nothing is labelled."""
        if self._target not in row:
            return {}
        family, processor = self._recipe.family, self._recipe.processor
        echo = family.echo(processor, row[self._target])
        task = self._recipe.task
        found = task.score(prediction, {**row, "echo": echo})
        return _checked_scores(task, "score", found)

    def _scores(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the means of all scores, of the first metric by kind, and the rest."""
        task, found = self._recipe.task, self._means(records)
        summary = _checked_scores(task, "summarise", task.summarise(records))
        found |= {name: v for name, v in summary.items() if name in self._shipped}
        missing = [n for n in self._shipped if n != "loss" and n not in found]
        if missing and any(self._target in record for record in records):
            self._warn_once(
                "the task %s declares the metric %r, but neither its score nor its "
                "summarise returned it for any of the rows that were measured; return "
                "it, or take it out of metrics",
                *(type(task).__name__, missing[0]),
            )
        return found

    def _own_results(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the metrics of one's own; none where no row says what is right."""
        target = self._target
        judged = [record for record in records if record.get(target) is not None]
        if not judged:
            return {}
        predictions = [record["prediction"] for record in judged]
        return own_results(self._own, predictions, [each[target] for each in judged])

    def _means(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the mean of each metric over the records that have it."""
        groups: dict[str, list[float]] = {}
        kinds: dict[str, dict[str, None]] = {}  # metric -> those that it is of
        for record in records:
            for metric in self._shipped:
                if metric in record and metric != "loss":
                    groups.setdefault(metric, []).append(record[metric])
            if self._by_kind and record.get("kind"):
                name = self._kind_name(record["kind"])
                kinds.setdefault(name, {})[str(record["kind"])] = None
                if self._by_kind in record:
                    groups.setdefault(name, []).append(record[self._by_kind])
        self._warn_of_merged(kinds)
        return {name: sum(scores) / len(scores) for name, scores in groups.items()}

    def _warn_of_merged(self, kinds: Mapping[str, Collection[str]]) -> None:
        """Tell, once, which kinds have a name in common."""
        told = [f"{', '.join(map(repr, same))} as {name}"
                for name, same in kinds.items() if len(same) > 1]  # fmt: skip
        if told:
            self._warn_once(
                "kinds of rows are measured together where they differ in case and in "
                "what is no letter or digit only: %s; call them otherwise to tell them "
                "apart",
                "; ".join(told),
            )

    def _kind_name(self, kind: Any) -> str:
        """Return the metric's name of a kind: ``"yes/no"`` is ``accuracy/yes_no``."""
        return f"{self._by_kind}/{slug(kind)}"


def _checked_scores(task: Any, method: str, found: Any) -> dict[str, Any]:
    """Return what ``score`` or ``summarise`` of a task returned.

    Raises:
        ConfigError: it is no mapping of names to numbers.
    """
    if not isinstance(found, Mapping) or not all(map(_reads_as_number, found.values())):
        raise ConfigError(
            f"{method} of the task {type(task).__name__} returned {found!r}; "
            "return a mapping of metrics to numbers"
        )
    return dict(found)


def _reads_as_number(value: Any) -> bool:
    """Whether it is one, of whatever library; a text that reads as one is none."""
    if isinstance(value, (str, bytes)):
        return False
    try:
        float(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return True
