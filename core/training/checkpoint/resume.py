"""Load a checkpoint into a trainer, or refuse before anything is touched."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from training.checkpoint.catch_up import CHANGED_BY_HOOKS
from training.checkpoint.comparison import POSITION_MOVES, Comparison, model_changes
from training.checkpoint.fitting import fitting_places
from training.checkpoint.optimizer_settings import adapt_to_absent, name_by_position
from training.checkpoint.optimizer_state import Names, fitted, names_of
from training.checkpoint.optimizer_types import follow_weights, load_as_saved
from training.checkpoint.receipt import REPLACED, RETURNED, Receipt, receipt_of
from training.checkpoint.resumption import Resumption
from training.checkpoint.settings import is_allowed
from training.checkpoint.state import check_loss, check_model, for_rank, restore_model
from training.errors import CheckpointError
from training.hardware.optimizer_kernels import WAYS, keep_kernels
from training.modules.optimizer_checks import PARAMETERS
from training.modules.plain_names import some

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable
    from training.loop.run_state import RunState

log = logging.getLogger(__name__)

#: A change of these leaves nothing to restore an optimizer's state into.
OPTIMIZER_IS_ANOTHER = {"optimizer", "optimizer.groups", "frozen"}


def restore(
    trainer: Checkpointable,
    loaded: RunState,
    state: dict[str, Any],
    source: str,
    allowed: Collection[str] = (),
) -> tuple[Receipt, Resumption]:
    """Take over of ``state`` what a person may look at, and park the rest.

    Nothing is touched unless all of it may be.

    Args:
        trainer: takes the state; its own settings hold where they differ.
        loaded: of the run that will go on; takes what is counted and measured.
        state: of a checkpoint; what was consented to is adapted in place.
        source: the checkpoint, for messages.
        allowed: names of settings that may differ.
    Raises:
        CheckpointError: the run differs where nobody consented, or does not fit.
    """
    # Weights first: of another model only what made it so is worth comparing.
    check_model(trainer.model, state, source, partial(model_changes, trainer, state))
    check_loss(trainer, state, source)
    name_by_position(trainer, state)
    # Before anything is adapted: it tells of the file as it is.
    notes = adapt_to_absent(trainer, state, source)
    comparison = Comparison(trainer, state, source, allowed, notes)
    saved, own, changes = state["settings"], comparison.own, comparison.changes
    receipt = receipt_of(trainer, state, changes, source)
    consented = {change.name for change in changes if is_allowed(change.name, allowed)}
    # After consent: of another optimizer the saved state is not looked at.
    places = None
    if not OPTIMIZER_IS_ANOTHER & consented:
        places = fitting_places(trainer, state, source)
    _regroup_as_configured(trainer)
    optimizer = None
    if places is None:
        _leave_optimizer(state)
    else:
        # The state is fitted to the run before it is parked for it.
        _adapt_options(trainer, state["optimizer"], places, consented)
        names = names_of(trainer)
        moments = _own_part(trainer, state, names)
        optimizer, left = fitted(moments, trainer.optimizer, names, places)
        loaded.joining_groups[:] = left
    for part in CHANGED_BY_HOOKS:
        if is_allowed(part, allowed):
            state.pop(part, None)
    if state["progress"]["batch"] and consented & POSITION_MOVES:
        _adapt_position(state, saved, own)
    # Free ones, too: who reads the log later sees what was not the same.
    for change in changes:
        log.info("resuming with a change: %s", change)
        if change.name == "validation":
            log.warning(
                "the validation rows are not those of checkpoint %r: the best values "
                "so far, with which new ones are compared, were measured on other "
                "rows; train into another save_dir for values of these rows alone",
                source,
            )
    if receipt.weights_are != "live":
        log.warning("checkpoint %r: %s", source, REPLACED.format(receipt.weights_are))
    for name in receipt.returned:
        log.warning("%s", RETURNED.format(name))
    # A unit that is said is compared at once; a measured one, on the first batch.
    loaded.weigher.take_over(saved.get("loss_per"), is_allowed("loss_per", allowed))
    restore_model(trainer, state)
    if optimizer is not None:
        _load_optimizer(trainer, optimizer, source)
    trainer.criterion.load_state_dict(state.get("loss", {}))
    loaded.load_state_dict(for_rank(trainer, state, own["seed"]))
    return receipt, Resumption(trainer, state, comparison)


def _own_part(
    trainer: Checkpointable, state: Mapping[str, Any], names: Names
) -> dict[str, Any]:
    """Return the optimizer's state as its parameters are: typed, in parts, or whole."""
    saved = state["optimizer"]
    numbers = [number for g in saved["param_groups"] for number in g["params"]]
    known = {name: parameter for parameter, name in names.items()}
    own = [known.get(name) for group in saved["names"] for name in group]
    like = dict(zip(numbers, own, strict=True))
    weights = {
        f"{part}.{name}": value
        for part in ("model", "loss")
        for name, value in state.get(part, {}).items()
    }
    typed = follow_weights(saved["state"], weights, like, names)
    return {**saved, "state": trainer.strategy.own(typed, like)}


