"""What a resumed run took over, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from training.checkpoint.plugin_states import MISSING
from training.checkpoint.settings import Change
from training.discovery.provenance import describe_plugins
from training.messages.tables import count

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

#: Its state may be of another time than all else.
RETURNED = "plugin {} was away and goes on with its state from an earlier checkpoint"
#: A run that goes on from there is none that anybody has seen.
REPLACED = (
    "its weights are {!r}, which a plugin had put in the place of those of its step: "
    "what goes on from them is another run"
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a resumed run took over, and what differs from the run that was saved.

    Attributes:
        path: the checkpoint.
        epoch: completed epochs in it.
        step: attempted updates in it.
        changes: settings that differ.
        added: plugins that are active and were not; they start afresh.
        returned: the same, with a state from before they were away.
        removed: plugins that were active and are not; their state is carried along.
        mutated: what of the run those could change, by name.
        upgraded: ``"name 1.0 -> 1.1"`` of plugins of another version.
        stopped_by: who had ended the saved run and why, or None.
        weights_are: ``"live"``, or which weights a plugin had put in place.
        metadata: what the saved run carried, as ``trainer.metadata``.
    """

    path: str
    epoch: int
    step: int
    changes: tuple[Change, ...] = ()
    added: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    mutated: Mapping[str, str] = field(default_factory=dict)
    upgraded: tuple[str, ...] = ()
    stopped_by: str | None = None
    weights_are: str = "live"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        done = count(self.epoch, "epoch")
        lines = [f"resumed from {self.path}: step {self.step}, {done} complete"]
        if self.weights_are != "live":
            lines.append(REPLACED.format(self.weights_are))
        lines += [f"setting {change}" for change in self.changes]
        lines += [f"plugin {name} is new and starts afresh" for name in self.added]
        lines += [RETURNED.format(name) for name in self.returned]
        for name in self.removed:
            what = self.mutated.get(name)
            could = f", which could change {what}," if what else ""
            lines.append(f"plugin {name}{could} is no longer active")
        lines += [f"plugin {each}" for each in self.upgraded]
        if self.stopped_by is not None:
            lines.append(f"that run was stopped by {self.stopped_by}")
        return "\n  ".join(lines)


def receipt_of(
    trainer: Checkpointable,
    state: Mapping[str, Any],
    changes: list[Change],
    source: str,
) -> Receipt:
    """Return what a run takes over."""
    was, now = state.get("distributions", {}), describe_plugins(trainer.plugins)
    both = [name for name in now if name in was]
    new = [name for name in now if name not in was and "distributions" in state]
    returned = [
        name
        for name in new
        if MISSING not in state["plugins"].get(name, {MISSING: ""})
        and hasattr(trainer.plugins[name], "load_state_dict")
    ]
    # The last one: a run may have been stopped and gone on before.
    ends = [request for request in state["requests"] if request[0] == "stop"]
    stopped = ends[-1] if ends and ends[-1][1] not in ("signal", "trainer") else None
    return Receipt(
        path=source,
        epoch=state["progress"]["epoch"],
        step=state["progress"]["step"],
        changes=tuple(c for c in changes if not c.name.startswith("plugins.")),
        added=tuple(name for name in new if name not in returned),
        returned=tuple(returned),
        removed=tuple(name for name in was if name not in now),
        mutated={name: entry.get("mutates") or "" for name, entry in was.items()},
        upgraded=tuple(
            f"{name} {was[name].get('version')} -> {now[name]['version']}"
            for name in both
            if was[name].get("version") != now[name]["version"]
        ),
        weights_are=state.get("weights_are", "live"),
        stopped_by=stopped and f"{stopped[1]}: {stopped[2]}",
        metadata=state.get("metadata", {}),
    )
