"""Every event a plugin can listen to, in firing order.

The order of one run, written once and asserted by ``tests/loop/test_event_order.py``::

    make_strategy                             # first result, as the trainer is built
    wrap_model                                # a chain: each gets the last one's result
    wrap_dataloader                           # a chain, too, for each loader
    on_setup                                  # build what needs the trainer
    make_window                               # first result: what a step computes
    metric_names                              # collects: what `evaluate` will deliver
    (a checkpoint, if any, is restored here)
    on_train_begin
    for epoch:
        on_epoch_begin
        for window:
            for batch in window:
                on_batch_begin
                forward, loss, backward
                on_batch_end
            on_before_step                    # gradients are unscaled, not yet clipped
            clip, optimizer step, scaler update
            on_step_end                       # per-update LR schedules advance here
            if requested: evaluate -> on_metrics
            if requested or stopping: on_checkpoint
        evaluate                              # collects: each listener returns metrics
        on_metrics                            # deciders: plateau LR, early stopping
        on_epoch_end                          # observers: the history row is complete
        on_checkpoint                         # writers: they see everything above
    on_train_end
    on_exception                              # instead of the rest, on an error
    on_close                                  # always, every plugin

and what others ask for in their own time::

    plan_evaluations, plan                    # collect, for `trainbus plan`
    resume_candidates                         # collects, for `--resume auto`
    needed_checkpoints                        # collects, before a writer deletes
    find_checkpoint                           # first result, whenever a plugin asks
    summary, evaluation_progress              # for a run's record; how far it is
    on_predictions                            # rows that an evaluation predicted

An implementation names only the arguments it uses, without defaults; ``**kwargs`` stays
empty. Below are events; ``hooks.parts`` has what makes a run, ``hooks.asked`` the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from training.hooks.asked import (
    ASKED,
    evaluation_progress,
    find_checkpoint,
    needed_checkpoints,
    on_predictions,
    plan,
    plan_evaluations,
    resume_candidates,
    summary,
)
from training.hooks.hook_api import API_VERSION, PROJECT, hookimpl, hookspec, is_hook
from training.hooks.parts import (
    PARTS,
    make_strategy,
    make_window,
    wrap_dataloader,
    wrap_model,
)

if TYPE_CHECKING:
    from training.logs import LazyLogs
    from training.view import TrainerView

__all__ = [
    "API_VERSION",
    "HOOKS",
    "PROJECT",
    "evaluation_progress",
    "find_checkpoint",
    "hookimpl",
    "hookspec",
    "make_strategy",
    "make_window",
    "needed_checkpoints",
    "on_predictions",
    "plan",
    "plan_evaluations",
    "resume_candidates",
    "summary",
    "wrap_dataloader",
    "wrap_model",
]


@hookspec
def on_setup(trainer: TrainerView) -> None:
    """Fire once a run, before anything is restored and before the first batch.

    State: model, optimizer, device and the plan are final. Counters are 0; in a resumed
        run step, epoch and history are those of the checkpoint, and states of plugins,
        loss scale and generators are not there yet. ``max_grad_norm`` and ``nonfinite``
        may still be set. ``save_dir`` need not exist yet: who writes there makes it.
    Args:
        trainer: the run; read ``total_steps``, ``steps_per_epoch``, ``save_dir``.
    Returns: ignored.
    Order: bus order; state restored from a checkpoint arrives after this event.
    Errors: the run does not start: refuse options that do not fit the run here.
    """


@hookspec
def metric_names(trainer: TrainerView) -> Iterable[str] | None:
    """Name the metrics that this plugin's ``evaluate`` will deliver.

    State: as in ``on_setup``, which has fired.
    Args:
        trainer: the run.
    Returns: names; all plugins' names are merged, a name that two declare is an
        error, and consumers are checked against them before step 0. None says that
        they cannot be known, as does ``evaluate`` without this hook. At each epoch end
        at which every producer delivers, what is watched must be among what they
        deliver.
    Order: none promised.
    Errors: the run does not start; ``on_exception`` fires, then the error is raised.
    """


@hookspec
def on_train_begin(trainer: TrainerView, resumed: bool) -> None:
    """Fire once when training is about to start.

    State: counters are those of the restored checkpoint, or 0 in a fresh run.
    Args:
        trainer: the running trainer.
        resumed: True after ``load_checkpoint``; then keep restored state. False:
            start afresh, also when this instance has trained before.
    Returns: ignored.
    Order: none promised; another may refuse the run: write files in on_epoch_begin.
    Errors: the run ends; ``on_exception`` fires, then the error is raised.
    """


@hookspec
def on_epoch_begin(trainer: TrainerView) -> None:
    """Fire before the first batch of an epoch (after a resume: of its remainder).

    State: ``trainer.epoch`` counts completed epochs; this one is ``epoch + 1``. Of a
        remainder ``trainer.batches_seen`` is not 0: what is done once was done.
    Args:
        trainer: the running trainer.
    Returns: ignored.
    Order: none promised between plugins.
    Errors: the run ends; ``on_exception`` fires, then the error is raised.
    """


@hookspec
def on_batch_begin(trainer: TrainerView, batch: int, inputs: Any) -> None:
    """Fire before the forward pass of one batch.

    State: ``trainer.step`` does not yet count this batch's window.
    Args:
        trainer: the running trainer.
        batch: index of the batch in its epoch, from 0.
        inputs: the batch on the device, as the model will get it; weighed by now, so
            that labels are masked in ``wrap_dataloader``, not here.
    Returns: ignored.
    Order: none promised between plugins.
    Errors: the run ends; ``on_exception`` fires, then the error is raised.
    """


@hookspec
def on_batch_end(trainer: TrainerView, batch: int, logs: LazyLogs) -> None:
    """Fire after the backward pass of one batch.

    State: ``trainer.step`` does not yet count this batch's window.
    Args:
        trainer: the running trainer.
        batch: index of the batch in its epoch, from 0.
        logs: ``loss`` (mean of this batch), and what ``step_fn`` returned beside it;
            a read-only mapping. Reading a value copies it from the device once (a sync
            on CUDA); not reading is free. ``logs.later("loss")`` starts the copy and
            does not wait for it.
    Returns: ignored.
    Order: none promised between plugins.
    Errors: the run ends; ``on_exception`` fires, then the error is raised.
    """


@hookspec
def on_before_step(trainer: TrainerView) -> None:
    """Fire when a window's gradients are complete; change gradients here only.

    State: ``.grad`` of what the optimizer steps is the weighted mean over the window,
        unscaled, not clipped; ``trainer.step`` does not yet count the window.
    Args:
        trainer: the running trainer.
    Returns: ignored.
    Order: bus order; declare ``before``/``after`` where two plugins change gradients.
    Errors: the run ends before the weights change; ``on_exception`` fires.
    """


@hookspec
def on_step_end(trainer: TrainerView, logs: LazyLogs, applied: bool) -> None:
    """Fire after the optimizer has been asked to step, once a window.

    State: ``trainer.step`` counts this window; ``trainer.update`` does if ``applied``.
    Args:
        trainer: the running trainer; requests made here are granted right after.
        logs: ``loss`` (weighted mean of the window), and likewise what ``step_fn``
            returned beside it; ``lr`` (first group, the value used), ``grad_norm``
            (before clipping, only when clipping); read-only, read from the device on
            look-up, or with ``logs.later(name)`` behind it.
        applied: False when the update was skipped (scaler overflow, zero weight,
            non-finite and policy ``skip``); LR schedules advance only if True. To ask
            waits for the device under fp16 on CUDA: ask last, where it decides.
    Returns: ignored.
    Order: none promised between plugins. Saving belongs in ``on_checkpoint`` (see
        ``request_checkpoint``), and is refused here before another plugin with state,
        such as a schedule, has heard of the step; in a wrapper, behind its ``yield``.
    Errors: the run ends; ``on_exception`` fires, then the error is raised.
    """


@hookspec
def evaluate(trainer: TrainerView, reason: str) -> Mapping[str, float] | None:
    """Measure the model; fire at each epoch end and when evaluation was requested.

    State: at an epoch end ``trainer.epoch`` already counts the epoch. The model, and a
        loss that is a module, are in eval mode and no gradients are recorded (what
        needs them uses ``torch.enable_grad()``); after, each module has its own mode.
    Args:
        trainer: the running one, whose ``val_dataloader`` may map names to loaders.
        reason: at an epoch's end ``"epoch_end"``, or ``"max_steps"`` where the run ends
            inside one; then the reasons of ``request_evaluation``, joined by ``"; "``.
    Returns: metrics by name, or None when not due; results of all plugins are
        merged, and a name delivered twice is an error that names both.
    Order: none promised between plugins. Call ``trainer.abandon_if_leaving()`` between
        batches: a signal need not wait then.
    Errors: the run ends; ``on_exception`` fires, then the error is raised.
    """


@hookspec
def on_metrics(trainer: TrainerView, metrics: Mapping[str, float]) -> None:
    """Fire when fresh metrics exist: the place to decide.

    State: as in ``evaluate``; ``trainer.metrics`` also knows who measured when.
    Args:
        trainer: the running trainer; ``request_stop(reason)`` ends the run.
        metrics: read-only: what this evaluation delivered and, of a whole epoch,
            ``train_loss``. What is not there was not measured. By those that only
            ``max_steps`` has brought decide nothing: ``trainer.is_extra_evaluation``.
    Returns: ignored.
    Order: none promised; saving is refused at an epoch's end: its row is to come.
    Errors: the run ends; ``on_exception`` fires, then the error is raised.
    """


@hookspec
def on_epoch_end(trainer: TrainerView, metrics: Mapping[str, float]) -> None:
    """Fire after an epoch's evaluation and decisions: the place to report.

    State: ``trainer.epoch`` counts this epoch (1 after the first); not a part of one,
        as ``max_steps`` ends it (``trainer.is_extra_evaluation``): its end is to come.
    Args:
        trainer: the running trainer.
        metrics: the row just appended to ``trainer.history``; read-only.
    Returns: ignored.
    Order: none promised between plugins; saving belongs in ``on_checkpoint``, next,
        and is refused here before another plugin with state has heard of the epoch.
    Errors: the run ends; ``on_exception`` fires, then the error is raised.
    """


@hookspec
def on_checkpoint(trainer: TrainerView, reason: str) -> None:
    """Fire when state is whole and may be written: the place to save.

    State: a boundary: no partial gradients; every earlier event has finished. What is
        drawn from the global generators is put back.
    Args:
        trainer: ``save_checkpoint(path)`` writes all state; ``is_stopping`` tells
            whether this is the last boundary of the run.
        reason: ``"epoch_end"``, ``"stop"``, or the reasons given to
            ``request_checkpoint``, joined by ``"; "``. At an epoch's last step it fires
            twice if somebody asked there: for the epoch's end, then for what was asked.
    Returns: ignored.
    Order: none promised between plugins.
    Errors: the run ends; ``on_exception`` fires, then the error is raised.
    """


@hookspec
def on_train_end(trainer: TrainerView) -> None:
    """Fire once when training ended without an error, after the last checkpoint.

    State: ``trainer.stop_reason`` says why it ended.
    Args:
        trainer: the trainer; its weights may be replaced here (best weights).
    Returns: ignored.
    Order: bus order.
    Errors: ``on_exception`` fires, then the error is raised.
    """


@hookspec
def on_exception(trainer: TrainerView, error: BaseException) -> None:
    """Fire instead of the remaining events when something raised.

    State: counters are those of the last completed boundary or beyond.
    Args:
        trainer: the trainer.
        error: what was raised, also KeyboardInterrupt; it is re-raised afterwards.
    Returns: ignored; an observer cannot swallow the error.
    Order: every listener is called, also when another one fails.
    Errors: noted on the original error, which stays the one that is raised.
    """


@hookspec
def on_close(trainer: TrainerView) -> None:
    """Fire last, always, for every plugin: flush and release.

    State: whatever the run ended with; ``on_setup`` may not have been reached.
    Args:
        trainer: the trainer.
    Returns: ignored.
    Order: every listener is called, also when another one fails.
    Errors: the first one is raised after all have run, unless the run itself failed.
    """


_HERE = [name for name, value in globals().items() if is_hook(value)]
#: Hook names: of parts, of events in firing order, of what others ask for.
HOOKS: Final = (*PARTS, *(n for n in _HERE if n not in PARTS + ASKED), *ASKED)