def _load_optimizer(
    trainer: Checkpointable, state: dict[str, Any], source: str
) -> None:
    try:
        load_as_saved(trainer.optimizer, state)
    except ValueError as error:
        raise CheckpointError(
            f"checkpoint {source!r} does not fit this optimizer ({error}); build it as "
            "it was, or load with weights_only=True"
        ) from error
    # load_state_dict has put the saved way to compute in place of this run's.
    keep_kernels(trainer.optimizer, trainer.configured_groups or ())


def _regroup_as_configured(trainer: Checkpointable) -> None:
    """Take groups out that joined an earlier run of this trainer, and mend others."""
    configured, optimizer = trainer.configured_groups or (), trainer.optimizer
    for group, own in zip(optimizer.param_groups, configured, strict=False):
        group |= {name: list(own[name]) for name in PARAMETERS if name in own}
    late = optimizer.param_groups[len(configured) :]
    if late:
        del optimizer.param_groups[len(configured) :]
        known = {p for group in configured for p in group["params"]}
        parameters = [p for g in late for p in g["params"] if p not in known]
        for parameter in parameters:
            # torch's state_dict() fails on a state whose parameter is in no group.
            optimizer.state.pop(parameter, None)
        names = names_of(trainer)
        log.warning(
            "left the optimizer, having joined it in an earlier run: %s",
            some([names.get(parameter, "?") for parameter in parameters]),
        )


def _leave_optimizer(state: dict[str, Any]) -> None:
    """Let another optimizer start afresh."""
    for part in ("optimizer", *CHANGED_BY_HOOKS):
        state.pop(part, None)
    log.warning("the optimizer is another one; its state starts afresh")


def _adapt_options(
    trainer: Checkpointable,
    saved: Mapping[str, Any],
    places: Sequence[int],
    consented: Collection[str],
) -> None:
    """Let the configured options win where that was consented to.

    Args:
        trainer: has them.
        saved: state of the optimizer; adapted in place.
        places: of the configured groups in it.
        consented: names of settings.
    """
    names = [name.partition(".")[2] for name in consented if "optimizer." in name]
    configured = trainer.configured_groups or []
    for place, own in zip(places, configured, strict=True):
        group = saved["param_groups"][place]
        group.update({name: own[name] for name in (*names, *WAYS) if name in own})
        if "lr" in names and "initial_lr" in group:
            group["initial_lr"] = float(own["lr"])


def _adapt_position(state: dict[str, Any], saved: Mapping[str, Any], own: Any) -> None:
    """Move to the batch that begins with the same number of samples behind it."""
    progress, length = state["progress"], own["batches_per_epoch"]
    batch = progress["batch"]
    if saved.get("batch_size") and own.get("batch_size"):
        # Rounded down: a few rows are seen twice, none is left out.
        batch = batch * saved["batch_size"] // own["batch_size"]
    if length is not None:
        # At least one batch is left to end the epoch with.
        batch = min(batch, length - 1)
    log.warning(
        "the rest of epoch %d is approximate: batch %d of the old data is batch %d now",
        *(progress["epoch"] + 1, progress["batch"], batch),
    )
    progress["batch"] = batch
