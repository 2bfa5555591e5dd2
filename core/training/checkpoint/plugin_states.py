"""Ask plugins for their state, and give it back; say who failed."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training.bus.on_stack import CALLERS
from training.bus.slots import note_plugin
from training.checkpoint.checks.parts import shown
from training.checkpoint.storable import OF_STATE, describe_foreign, foreign_value
from training.errors import CheckpointError, PluginError
from training.feed.share import digest
from training.messages.error_texts import repr_of

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

log = logging.getLogger(__name__)

#: The one entry of a state that could not be had; its value says why.
MISSING = "state is missing"


def collect_states(trainer: Checkpointable) -> dict[str, Any]:
    """Return the state of each plugin that keeps any; those not active are kept.

    In place of that of an isolated plugin stands why it is missing, where the plugin
    fails to tell it or was switched off: the run goes on, one that is resumed is told.

    Raises:
        PluginError: a plugin's state is no mapping, or holds what no checkpoint can.
    """
    carried = trainer.state.carried_states
    states = dict(carried)
    resumption = trainer.resumption
    is_waiting = resumption is not None and not resumption.is_taken
    # A list: a plugin that fails is taken out while this goes on.
    for name, plugin in list(trainer.plugins.items()):
        if not hasattr(plugin, "state_dict") or not trainer.bus.calls(name):
            continue
        if is_waiting and name in states:
            continue  # what was loaded is given to it when the run goes on
        try:
            state = state_of(name, plugin, trainer)
        except Exception as error:
            if name not in trainer.bus.isolated:
                raise
            trainer.bus.survive(name, plugin, "state_dict", error, {"trainer": trainer})
            # Also for later checkpoints: it may be switched off by now.
            carried[name] = states[name] = {MISSING: repr_of(error)}
            continue
        states.pop(name, None)  # empty is a state, too, and no older one is
        if state:
            states[name] = state
    for name, (plugin, why) in () if is_waiting else trainer.bus.off.items():
        if name not in trainer.plugins and hasattr(plugin, "state_dict"):
            # What was loaded for one that never took it over is there, and stays.
            states.setdefault(name, {MISSING: why})
    return states


def check_states(trainer: Checkpointable) -> None:
    """Say before the first step whose state no checkpoint could hold, as it is then.

    Raises:
        PluginError: it holds what no checkpoint can, and there is a plugin that saves.
    """
    if not trainer.bus.listeners("on_checkpoint") or trainer.strategy.is_divided:
        return  # of many processes a save tells, on which all agree
    for name, plugin in trainer.plugins.items():
        is_called = hasattr(plugin, "state_dict") and trainer.bus.calls(name)
        if not is_called or name in trainer.bus.isolated:
            continue
        try:
            state = plugin.state_dict()
        except Exception:
            continue  # it may have none before training begins; a save will tell
        if isinstance(state, Mapping):
            _require_storable(name, state, trainer)


def restore_states(trainer: Checkpointable, names: Iterable[str] | None = None) -> None:
    """Give each plugin a copy of what the loaded checkpoint holds for it.

    That is carried no more: from then on it is the plugin's own, while it takes part.

    Args:
        trainer: its run goes on.
        names: of the plugins; None: all.
    """
    carried = trainer.state.carried_states
    for name in list(trainer.plugins if names is None else names):
        plugin, state = trainer.plugins.get(name), carried.get(name)
        if state is None or not hasattr(plugin, "load_state_dict"):
            continue
        if not trainer.bus.calls(name):
            continue  # it stays among what is carried: the main process has it
        # It failed in the saved run, which went on without it; so does this one.
        if MISSING in state:
            why = state[MISSING]
            log.warning("the checkpoint has no state of plugin %r: %s", name, why)
            continue
        try:
            give_state(name, plugin, state, trainer)
        except Exception as error:
            if name not in trainer.bus.isolated:
                raise
            where = {"trainer": trainer}
            trainer.bus.survive(name, plugin, "load_state_dict", error, where)
            continue
        del carried[name]


def state_of(name: str, plugin: Any, trainer: Checkpointable) -> dict[str, Any]:
    """Return the plugin's state; an error says whose it is."""
    try:
        state = plugin.state_dict()
    except BaseException as error:
        note_plugin(error, name, plugin, "state_dict", trainer.step)
        raise
    if not isinstance(state, Mapping):
        raise PluginError(
            f"plugin {name!r} returned {type(state).__name__} from state_dict; "
            "return a mapping, empty for no state"
        )
    # Here, where the plugin is known, and not when the file is written.
    _require_storable(name, state, trainer)
    return dict(state)


