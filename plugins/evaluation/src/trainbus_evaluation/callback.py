"""Run an evaluator during training and hand its numbers to the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Le, Lt, MinLen

from trainbus_evaluation.classes import NoLabelError
from trainbus_evaluation.evaluator import Evaluator, check_not_empty
from trainbus_evaluation.forward import is_same_device
from trainbus_evaluation.given import check_given, warn_of_another_model
from trainbus_evaluation.numbers import name_in_run, numbers_of
from trainbus_evaluation.own_metrics import Metric, as_listed, named
from trainbus_evaluation.reading import WhileStaying
from trainbus_evaluation.sanity import (
    FirstBatches,
    first_batches,
    without_trace,
)
from trainbus_evaluation.task_evaluator import TaskEvaluator
from trainbus_evaluation.vqa_evaluator import METRICS as VQA_METRICS
from trainbus_evaluation.vqa_evaluator import VQAEvaluator
from training import ConfigError, DataError, checked_options
from training.callbacks import Callback
from training.plugin import (
    Plan,
    checked_answer,
    count,
    draw_as_if_new,
    heard_if,
    lacks_gradients,
    loaders_by_name,
    merge_metrics,
    reading_validation,
    share_of,
)

if TYPE_CHECKING:
    from training import Trainer
    from training.plugin import PlannedRun


class EvaluationCallback(Callback):
    """Evaluate on the validation loader at epoch ends, and every so many steps.

    Without ``evaluator`` a ``TaskEvaluator`` measures what a configuration describes,
    by the trainer's ``recipe``. Without that a ``VQAEvaluator`` measures a model that
    can generate when the trainer has a processor, else an ``Evaluator``; all take the
    loss from ``trainer.compute_loss``, so that it is the training loss on other data.
    The evaluator's ``loss`` is ``val_loss`` in the run; other names stay. What a
    ``step_fn`` returns beside it is ``val_<name>``. Of several
    validation loaders each is evaluated, and its name follows each metric's, as in
    ``val_loss/clean``. All forward passes, those of answers that are generated too,
    run under the run's autocast. The last epoch, and the last step under
    ``max_steps``, are always evaluated.

    Before training the evaluator is called once with the first batches, so that what
    it gets wrong costs no epoch. Nothing of that stays: no metric, number or buffer.

    Args:
        evaluator: any object with ``evaluate(dataloader) -> mapping``, called in eval
            mode without gradients; values that are no numbers are dropped. Without a
            ``metric_names(dataloader)`` its names are those the first batches give.
        metrics: what the evaluator that is built measures, the loss always among it:
            ``loss``, metrics of the run's task, or of ``VQAEvaluator`` or
            ``Evaluator``, and your own, as these take them: ``./file.py:NAME`` of a
            function ``(outputs, targets) -> number``, or of a class with ``update``,
            ``compute`` and ``reset``; in Python also the function, or an object. None:
            all of a task and of ``VQAEvaluator``, only the loss of ``Evaluator``.
        every_n_epochs: epochs between evaluations; None or 0: only the last one.
        every_n_steps: steps between further evaluations; None: none.
        max_new_tokens: longest generated answer, in tokens; None: as long as the model
            family learns, or as ``VQAEvaluator`` has it.
        num_beams: beams of generated answers; 1 is greedy.
        keep_predictions: keep the last evaluation's rows in ``predictions``; those of
            several loaders say in ``loader`` which they are of.
        class_dim: the dimension of logits that counts classes; see ``Evaluator``.
        shift_labels: whether logit t is of label t + 1; see ``Evaluator``.
        sanity_batches: batches of each loader that are evaluated before training; 0
            for none. A loader that keeps its position has none.
    Raises:
        ConfigError: an argument does not fit.
    """

    name = "evaluation"
    hook_api = ">=1.2,<2"
    produces: ClassVar[tuple[str, ...]] = (
        "val_loss",
        "accuracy",
        "exact_match",
        "f1",
        "mae",
        "mse",
    )
    chooses_metrics: ClassVar = {"metrics": ("loss", "./file.py:NAME")}

    @checked_options
    def __init__(
        self,
        evaluator: Any = None,
        metrics: Annotated[Sequence[Metric], MinLen(1)] | None = None,
        every_n_epochs: Annotated[int, Ge(0)] | None = 1,
        every_n_steps: Annotated[int, Ge(0)] | None = None,
        max_new_tokens: Annotated[int, Ge(1)] | None = None,
        num_beams: Annotated[int, Ge(1), Le(1000)] = 1,
        keep_predictions: bool = False,
        class_dim: int | None = None,
        sanity_batches: Annotated[int, Ge(0), Lt(2**63)] = 1,
        shift_labels: bool | None = None,
    ) -> None:
        if evaluator is not None:
            options = {"class_dim": class_dim, "shift_labels": shift_labels}
            check_given(evaluator, keep_predictions, metrics=metrics, **options)
        found = None if metrics is None else named(metrics)
        self.metrics = None if found is None else as_listed(found)
        if found is not None:  # no others then
            chosen = (name for name in found if name != "loss")
            self.produces = ("val_loss", *chosen)  # type: ignore[misc]
            checked_answer("metric_names", self.name, self.produces)
        self.every_n_epochs = every_n_epochs or 0
        self.every_n_steps = every_n_steps or 0
        self.max_new_tokens = max_new_tokens
        self.num_beams = num_beams
        self.keep_predictions = keep_predictions
        self.class_dim, self.shift_labels = class_dim, shift_labels
        self.sanity_batches = sanity_batches
        #: The last evaluation's rows, each with its prediction and scores.
        self.predictions: list[dict[str, Any]] = []
        self._given = evaluator
        self._evaluator: Any = evaluator
        #: Of each loader by name: itself, and what this process reads of it.
        self._shares: dict[str, tuple[Iterable[Any], Any]] = {}
        #: Names that the first batches gave; None where nobody looked.
        self._seen: list[str] | None = None

    def on_setup(self, trainer: Trainer) -> None:
        """Build the evaluator and try it out; refuse a run without validation data.

        Raises:
            ConfigError: no validation data, metrics that the evaluator does not have,
                an evaluator on another device than the run, or one that returns no
                numbers by name.
            DataError: a loader gives no batch.
        """
        if trainer.val_dataloader is None:
            raise ConfigError(
                "the plugin 'evaluation' needs validation data, but val_dataloader is "
                "None; pass val_dataloader=... (data.validation in a configuration), "
                "or leave the plugin out"
            )
        given = self._given
        self._evaluator = self._build(trainer) if given is None else given
        device = getattr(self._evaluator, "device", None)
        if isinstance(device, torch.device) and not is_same_device(
            device, trainer.device
        ):
            raise ConfigError(
                f"the evaluator's device is '{device}', but the run is on "
                f"'{trainer.device}'; leave the evaluator's device out"
            )
        if given is not None:
            warn_of_another_model(given, trainer)
        if isinstance(self._evaluator, Evaluator):
            self._evaluator.require_united(trainer.strategy)
        self._seen = self._try_out(trainer) if self.sanity_batches else None

    def metric_names(self, trainer: Trainer) -> list[str] | None:
        """Return what will be measured; None if only the evaluator's result tells."""
        names_of = getattr(self._evaluator, "metric_names", None)
        if not callable(names_of):
            return self._seen
        names: list[str] = []
        for place, loader in loaders_by_name(trainer.val_dataloader).items():
            own = names_of(loader)
            if own is None:
                return None
            names += [name_in_run(name, place) for name in own]
        return names

    def plan_evaluations(self, run: PlannedRun) -> set[int]:
        """Return the steps after which a run of that length is evaluated."""
        if not run.has_validation:
            return set()
        every = self.every_n_epochs
        ends = run.epoch_ends[every - 1 :: every] if every else ()
        return {*ends, *run.every(self.every_n_steps), run.total_steps}

    def plan(self, run: PlannedRun) -> Plan:
        """Return which settings do not go together with the run."""
        name = run.name_of(self)
        missing = f"{name} is enabled, but data.validation names no rows"
        every, option = self.every_n_steps, f"{name}.every_n_steps"
        steps = run.length_conflicts(every, "step", option)
        every, option = self.every_n_epochs, f"{name}.every_n_epochs"
        epochs = run.length_conflicts(every, "epoch", option)
        return Plan(
            conflicts=[*([] if run.has_validation else [missing]), *steps, *epochs]
        )

    @heard_if(lambda self: self.every_n_steps)
    def on_step_end(self, trainer: Trainer) -> None:
        """Ask for an evaluation when one is due by steps."""
        if not self.every_n_steps or trainer.step % self.every_n_steps:
            return
        # Twice at one step would count twice for whoever counts checks. Where a run
        # ends inside an epoch it is asked for: one with more steps would measure there.
        if not (trainer.ends_epoch and self._is_chosen(trainer.epoch + 1)):
            trainer.request_evaluation(f"every {count(self.every_n_steps, 'step')}")

    def evaluate(self, trainer: Trainer, reason: str) -> dict[str, float] | None:
        """Return the metrics, or None at an epoch end that is not due."""
        return self.measure(trainer) if self.is_due(trainer, reason) else None

    def on_exception(self) -> None:
        """Kill the workers that read for this process: nobody waits for them."""
        self._end_shares(kills=True)

    def on_close(self) -> None:
        """Let go of the model, and of what this process reads of each loader."""
        self._evaluator = self._given  # what was built holds the whole trainer
        self._end_shares(kills=False)

    def _end_shares(self, kills: bool) -> None:
        while self._shares:
            _, (loader, share) = self._shares.popitem()
            if share is not loader:
                share.end_workers(kills)

    def is_due(self, trainer: Trainer, reason: str) -> bool:
        """Whether this boundary is evaluated."""
        is_last = trainer.epoch >= trainer.num_epochs or trainer.is_stopping
        return reason != "epoch_end" or is_last or self._is_chosen(trainer.epoch)

    def measure(self, trainer: Trainer) -> dict[str, float]:
        """Evaluate now, in the run's precision; return the numbers by their run names.

        Raises:
            ConfigError: the evaluator returned no mapping.
        """
        if self._evaluator is not None:
            return self._measured(trainer)
        self._evaluator = self._build(trainer)  # outside of a run, and for this alone
        try:
            return self._measured(trainer)
        finally:
            self.on_close()

    def _measured(self, trainer: Trainer) -> dict[str, float]:
        found: dict[str, float] = {}
        records: list[dict[str, Any]] = []
        is_ours = isinstance(self._evaluator, (Evaluator, TaskEvaluator))
        for name, loader in loaders_by_name(trainer.val_dataloader).items():
            given: Any = loader  # itself, where the evaluator is another's
            if is_ours:
                given = self._staying(trainer, loader, name)
            else:
                draw_as_if_new(loader)
            results = self._results(trainer, given, name)
            found |= numbers_of(results, name)
            label = {"loader": name} if name else {}
            records += [{**row, **label} for row in self._answered(results)]
        is_task = isinstance(self._evaluator, TaskEvaluator)
        self.predictions = records if self.keep_predictions or not is_task else []
        if records and trainer.bus.on_predictions is not None:
            trainer.bus.on_predictions(trainer, records)
        return found

    def _answered(self, results: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        """Return the rows that were answered just now, which nobody else keeps."""
        rows: list[dict[str, Any]] = []
        if isinstance(self._evaluator, TaskEvaluator):
            rows, self._evaluator.records = self._evaluator.records, rows
        kept: Sequence[dict[str, Any]] = results.get("records", rows)
        return kept

    def _staying(
        self, trainer: Trainer, loader: Iterable[Any], name: str
    ) -> WhileStaying:
        """Return this process's part of the loader, until the run leaves."""
        known = self._shares.get(name)
        # Kept, since its workers may persist from one evaluation to the next.
        if known is None or known[0] is not loader:
            known = self._shares[name] = loader, share_of(loader, trainer.strategy)
        return WhileStaying(trainer, known[1], name)

    def _results(self, trainer: Trainer, loader: Any, name: str) -> Mapping[str, Any]:
        """Return what the evaluator makes of one loader, whose name errors tell."""
        options = {"return_predictions": True} if self.keep_predictions else {}
        is_ours = isinstance(loader, WhileStaying)
        reading = reading_validation(
            loader.loader if is_ours else loader,
            name,
            lambda: loader.done if is_ours else None,
        )
        try:
            with reading, trainer.autocast():
                results = self._evaluator.evaluate(loader, **options)
        except Exception as error:
            if name:
                error.add_note(f"in the evaluation of val_dataloader[{name!r}]")
            raise
        if not isinstance(results, Mapping):
            raise ConfigError(
                f"the evaluator {type(self._evaluator).__name__} returned "
                f"{type(results).__name__}; return a mapping of names to numbers"
            )
        return results

    def _try_out(self, trainer: Trainer) -> list[str] | None:
        """Evaluate the first batches; return the names that this gives.

        None where a loader keeps its position, which a look would move, or where the
        first batches have no label: later ones may.
        """
        found: dict[str, float] = {}
        is_whole = True
        for name, loader in loaders_by_name(trainer.val_dataloader).items():
            with without_trace(trainer, loader):
                first = first_batches(loader, self.sanity_batches, name)
                if first is None:
                    return None
                place = f"val_dataloader[{name!r}]" if name else "val_dataloader"
                check_not_empty(len(first), place)
                try:
                    found |= self._first_numbers(trainer, first, name)
                except NoLabelError:
                    is_whole = False
        found = checked_answer("evaluate", self.name, found)
        merge_metrics([("trainer", {"train_loss": 0.0}), (self.name, found)])
        return list(found) if is_whole else None

    def _first_numbers(
        self, trainer: Trainer, first: FirstBatches, name: str
    ) -> dict[str, float]:
        try:
            results = self._results(trainer, first, name)
        except Exception as error:
            way = f"; {self.name}.sanity_batches: 0 leaves it out"
            # A row that cannot be used would be met again, at the epoch's end.
            is_lasting = lacks_gradients(error) or isinstance(error, DataError)
            error.add_note(
                "this was the first of the validation data, before training"
                f"{'' if is_lasting else way}"
            )
            raise
        numbers = numbers_of(results, name)
        if not numbers:
            kinds = {key: type(value).__name__ for key, value in results.items()}
            raise ConfigError(
                f"the evaluator {type(self._evaluator).__name__} returned no number, "
                f"but {kinds}; return numbers by name"
            )
        return numbers

    def _build(self, trainer: Trainer) -> Evaluator | TaskEvaluator:
        model, loss = trainer.model, trainer.compute_loss
        generates = callable(getattr(model, "generate", None))
        answers = trainer.processor is not None and generates
        if trainer.recipe is None and not answers:
            if self.keep_predictions:
                raise ConfigError(
                    "evaluation.keep_predictions needs a trainer with a processor and "
                    "a model that can generate"
                )
            return Evaluator(
                model,
                metrics=("loss", *(self.metrics or ())),
                compute_loss=loss,
                class_dim=self.class_dim,
                shift_labels=self.shift_labels,
            )
        for name in ("class_dim", "shift_labels"):
            if getattr(self, name) is not None:
                raise ConfigError(
                    f"evaluation.{name} is given, but it is of logits, and predictions "
                    "are measured; leave it out"
                )
        options = None, self.max_new_tokens, self.num_beams
        if trainer.recipe is not None:
            given = trainer.recipe, *options, self.metrics
            return TaskEvaluator(model, *given, compute_loss=loss)
        metrics = VQA_METRICS if self.metrics is None else self.metrics
        return VQAEvaluator(
            model, trainer.processor, *options, metrics, compute_loss=loss
        )

    def _is_chosen(self, epoch: int) -> bool:
        """Whether the end of ``epoch``, from 1, is evaluated in every run."""
        return bool(self.every_n_epochs) and epoch % self.every_n_epochs == 0
