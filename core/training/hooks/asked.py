"""Hooks that no event of a run fires: a plugin or a command asks in its own time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from training.hooks.hook_api import hookspec, is_hook

if TYPE_CHECKING:
    from training.planned.planned_run import Plan, PlannedRun
    from training.view import TrainerView


@hookspec
def plan_evaluations(run: PlannedRun) -> Iterable[int] | None:
    """Name the steps after which ``evaluate`` would measure, before ``plan``.

    State: there is no trainer and no data; only counts.
    Args:
        run: how long it is; ``epoch_ends``, ``every(steps)`` and ``total_steps`` help.
    Returns: step numbers; None, as without this hook: at each epoch's end and at the
        end of the run.
    Order: none promised.
    Errors: there is no plan, and the plugin is named.
    """


@hookspec
def plan(run: PlannedRun) -> Plan | None:
    """Say what this plugin would do in a run, without doing any of it.

    State: there is no trainer and no data; only counts, and when it is evaluated.
    Args:
        run: how long it is, and when what is measured.
    Returns: lines, files and conflicts, or None for nothing to say.
    Order: none promised; the plan shows plugins as the configuration lists them.
    Errors: there is no plan, and the plugin is named.
    """


@hookspec
def resume_candidates(
    trainer: TrainerView,
) -> Iterable[tuple[Path, str | None]] | None:
    """Offer the checkpoints that a run may go on from, for ``--resume auto``.

    State: the trainer is ready to train; nothing has fired, and nothing is restored.
    Args:
        trainer: the run that is to go on; read ``save_dir``.
    Returns: files, the best choice first, each with None or what is wrong with it; the
        first one that can be read is loaded, and the others are told of. None or
        nothing: there is none yet.
    Order: of several listeners the one whose first sound file has come furthest goes
        first; of equals bus order decides.
    Errors: the run does not start, whatever ``on_failure`` says.
    """


@hookspec
def needed_checkpoints(trainer: TrainerView) -> Iterable[int] | None:
    """Name the steps whose checkpoints must stay, before a writer deletes any.

    State: any boundary, or the end of the run; whoever deletes asks for it with
        ``trainer.bus.collect("needed_checkpoints", trainer=trainer)``.
    Args:
        trainer: the running trainer.
    Returns: values of ``trainer.step``, of which what all plugins need is kept; None
        needs nothing.
    Order: none promised.
    Errors: raised in the plugin that asked, whatever ``on_failure`` says: nothing is
        deleted.
    """


@hookspec(firstresult=True)
def find_checkpoint(trainer: TrainerView, step: int) -> Path | None:
    """Find a checkpoint of this run's state at ``step``, whenever a plugin asks.

    State: any; whoever asks calls ``trainer.bus.find_checkpoint(trainer, step)``, which
        is None while nobody listens.
    Args:
        trainer: the running trainer.
        step: ``trainer.step`` of the state that is looked for.
    Returns: a complete file, whose list and content agree, or None; the first non-None
        result wins.
    Order: listeners run in bus order until one returns a path.
    Errors: raised in the plugin that asked.
    """


@hookspec
def summary(trainer: TrainerView) -> Mapping[str, Any] | None:
    """Say what this plugin leaves behind, for the record of a run and who watches it.

    State: the run has ended, well or not, and ``on_close`` is still to come; or any
        boundary, at which a person is shown what there is so far.
    Args:
        trainer: the trainer of that run.
    Returns: JSON values by name, or None. ``"best"``: the best value of each metric
        that it watches; ``"paths"``: what is where, by label. Whatever else it holds
        stands in the record under the plugin's name.
    Order: bus order: of two paths with one label the first one stands.
    Errors: the record is written without the answers. Then the run ends as it does with
        an error in ``on_train_end``; but of a run that had failed already, and where
        somebody is shown how far one is, it is a warning.
    """


@hookspec
def on_predictions(trainer: TrainerView, records: Sequence[Mapping[str, Any]]) -> None:
    """Fire when a plugin that evaluates has predicted rows: the place to show some.

    State: within ``evaluate``, whose metrics are still to come; whoever predicts calls
        ``trainer.bus.on_predictions(trainer, records)``, which is None while nobody
        listens.
    Args:
        trainer: the running trainer; its ``recipe`` knows what a row holds.
        records: the rows in the loader's order, of several processes those of all:
            each with its ``prediction`` and scores, with how sure the family is where
            predictions are kept, and its ``loader`` if there are several; do not
            modify, nor keep more than is needed.
    Returns: ignored.
    Order: none promised.
    Errors: raised in the plugin that evaluates, unless the listener is isolated.
    """


@hookspec
def evaluation_progress(
    trainer: TrainerView, done: int, total: int | None, loader: str
) -> None:
    """Hear how far an evaluation is, from whoever measures batch by batch.

    State: as in ``evaluate``, which is under way; whoever measures calls
        ``trainer.bus.evaluation_progress(trainer, done, total, loader)``, which is None
        while nobody listens, before the first batch and after each.
    Args:
        trainer: the running trainer.
        done: batches of this loader that are measured, from 0.
        total: its batches; None for a loader without a length.
        loader: its name among several; ``""`` for the only one.
    Returns: ignored.
    Order: none promised between plugins.
    Errors: raised in the plugin that measures.
    """


#: Whose answer is never missed: a file would be lost, or a run begun afresh.
NEVER_MISSED: Final = ("needed_checkpoints", "resume_candidates")
#: Their names, in the order in which a run comes to be asked.
ASKED: Final = tuple(n for n, v in list(globals().items()) if is_hook(v))
