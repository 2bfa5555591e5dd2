"""Which plugin made the part of a run that has raised: a window, an engine, a wrapper.

Nobody notes who is running while all goes well: a step would pay for it. Only a failed
run reads its traceback, once.
"""

from __future__ import annotations

from types import FrameType
from typing import Any, NamedTuple

from torch import nn

from training.bus.slots import FILE_PREFIX, note_plugin
from training.errors import TrainbusError

#: The kernel itself.
OWN = "training"


class MadePart(NamedTuple):
    """What a run uses and a plugin has made, in answer to a hook.

    Attributes:
        name: of the plugin.
        plugin: itself.
        hook: that asked for it.
        part: the object itself.
    """

    name: str
    plugin: Any
    hook: str
    part: Any


class MadeParts:
    """The parts of one run that plugins have made."""

    def __init__(self) -> None:
        self._made: list[MadePart] = []

    def add(self, *facts: Any) -> None:
        """Remember a part, by what ``MadePart`` has of it."""
        self._made.append(MadePart(*facts))

    def begin_run(self) -> None:
        """Forget those of the run before; its engine stays."""
        self._made = [each for each in self._made if each.hook == "make_strategy"]

    def noted(self, error: BaseException, step: int = 0) -> BaseException:
        """Write on ``error`` whose part raised it, if one did; return it.

        An error that a model or a plugin's hook raised inside of a part is not the
        part's, and errors of trainbus say themselves what they are about.

        Args:
            error: that ends the run, with its traceback.
            step: at which it does.
        """
        if not isinstance(error, TrainbusError):
            traceback, frames = error.__traceback__, []
            while traceback is not None:
                frames.append(traceback.tb_frame)
                traceback = traceback.tb_next
            self._note(error, frames, step)
        return error

    def _note(self, error: BaseException, frames: list[FrameType], step: int) -> None:
        for frame in reversed(frames):  # from where it was raised
            if _is_of_kernel(frame):
                return
            subject = frame.f_locals.get("self")
            for name, plugin, hook, part in self._made:
                if subject is not None and part is subject:
                    where = f"{type(part).__name__}.{frame.f_code.co_name}"
                    place = f"{where}, which its {hook} has made,"
                    note_plugin(error, name, plugin, place, step)
                    return
            if isinstance(subject, nn.Module):
                return  # of the model


def _is_of_kernel(frame: FrameType) -> bool:
    if frame.f_code.co_filename.startswith(FILE_PREFIX):
        return True
    module: str = frame.f_globals.get("__name__", "")
    return module == OWN or module.startswith(f"{OWN}.")
