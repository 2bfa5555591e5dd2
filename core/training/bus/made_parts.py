"""Which plugin made the part of a run that has raised: a window, an engine, a wrapper.

Nobody notes who is running while all goes well: a step would pay for it. Only a failed
run reads its traceback, once.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection, Iterable, Iterator
from traceback import walk_tb
from types import FrameType
from typing import Any

from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils.fetch import _BaseDatasetFetcher
from torch.utils.data.dataloader import _BaseDataLoaderIter

from training.bus.slots import FILE_PREFIX, RAISED_BY, Made, note_plugin
from training.errors import TrainbusError
from training.feed.loader_parts import INSIDE, parts_of
from training.messages.error_texts import notes_of

#: The kernel itself.
OWN = "training"
#: In them torch loads what a data set and a collate function give it.
LOADING = (DataLoader, _BaseDataLoaderIter, _BaseDatasetFetcher)


def noted(
    error: BaseException,
    made: Collection[Made],
    step: int = 0,
    users: Iterable[Any] = (),
) -> BaseException:
    """Write on ``error`` which plugin made the part that raised it, if one did.

    An error that a model, the user's data or a plugin's hook raised inside of a part is
    not the part's, and errors of trainbus say themselves what they are about.

    Args:
        error: that ends a run, with its traceback.
        made: ``bus.made`` of that run.
        step: at which it ends.
        users: the loaders that were passed, which parts may have inside.
    Returns: ``error``.
    """
    is_told = any(note.startswith(RAISED_BY) for note in notes_of(error))
    if is_told or isinstance(error, TrainbusError):
        return error
    own = [each for loader in users for each in parts_of(loader, INSIDE)]
    made = list(_with_insides(made, own))
    known = {_home(part) for *_, part in made}
    for frame, _ in reversed(list(walk_tb(error.__traceback__))):  # where it was raised
        if _is_of_kernel(frame):
            break
        subject = frame.f_locals.get("self")
        is_loading = isinstance(subject, LOADING)
        if is_loading and not isinstance(subject, DataLoader):
            subject = _loaded(subject, own)
        if _is_among(subject, own):
            break
        for name, plugin, hook, part in made:
            if part is subject or getattr(part, "__code__", None) is frame.f_code:
                place = f"{_called(part, frame)}, which its {hook} has made,"
                note_plugin(error, name, plugin, place, step)
                return error
        # What a part calls of its own package, of torch and of Python is its matter.
        root = _root(frame.f_globals.get("__name__", ""))
        is_its_own = root in known or root == "torch" or root in sys.stdlib_module_names
        if not is_its_own or is_loading or isinstance(subject, nn.Module):
            break
    return error


def _with_insides(made: Iterable[Made], own: Collection[Any]) -> Iterator[Made]:
    """Yield what was made and, of loaders, data sets and the like that are not users'.

    Torch's own samplers and collate functions are nobody's.
    """
    for name, plugin, hook, whole in made:
        is_loader = hook == "wrap_dataloader"
        for part in parts_of(whole, INSIDE if is_loader else ()):
            is_torchs = _home(part) == "torch"
            is_to_blame = not is_torchs or isinstance(part, (DataLoader, Dataset))
            if part is whole or (is_to_blame and not _is_among(part, own)):
                yield Made(name, plugin, hook, part)


def _loaded(loading: Any, own: Collection[Any]) -> Any:
    """Return the data set that an iterator or fetcher of torch's reads.

    None where it has a user's inside: a worker does not tell which of them has raised.
    """
    dataset = getattr(loading, "dataset", getattr(loading, "_dataset", None))
    while dataset is not None and _home(dataset) == OWN:
        dataset = getattr(dataset, "dataset", None)  # the kernel seeds what it gives
    insides = vars(dataset).values() if hasattr(dataset, "__dict__") else ()
    return None if any(_is_among(each, own) for each in insides) else dataset


def _is_among(part: Any, parts: Collection[Any]) -> bool:
    return part is not None and any(part is each for each in parts)


def _called(part: Any, frame: FrameType) -> str:
    """Return how ``part`` is called that has raised in ``frame``."""
    if getattr(part, "__code__", None) is frame.f_code:
        return str(frame.f_code.co_qualname)
    if isinstance(frame.f_locals.get("self"), type(part)):
        return f"{type(part).__name__}.{frame.f_code.co_name}"
    return type(part).__name__


def _home(part: Any) -> str:
    """Return the package that a function, or the class of an object, is of."""
    of = part if inspect.isroutine(part) else type(part)
    return _root(getattr(of, "__module__", None) or "")


def _root(module: str) -> str:
    return module.partition(".")[0]


def _is_of_kernel(frame: FrameType) -> bool:
    """Whether it runs code of the kernel, or one that was compiled to call hooks."""
    is_slot = frame.f_code.co_filename.startswith(FILE_PREFIX)
    return is_slot or _root(frame.f_globals.get("__name__", "")) == OWN