def _require_storable(name: str, state: Any, trainer: Checkpointable) -> None:
    foreign = foreign_value(dict(state), "", OF_STATE, trainer.strategy.parts)
    if foreign is not None:
        raise PluginError(
            f"plugin {name!r} returned a state_dict in which "
            f"{describe_foreign(*foreign)}"
        )


def give_state(name: str, plugin: Any, state: Any, trainer: Checkpointable) -> None:
    """Let the plugin take over a copy of ``state``; an error says whose it is."""
    try:
        # What was loaded is carried on as it was if the plugin fails half-way.
        plugin.load_state_dict(_copied(state))
    except BaseException as error:
        note_plugin(error, name, plugin, "load_state_dict", trainer.step)
        raise


def digests_of(states: Mapping[str, Any], trainer: Checkpointable) -> dict[str, int]:
    """Return what tells each plugin's state from another one, at a few us each.

    Without that of a plugin that the main process alone calls: what was loaded for it
    is carried on elsewhere, as it was then. And without tensors of which each process
    holds its own part.

    Args:
        states: by plugin.
        trainer: whose plugins they are.
    """
    parts, calls = trainer.strategy.parts, trainer.bus.calls
    return {
        name: digest(_whole(state, parts))
        for name, state in states.items()
        if calls(name)
    }


def warn_of_differing(digests: Sequence[Mapping[str, int]]) -> None:
    """Say which states are not the same on all processes: only the main one's is saved.

    Args:
        digests: of each process, by rank; a plugin that is not called there is absent.
    """
    for name, own in digests[0].items():
        if any(others.get(name, own) != own for others in digests):
            _say_differing(name)


@functools.cache
def _say_differing(name: str) -> None:
    """Say it once a process, not at each save."""
    log.warning(
        "the state of plugin %r is not the same on all processes, and a checkpoint "
        "holds that of rank 0 for all: resumed, the run goes on otherwise; derive what "
        "differs by rank from what does not, such as a seed and trainer.rank",
        name,
    )


def require_version(plugin: str, state: Mapping[str, Any], known: int) -> None:
    """Refuse a plugin's state of another release; for use in ``load_state_dict``.

    Args:
        plugin: whose state it is.
        state: with a whole number as ``version``.
        known: the version that the plugin writes, and the only one that it reads.
    Raises:
        CheckpointError: it has another version, or none.
    """
    version = state.get("version")
    if type(version) is not int or version != known:
        raise CheckpointError(
            f"the state of {plugin} has version {version!r:.60}, but this plugin reads "
            f"{known}; use the release that wrote it"
        )


def require_state(
    plugin: str, is_right: bool, at: str, value: Any, wanted: str
) -> None:
    """Refuse a state that a plugin cannot have saved; for use in ``load_state_dict``.

    Call it for all of the state before any of it is taken over.

    Args:
        plugin: whose state it is.
        is_right: whether the value can stand there.
        at: where in it, as in ``progress.wait``.
        value: what stands there.
        wanted: what belongs there, as in ``"a whole number of at least 0"``.
    Raises:
        CheckpointError: it is not right.
    """
    if not is_right:
        raise CheckpointError(
            f"the state of {plugin} in the checkpoint is not as it was saved: {at} is "
            f"{shown(value)}, not {wanted}; use an earlier checkpoint, or leave "
            f"{plugin} out to go on without it"
        )


def _whole(value: Any, parts: tuple[type, ...]) -> Any:
    """Return ``value`` without what each process holds its own part of.

    In order of names: where they come from a set, each process has an order of its own.
    """
    if isinstance(value, Mapping):
        items = sorted(value.items(), key=lambda item: str(item[0]))
        return {key: _whole(item, parts) for key, item in items}
    if isinstance(value, (list, tuple)):
        return [_whole(item, parts) for item in value]
    return None if isinstance(value, parts) else value


def _copied(value: Any) -> Any:
    """Return nested dicts and lists anew; tensors and other leaves are shared."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value


CALLERS[state_of.__code__] = lambda at: (at["name"], at["plugin"], "state_dict")
CALLERS[check_states.__code__] = CALLERS[state_of.__code__]
CALLERS[give_state.__code__] = lambda at: (at["name"], at["plugin"], "load_state_dict")
