"""Where two values or runs differ: by type and bits, NaN equal to NaN."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from training.checkpoint.compare import first_difference
from training.checkpoint.optimizer_state import state_dict_of


def difference(one: Any, two: Any) -> str:
    """Return where ``one`` and ``two`` differ first, ``""`` if nowhere."""
    return first_difference(one, two, "value", ignored=frozenset()) or ""


def run_difference(
    one: Any,
    two: Any,
    name: str,
    ignored: Collection[str] = (),
    begun: int = -1,
    own: Collection[str] = (),
) -> str:
    """Return where two finished runs differ, be it in who stopped them.

    Args:
        one: a trainer.
        two: another one, on the same toy data.
        name: the plugin whose state and requests are compared.
        ignored: what is not, by the names below.
        begun: ``step`` from which one went on: there it may ask for something anew.
        own: entries of the state that each run has its own of.
    """
    for what, values in (
        ("weights", [t.model.state_dict() for t in (one, two)]),
        ("optimizer", [state_dict_of(t.optimizer) for t in (one, two)]),
        ("history", [t.history for t in (one, two)]),
        ("stop_owner", [t.stop_owner for t in (one, two)]),
        ("state", [without(state_of(t, name), own) for t in (one, two)]),
        ("requests", [_asked(t, name, begun) for t in (one, two)]),
    ):
        if what not in ignored and (found := difference(*values)):
            return f"{what}: {found}"
    return ""


def _asked(trainer: Any, name: str, begun: int) -> dict[str, int]:
    """Return how often the plugin ``name`` asked for what, without ``begun``.

    A checkpoint changes no run, and may be asked for by the clock.
    """
    return Counter(
        f"{request.kind} asked for at step {request.step}"
        for request in trainer.requests
        if request.owner == name and request.step != begun
        if request.kind != "checkpoint"
    )


def state_of(trainer: Any, name: str) -> Any:
    """Return the state of the plugin ``name``, empty for one that keeps none."""
    plugin = trainer.plugins.get(name)
    state = plugin.state_dict() if hasattr(plugin, "state_dict") else {}
    # What is no mapping is told of once, by the check of that.
    return dict(state) if isinstance(state, Mapping) else state


def without(state: Any, names: Collection[str]) -> Any:
    """Return a state without the entries ``names``; what is no mapping as it is."""
    if not isinstance(state, Mapping):
        return state
    return {name: value for name, value in state.items() if name not in names}
