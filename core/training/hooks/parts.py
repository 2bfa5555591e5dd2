"""Hooks that make the parts of a run, or put something around them: once each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Literal

from training.hooks.hook_api import hookspec, is_hook

if TYPE_CHECKING:
    import torch

    from training.hardware.strategy import Strategy
    from training.view import TrainerView


@hookspec(firstresult=True)
def make_strategy(trainer: TrainerView) -> Strategy | None:
    """Choose by which processes the run is computed, while the trainer is built.

    State: arguments are checked and plugins registered; there is no run yet,
        ``device`` is what was asked for, and the model is where its owner left it.
    Args:
        trainer: its settings, ``model``, ``optimizer`` and ``plugins`` are there.
    Returns: an object of a subclass of ``training.plugin.Strategy``, or None to leave
        it to one process; the first non-None result wins.
    Order: listeners run in bus order until one returns something; a warning names the
        others.
    Errors: the trainer is not built, and no event fires.
    """


@hookspec
def wrap_model(trainer: TrainerView, model: torch.nn.Module) -> torch.nn.Module | None:
    """Wrap the module that the loop calls, once a run, before the first event.

    State: the model is on ``trainer.device``. Counters are 0; in a resumed run step,
        epoch and history are those of the checkpoint, and no plugin has its state yet.
    Args:
        trainer: the run that is being built; ``trainer.model`` stays the raw model.
        model: the module to wrap, for instance in ``DataParallel``: what the listener
            before returned, the raw model for the first one.
    Returns: the module to call in its place, or None to leave it as it is.
    Order: bus order, so that the last listener's wrapper is the outermost; declare
        ``before``/``after`` where it matters.
    Errors: the run does not start; ``on_exception`` fires, then the error is raised.
    """


@hookspec
def wrap_dataloader(
    trainer: TrainerView,
    dataloader: Iterable[Any],
    stage: Literal["train", "validation"],
) -> Iterable[Any] | None:
    """Replace a loader, once a run for each loader, before ``on_setup``.

    State: as in ``wrap_model``, which comes before.
    Args:
        trainer: the run that is being built.
        dataloader: the re-iterable of batches to replace: what the listener before
            returned, the user's own for the first one.
        stage: what it is for; of several validation loaders each comes by itself.
    Returns: the loader to use in its place, or None to leave it as it is.
    Order: bus order, so that the last listener's loader is read, which reads those
        before; declare ``before``/``after`` where it matters.
    Errors: the run does not start; ``on_exception`` fires, then the error is raised.
    """


@hookspec(firstresult=True)
def make_window(
    trainer: TrainerView, module: torch.nn.Module, default: type[Any]
) -> Callable[..., Any] | None:
    """Choose what accumulates batches and steps, once a run, after ``on_setup``.

    State: as in ``on_setup``, which has fired; no batch was fetched.
    Args:
        trainer: the run.
        module: what the loop will call: the model in its wrappers.
        default: the class that the kernel has chosen for optimizer and device:
            ``Window``, which reads each loss, or ``SingleWindow``, a short way of it
            where each batch is a step and no loss is scaled; where a read would wait
            ``NotedWindow``, which reads once a step, or ``UnreadWindow``.
    Returns: what makes the window from the arguments of ``Window``, as a rule a
        subclass of ``default`` (``training.plugin`` has them), or None to leave it;
        the first non-None result wins.
    Order: listeners run in bus order until one returns something; a warning names the
        others. On several processes only ``distributed`` makes a window that knows of
        the others: return None where ``trainer.world_size`` is not 1.
    Errors: the run does not start; ``on_exception`` fires, then the error is raised.
    """


#: Their names, in the order in which a run comes to ask.
PARTS: Final = tuple(n for n, v in list(globals().items()) if is_hook(v))
