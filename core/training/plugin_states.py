"""Ask plugins for their state, and give it back; say who failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from training.content import describe_foreign, foreign_value
from training.errors import PluginError
from training.slots import note_plugin

if TYPE_CHECKING:
    from training.view import RunView

__all__ = ["collect_states", "restore_states"]


def collect_states(trainer: RunView) -> dict[str, Any]:
    """Return the state of each plugin that keeps any; those not active are kept.

    Raises:
        PluginError: a plugin's state is no mapping, or holds what no checkpoint can.
    """
    states = dict(trainer.carried_states)
    for name, plugin in trainer.plugins.items():
        if not hasattr(plugin, "state_dict"):
            continue
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
        foreign = foreign_value(dict(state))
        if foreign is not None:
            raise PluginError(
                f"plugin {name!r} returned a state_dict in which "
                f"{describe_foreign(*foreign)}"
            )
        if state:
            states[name] = dict(state)
    return states


def restore_states(trainer: RunView) -> None:
    """Give each plugin a copy of what the loaded checkpoint holds for it."""
    for name, plugin in trainer.plugins.items():
        if name not in trainer.carried_states:
            continue
        if not hasattr(plugin, "load_state_dict"):
            continue
        try:
            plugin.load_state_dict(_copied(trainer.carried_states[name]))
        except BaseException as error:
            note_plugin(error, name, plugin, "load_state_dict", trainer.step)
            raise


def _copied(value: Any) -> Any:
    """Return nested dicts and lists anew; tensors and other leaves are shared."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value
