"""What a checkpoint contains, and how a trainer takes it over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from training.bus.declared import alters_training
from training.checkpoint.catch_up import switches
from training.checkpoint.fitting import misfit, reshaped
from training.checkpoint.optimizer_state import named_state, names_of
from training.checkpoint.plugin_states import (
    collect_states,
    digests_of,
    warn_of_differing,
)
from training.checkpoint.settings import settings_of
from training.checkpoint.storable import describe_foreign, foreign_value
from training.discovery.provenance import describe_plugins
from training.errors import CheckpointError, ConfigError
from training.hardware.draws import Draws
from training.hardware.rng import rank_seed, seeded_rng_state
from training.messages.tables import count
from training.modules.buffers import has_finite
from training.modules.frozen_weights import complete
from training.modules.plain_names import (
    load_weights,
    some,
    weights_of,
)
from training.plain import plain

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

log = logging.getLogger(__name__)


def capture(trainer: Checkpointable, whole: bool = True) -> dict[str, Any]:
    """Return all state of a run at a boundary; tensors are not copied.

    All processes call it; that of the main one is whole.

    Args:
        trainer: the run.
        whole: False: each process's own parts of tensors are left as they are.
    Raises:
        CheckpointError: something in it is neither a tensor nor a plain value.
        PluginError: the same, in the state of a plugin.
    """
    strategy = trainer.strategy
    for watched in trainer.state.unsaved:
        watched.warn_of_moved()
    # Users' code among it, which may raise on one process: before any waits for others.
    own = strategy.on_each(lambda: _own_state(trainer))
    # What it goes on from that the main one does not know: a loader that all read alike
    # stands at the same place everywhere.
    parts = ("rng", "data", "loader") if strategy.data == "own" else ("rng",)
    place = {part: own[part] for part in parts}
    digests = digests_of(own["plugins"], trainer) if strategy.size > 1 else {}
    found = strategy.gather((place, digests))
    state = strategy.full(own) if whole else own
    if len(found) > 1:
        state["ranks"] = [place for place, _ in found[1:]]
        if strategy.is_main:
            warn_of_differing([each for _, each in found])
    # Those of plugins were looked at one by one, to name the plugin; parts were not.
    seen = state if strategy.parts and whole else {**state, "plugins": {}}
    kinds = () if whole else strategy.parts
    strategy.on_each(lambda: _require_storable(seen, kinds))
    return state


def _own_state(trainer: Checkpointable) -> dict[str, Any]:
    """Return what this process has, of sharded tensors its own parts."""
    # Settles verdicts first: this is where a bad loss still ends the run unsaved.
    own = trainer.state.state_dict()
    scaler = trainer.grad_scaler
    # Before the optimizer's, whose parameters are named by what the loss has now.
    loss = trainer.criterion.state_dict()
    try:
        settings = settings_of(trainer)
        optimizer = named_state(
            trainer.optimizer, names_of(trainer), trainer.state.joining_groups
        )
    except ConfigError as error:  # a plugin let a foreign parameter join
        raise CheckpointError(f"nothing was saved: {error}") from error
    state = {
        "settings": settings,
        "progress": own["progress"],
        # The live tensors: who writes in a thread copies them before it returns.
        "model": weights_of(trainer.model),
        "loss": loss,
        "optimizer": plain(optimizer),
        **switches(trainer),
        "scaler": None if scaler is None else scaler.state_dict(),
        **_position(trainer),
        "history": own["history"],
        "metrics": own["metrics"],
        "requests": own["requests"],
        "asked": own["asked"],
        # Users' code: it may raise, and nothing is written by then.
        "plugins": collect_states(trainer),
        "distributions": {
            name: {
                **entry,
                "alters_training": alters_training(trainer.plugins[name]),
                "mutates": ", ".join(getattr(trainer.plugins[name], "mutates", ())),
            }
            for name, entry in describe_plugins(trainer.plugins).items()
        },
        "metadata": plain(trainer.metadata),
    }
    if trainer.weights_are != "live":  # other weights than those of its step
        state["weights_are"] = trainer.weights_are
    if trainer.resumption is not None:  # what was loaded and is not taken over yet
        parked = trainer.resumption.parked
        state |= {**parked, "settings": settings | parked.get("settings", {})}
    return state


def _require_storable(state: Mapping[str, Any], parts: tuple[type, ...]) -> None:
    foreign = foreign_value(state, parts=parts)
    if foreign is not None:
        raise CheckpointError(f"nothing was saved: {describe_foreign(*foreign)}")


def for_rank(
    trainer: Checkpointable, state: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Return a loaded ``state`` as this process goes on from it.

    Args:
        trainer: goes on; each of its processes from a place of its own.
        state: as the main process saved it.
        seed: of the run, for generators of a process that the saved run had not.
    """
    rank, places = trainer.rank, state.get("ranks", [])
    has_own_data = trainer.strategy.data == "own"
    if has_own_data and len(places) + 1 != trainer.world_size:
        log.warning(
            "each of %s has data of its own, which was divided among %d: "
            "which rows are still to come is approximate",
            *(count(trainer.world_size, "process"), len(places) + 1),
        )
    if not rank:
        return state
    if rank <= len(places):
        return {**state, **places[rank - 1]}
    # The main process's place in its data is none of ours.
    place: dict[str, Any] = {"data": [], "loader": None} if has_own_data else {}
    seed = rank_seed(seed, rank, state["progress"]["step"])
    return {**state, **place, "rng": seeded_rng_state(seed, trainer.device)}


