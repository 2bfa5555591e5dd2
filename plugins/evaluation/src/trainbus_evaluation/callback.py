"""Run an evaluator during training and hand its numbers to the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from annotated_types import Ge, MinLen
from torch import Tensor

from trainbus_evaluation.evaluator import Evaluator
from trainbus_evaluation.forward import is_same_device
from trainbus_evaluation.vqa_evaluator import METRICS as VQA_METRICS
from trainbus_evaluation.vqa_evaluator import VQAEvaluator
from training.callbacks import Callback
from training.errors import ConfigError
from training.signals import iterate_shielded
from training.signature import checked_options

if TYPE_CHECKING:
    from training.trainer import Trainer


class EvaluationCallback(Callback):
    """Evaluate on the validation loader at epoch ends, and every so many steps.

    Without ``evaluator`` a ``VQAEvaluator`` measures a model that can generate when the
    trainer has a processor, else an ``Evaluator``; both take the loss from
    ``trainer.compute_loss``, so that it is the training loss on other data. The
    evaluator's ``loss`` is ``val_loss`` in the run; other names stay. The last epoch,
    and the last step under ``max_steps``, are always evaluated.

    Args:
        evaluator: any object with ``evaluate(dataloader) -> mapping``; values that are
            no numbers are dropped.
        metrics: names for the evaluator that is built, the loss always among them.
            None: all of ``VQAEvaluator``, only the loss of ``Evaluator``.
        every_n_epochs: epochs between evaluations; None or 0: only the last one.
        every_n_steps: steps between further evaluations; None: none.
        max_new_tokens: longest generated answer, in tokens.
        num_beams: beams of generated answers; 1 is greedy.
        keep_predictions: keep the last evaluation's rows in ``predictions``.
    Raises:
        ConfigError: an argument does not fit.
    """

    name = "evaluation"
    hook_api = ">=1.0,<2"
    produces = ("val_loss", "accuracy", "exact_match", "f1")

    @checked_options
    def __init__(
        self,
        evaluator: Any = None,
        metrics: Annotated[
            Sequence[Literal["loss", "accuracy", "f1", "exact_match"]], MinLen(1)
        ]
        | None = None,
        every_n_epochs: Annotated[int, Ge(0)] | None = 1,
        every_n_steps: Annotated[int, Ge(0)] | None = None,
        max_new_tokens: Annotated[int, Ge(1)] = 10,
        num_beams: Annotated[int, Ge(1)] = 1,
        keep_predictions: bool = False,
    ) -> None:
        if evaluator is not None:
            _check_evaluator(evaluator, metrics, keep_predictions)
        self.metrics = metrics
        self.every_n_epochs = every_n_epochs or 0
        self.every_n_steps = every_n_steps or 0
        self.max_new_tokens = max_new_tokens
        self.num_beams = num_beams
        self.keep_predictions = keep_predictions
        #: The last evaluation's rows, each with its prediction and scores.
        self.predictions: list[dict[str, Any]] = []
        self._given = evaluator
        self._evaluator: Any = evaluator

    def on_setup(self, trainer: Trainer) -> None:
        """Build the evaluator; refuse a run without validation data.

        Raises:
            ConfigError: no validation data, metrics that the evaluator does not have,
                or an evaluator on another device than the run.
        """
        if trainer.val_dataloader is None:
            raise ConfigError(
                "the plugin 'evaluation' needs validation data, but val_dataloader is "
                "None; pass val_dataloader=... (data.validation in a configuration), "
                "or leave the plugin out"
            )
        self._evaluator = self._given or self._build(trainer)
        device = getattr(self._evaluator, "device", None)
        if isinstance(device, torch.device) and not is_same_device(
            device, trainer.device
        ):
            raise ConfigError(
                f"the evaluator's device is '{device}', but the run is on "
                f"'{trainer.device}'; leave the evaluator's device out"
            )

    def metric_names(self, trainer: Trainer) -> list[str] | None:
        """Return what will be measured; None if only the evaluator's result tells."""
        names_of = getattr(self._evaluator, "metric_names", None)
        names = names_of(trainer.val_dataloader) if callable(names_of) else None
        return None if names is None else [_name_in_run(name) for name in names]

    def on_step_end(self, trainer: Trainer) -> None:
        """Ask for an evaluation when one is due by steps."""
        if not self.every_n_steps or trainer.step % self.every_n_steps:
            return
        if not self._is_due_soon(trainer):
            trainer.request_evaluation(f"every {self.every_n_steps} steps")

    def evaluate(self, trainer: Trainer, reason: str) -> dict[str, float] | None:
        """Return the metrics, or None at an epoch end that is not due."""
        return self.measure(trainer) if self.is_due(trainer, reason) else None

    def is_due(self, trainer: Trainer, reason: str) -> bool:
        """Whether this boundary is evaluated; reads counters only: a plan may ask."""
        return reason != "epoch_end" or self._is_epoch_due(trainer, trainer.epoch)

    def measure(self, trainer: Trainer) -> dict[str, float]:
        """Evaluate now, in the run's precision; return the numbers by their run names.

        Raises:
            ConfigError: the evaluator returned no mapping.
        """
        options = {"return_predictions": True} if self.keep_predictions else {}
        loader = trainer.val_dataloader
        if isinstance(self._evaluator, (Evaluator, VQAEvaluator)):
            loader = _while_staying(trainer)  # others get the loader itself
        with trainer.autocast():
            results = self._evaluator.evaluate(loader, **options)
        if not isinstance(results, Mapping):
            raise ConfigError(
                f"the evaluator {type(self._evaluator).__name__} returned "
                f"{type(results).__name__}; return a mapping of names to numbers"
            )
        self.predictions = list(results.get("records", ()))
        return {
            _name_in_run(name): float(value)
            for name, value in results.items()
            if _is_number(value)
        }

    def _build(self, trainer: Trainer) -> Evaluator | VQAEvaluator:
        model = trainer.model
        generates = callable(getattr(model, "generate", None))
        if trainer.processor is not None and generates:
            return VQAEvaluator(
                model,
                trainer.processor,
                None,
                self.max_new_tokens,
                self.num_beams,
                VQA_METRICS if self.metrics is None else self.metrics,
                compute_loss=trainer.compute_loss,
            )
        if self.keep_predictions:
            raise ConfigError(
                "evaluation.keep_predictions needs a trainer with a processor and a "
                "model that can generate"
            )
        metrics = ("loss", *(self.metrics or ()))
        return Evaluator(model, metrics=metrics, compute_loss=trainer.compute_loss)

    def _is_epoch_due(self, trainer: Trainer, epoch: int) -> bool:
        """Whether the end of ``epoch`` (completed epochs, from 1) is evaluated."""
        is_last = epoch >= trainer.num_epochs or trainer.is_stopping
        return is_last or bool(self.every_n_epochs and epoch % self.every_n_epochs == 0)

    def _is_due_soon(self, trainer: Trainer) -> bool:
        """Whether this step ends an epoch or a run that is evaluated anyway.

        Twice at one step would count twice for whoever counts checks.
        """
        if trainer.step == trainer.max_steps:
            return True
        length = trainer.steps_per_epoch
        ends_epoch = length is not None and trainer.step % length == 0
        return ends_epoch and self._is_epoch_due(trainer, trainer.epoch + 1)


def _while_staying(trainer: Trainer) -> Iterator[Any]:
    """Yield the validation batches until a signal makes the run leave."""
    assert trainer.val_dataloader is not None
    for batch in iterate_shielded(trainer.val_dataloader):
        trainer.abandon_if_leaving()
        yield batch


def _check_evaluator(
    evaluator: Any, metrics: Sequence[str] | None, keep_predictions: bool
) -> None:
    if not callable(getattr(evaluator, "evaluate", None)):
        raise ConfigError(
            f"evaluator is {evaluator!r}, which has no evaluate(dataloader) method"
        )
    if metrics is not None:
        raise ConfigError(
            "evaluation.metrics is given beside an evaluator; set them on the evaluator"
        )
    if keep_predictions and not isinstance(evaluator, VQAEvaluator):
        raise ConfigError("evaluation.keep_predictions needs a VQAEvaluator")


def _name_in_run(name: str) -> str:
    return "val_loss" if name == "loss" else name


def _is_number(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.dim() == 0
    return isinstance(value, Real) and not isinstance(value, bool)
