"""Which plugin made the part of a run that has raised: a window, an engine, a wrapper.

Nobody notes who is running while all goes well: a step would pay for it. Only a failed
run reads its traceback, once.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from traceback import walk_tb
from types import FrameType
from typing import Any

from torch import nn

from training.bus.slots import FILE_PREFIX, note_plugin
from training.errors import TrainbusError
from training.messages.error_texts import notes_of

#: The kernel itself.
OWN = "training"


def noted(
    error: BaseException, made: Collection[tuple[str, Any, str, Any]], step: int = 0
) -> BaseException:
    """Write on ``error`` which plugin made the part that raised it, if one did.

    An error that a model or a plugin's hook raised inside of a part is not the part's,
    and errors of trainbus say themselves what they are about.

    Args:
        error: that ends a run, with its traceback.
        made: ``bus.made`` of that run.
        step: at which it ends.
    Returns: ``error``.
    """
    is_told = any(note.startswith("raised by plugin") for note in notes_of(error))
    if is_told or isinstance(error, TrainbusError):
        return error
    known = {_root(type(part).__module__) for *_, part in made}
    for frame, _ in reversed(list(walk_tb(error.__traceback__))):  # where it was raised
        if _is_of_kernel(frame):
            break
        subject = frame.f_locals.get("self")
        for name, plugin, hook, part in made:
            if part is subject:
                where = f"{type(part).__name__}.{frame.f_code.co_name}"
                place = f"{where}, which its {hook} has made,"
                note_plugin(error, name, plugin, place, step)
                return error
        # What a part calls of its own package, of torch and of Python is its matter.
        root = _root(frame.f_globals.get("__name__", ""))
        is_its_own = root in known or root == "torch" or root in sys.stdlib_module_names
        if not is_its_own or isinstance(subject, nn.Module):
            break
    return error


def _root(module: str) -> str:
    return module.partition(".")[0]


def _is_of_kernel(frame: FrameType) -> bool:
    """Whether it runs code of the kernel, or one that was compiled to call hooks."""
    is_slot = frame.f_code.co_filename.startswith(FILE_PREFIX)
    return is_slot or _root(frame.f_globals.get("__name__", "")) == OWN