def _position(trainer: Checkpointable) -> dict[str, Any]:
    """Return what the next batch needs of generators and of the loader itself."""
    state, feed, loop = trainer.state, trainer.feed, trainer.loop
    # What the loader would say now is of no batch of that run.
    if state.to_restore:  # by a run that was loaded and is to go on
        return dict(state.to_restore)
    # Before its run and without one they are as they stand.
    draws = Draws(trainer.device) if loop is None else loop.draws
    return {
        "rng": draws.state(state.progress.place),
        "data": [] if feed is None else feed.data_state(),
        "loader": feed and feed.loader_state(state.progress.batch),
    }


def check_model(
    model: nn.Module,
    state: dict[str, Any],
    source: str,
    causes: Callable[[], Iterable[object]] = tuple,
) -> None:
    """Compare names and shapes of the weights; the model is not changed.

    Args:
        model: is to take them.
        state: completed in place where frozen weights were left out of it.
        source: the checkpoint, for messages.
        causes: returns what made another model of it, if anything is known to.
    Raises:
        CheckpointError: names or shapes differ; says which.
    """
    complete(model, state, source)
    own = weights_of(model)
    own |= reshaped(model, state["model"])
    check_weights(state["model"], own, "model", source, causes)


def check_loss(trainer: Checkpointable, state: Mapping[str, Any], source: str) -> None:
    """Compare what the loss keeps; an earlier release saved nothing of it.

    Raises:
        CheckpointError: names or shapes differ; says which.
    """
    own = trainer.criterion.state_dict()
    if "loss" in state:
        late = [
            n
            for n in trainer.criterion.names_behind_attributes()
            if n not in state["loss"]
        ]
        if late:
            log.warning(
                "checkpoint %r has nothing of these, which the loss reaches by an "
                "attribute: %s; they start afresh",
                *(source, some(sorted(late))),
            )
        own = {name: value for name, value in own.items() if name not in late}
        check_weights(state["loss"], own, "loss", source)
    elif own:
        log.warning(
            "checkpoint %r is of an earlier release, which saved nothing of the loss; "
            "these start afresh: %s",
            *(source, some(list(own))),
        )


def check_weights(
    saved: Mapping[str, Any],
    own: Mapping[str, Any],
    what: str,
    source: str,
    causes: Callable[[], Iterable[object]] = tuple,
) -> None:
    """Compare names, shapes and kinds of tensors; warn of values that are not finite.

    Args:
        saved: name -> value, from the checkpoint.
        own: the same, of the part that is to take them.
        what: that part: ``"model"`` or ``"loss"``.
        source: the checkpoint, for messages.
        causes: returns what to name before the weights that differ, if some do.
    Raises:
        CheckpointError: something differs; says which.
    """
    missing = sorted(own.keys() - saved.keys())
    unexpected = sorted(saved.keys() - own.keys())
    both = sorted(own.keys() & saved.keys())
    others = [misfit(name, saved[name], own[name], what) for name in both]
    problems = [
        f"{label} {some(names)}"
        for label, names in (
            ("missing:", missing),
            (f"not in the {what}:", unexpected),
            ("of another kind:", list(filter(None, others))),
        )
        if names
    ]
    if problems:
        told = [*map(str, causes()), *problems]
        added = " before a Trainer is made, with what a hook adds"
        added = added if unexpected and what == "model" else ""
        raise CheckpointError(
            f"checkpoint {source!r} does not fit this {what}; {'; '.join(told)}: "
            f"build the {what} as it was when the checkpoint was written{added}"
        )
    warn_of_nonfinite(saved, own, what, source)


def warn_of_nonfinite(
    saved: Mapping[str, Any], own: Mapping[str, Any], what: str, source: str
) -> None:
    """Name weights with NaN or infinities, unless the part itself has some there."""
    # Reads every number: on loading, not in the loop.
    lost = [n for n in saved if not has_finite(saved[n]) and has_finite(own.get(n))]
    if lost:
        log.warning(
            "checkpoint %r has NaN or infinite values in the %s: %s; unless they "
            "belong there, its run had diverged: use an earlier checkpoint",
            *(source, what, some(lost)),
        )


def restore_model(trainer: Checkpointable, state: Mapping[str, Any]) -> None:
    """Load the weights of the model; ``check_model`` has compared them."""
    weights = trainer.strategy.own(state["model"], weights_of(trainer.model))
    load_weights(trainer.model, weights)


def take_weights(trainer: Checkpointable, state: dict[str, Any], source: str) -> None:
    """Load the weights of the model alone, and note which they are.

    Raises:
        CheckpointError: names or shapes differ; says which.
    """
    check_model(trainer.model, state, source)
    restore_model(trainer, state)
    # A run that is on trains them from here.
    is_live = trainer.bus.is_in_run
    trainer.state.use_weights("live" if is_live else state.get("weights_are", "live"))
