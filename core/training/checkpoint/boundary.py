"""Refuse to save where a run that went on from there would be another one."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import pluggy

from training.bus.declared import has_own
from training.bus.slots import FILE_PREFIX, plugin_of
from training.bus.wrappers import scope
from training.errors import CheckpointError

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

#: Events that a run which goes on does not announce again: who has not heard one when
#: its state is saved never will.
HEARD_ONCE = ("on_step_end", "on_metrics", "on_epoch_end")
WAYS = "save in on_checkpoint, or call request_checkpoint(reason)"
AFTER = ", or declare `after = {names!r}` in the class of {name!r}"
#: What calls a wrapper of an event; it knows of no failure before the yield.
SCOPE = inspect.unwrap(scope).__code__


def require_boundary(trainer: Checkpointable, path: str | Path) -> None:
    """Look whether all state is of one moment; who is called now tells.

    Raises:
        CheckpointError: some of it is still of the moment before; says what, and where
            saving is exact.
    """
    missing = _missing(trainer)
    if missing is not None:
        raise CheckpointError(f"{str(path)!r} was not saved: {missing}")


def _missing(trainer: Checkpointable) -> str | None:
    loop = trainer.loop
    if loop is not None and loop.is_in_window:
        return (
            "a window of batches is under way, from which no run can go on exactly; "
            f"{WAYS}"
        )
    if loop is not None and loop.is_evaluating:
        return f"an evaluation is under way, whose metrics are not there yet; {WAYS}"
    # Asked of the stack: a plugin may save from however deep inside its hook.
    for hook, current, later, way in _served(sys._getframe(1), trainer):
        if hook == "on_metrics" and loop is not None and loop.row_is_due:
            return (
                f"the row of the epoch is not in the history yet in on_metrics; {WAYS}"
            )
        late = [i.plugin_name for i in later if has_own(plugin_of(i), "state_dict")]
        if late and hook in HEARD_ONCE:
            name = current.plugin_name
            way = way.format(names=tuple(late), name=name)
            return (
                f"plugin {name!r} saves in {hook}, of which "
                f"{' and '.join(map(repr, late))} will hear only afterwards, so that "
                f"its state would be one event behind; {WAYS}{way}"
            )
    return None


def _served(
    frame: FrameType | None, trainer: Checkpointable
) -> Iterator[tuple[str, pluggy.HookImpl, list[pluggy.HookImpl], str]]:
    """Yield (hook, who is called, who is called later, a way out) of own events.

    The bus's own frames tell it, from ``frame`` outwards.
    """
    while frame is not None:
        is_event = frame.f_code.co_filename.startswith(FILE_PREFIX)
        # Of our own frames alone: another's would keep what it is read from, before
        # Python 3.13 a copy, and with it a trainer that its function has let go of.
        at = frame.f_locals if is_event or frame.f_code is SCOPE else {}
        if is_event:
            current = frame.f_globals["owner"].get(frame.f_lineno)
            # Another trainer may be saved in a hook of this one.
            if current is not None and at.get("trainer") is trainer:
                hook, listeners = frame.f_code.co_name, frame.f_globals["listeners"]
                rest = listeners[listeners.index(current) + 1 :]
                # Who was taken out meanwhile hears nothing and has nothing to save.
                still = [i for i in rest if i.plugin_name in trainer.plugins]
                yield hook, current, still, AFTER
                # They may go on behind their yield.
                yield hook, current, trainer.bus._wrappers(hook), ""
        elif frame.f_code is SCOPE and at["arguments"].get("trainer") is trainer:
            hook, current = at["hook"], at["wrapper"]
            wrappers = trainer.bus._wrappers(hook)
            place = wrappers.index(current)
            if "failure" not in at:  # it has not come to its yield
                still = [*wrappers[place + 1 :], *trainer.bus.listeners(hook)]
                yield hook, current, still, ", or save behind the yield"
            yield hook, current, wrappers[:place], ""
        frame = frame.f_back
