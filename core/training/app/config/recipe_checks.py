"""Whether task, family and readers of a configuration are there and fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from trainbus_data.config import DEFAULT_TASK, OF_EVERY_MODEL, ONCE_HERE
from training.app.config.named_parts import PLACES, is_named
from training.discovery import installed
from training.discovery.parts import find_part, named_part
from training.discovery.signature import Mistake, fitted, fitted_call
from training.discovery.sources import SourceError, read_class
from training.documents.document import Document, Key
from training.errors import ConfigError
from training.messages.error_texts import text_of

__all__ = [
    "DEFAULT_TASK",
    "OF_EVERY_MODEL",
    "ONCE_HERE",
    "does_task",
    "family_of",
    "recipe_mistakes",
]


def family_of(whole: Document) -> str:
    """Return the name of the family, that of the task where none is named.

    ``""`` where the task cannot be told; ``recipe_mistakes`` says why.
    """
    named = whole.get(("model", "type"))
    if named is not None:
        return named if isinstance(named, str) else ""
    try:
        name, _ = _task_of(whole)
        cls = find_part("task", name, "task")
    except ConfigError:
        return ""
    own = hasattr(cls, "collate") and hasattr(cls, "predict")
    return str(getattr(cls, "default_family", "") or (name if own else ""))


def does_task(cls: type[Any], named: str) -> bool:
    """Whether a family does the task of that name; so of a task that is not there.

    A class in a file that is both does its own task, whatever that is called.
    """
    task = installed.name_of(named)
    if installed.is_file(named):
        return task in cls.tasks or _is_task(cls, named)
    is_task = any(info.name == task for info in installed.installed("task"))
    return task in cls.tasks or not is_task


def recipe_mistakes(whole: Document) -> list[str]:
    """Return a sentence for each mistake in task, model and readers.

    Classes are imported for their signatures; nothing is constructed.
    """
    told = [*_task_mistakes(whole), *_family_mistakes(whole)]
    for at, kind in PLACES.items():
        if kind == "reader" and is_named(whole.get(at)):
            told += _mistakes(_reader_mistakes, whole, at)
    return told


def _mistakes(check: Callable[..., Iterator[str]], *arguments: Any) -> Iterator[str]:
    """Yield what ``check`` does; what it raises is a sentence, too."""
    try:
        yield from check(*arguments)
    except ConfigError as error:
        yield text_of(error)


def _task_of(whole: Document) -> tuple[str, dict[str, Any]]:
    return named_part(whole.get(("task",), DEFAULT_TASK), whole.place(("task",)))


def _told(whole: Document, at: Key, mistakes: list[Mistake]) -> Iterator[str]:
    for path, text in mistakes:
        yield whole.place((*at, *path)) + text


def _task_mistakes(whole: Document) -> Iterator[str]:
    def check() -> Iterator[str]:
        name, options = _task_of(whole)
        cls = find_part("task", name, whole.place(("task",)))
        yield from _told(whole, ("task", name), fitted(cls, options, ())[1])

    return _mistakes(check)


def _reader_mistakes(whole: Document, at: Key) -> Iterator[str]:
    name, options = named_part(whole.get(at), whole.place(at))
    cls = find_part("reader", name, whole.place((*at, name)))
    yield from _told(whole, (*at, name), fitted(cls, options, ())[1])


def _family_mistakes(whole: Document) -> Iterator[str]:
    family = family_of(whole)
    model = whole.get(("model",))
    if not family or not isinstance(model, Mapping):
        return iter(())
    return _mistakes(_mistakes_of_family, whole, family, model)


def _mistakes_of_family(
    whole: Document, family: str, model: Mapping[str, Any]
) -> Iterator[str]:
    place = whole.place(("model", "type"))
    cls = find_part("model", family, place)
    named, _ = _task_of(whole)
    if not does_task(cls, named):
        task = installed.name_of(named)
        others = [name for name, tasks in _known_families() if task in tasks]
        in_file = installed.is_file(named)
        hint = "; a class in a file goes by its `name`" if in_file else ""
        own = ", ".join(cls.tasks)
        yield (
            f"{place} is {family!r}, which does not do the task {task!r}, but {own}; "
            f"those that do: {', '.join(others) or 'none'}{hint}"
        )
    options = {key: v for key, v in model.items() if key not in OF_EVERY_MODEL}
    yield from _told(whole, ("model",), fitted(cls, options, OF_EVERY_MODEL)[1])
    for key, method in (("name", "load"), ("build", "build")):
        if model.get(key) is not None and not hasattr(cls, method):
            yield (
                f"{whole.place(('model', key))} is given, but the family {family!r} "
                f"has no {method}()"
            )
    lora, build = model.get("lora"), model.get("build")
    if isinstance(lora, Mapping):
        adapters = import_module("trainbus_models.lora").Lora
        yield from _told(whole, ("model", "lora"), fitted(adapters, lora, ())[1])
    if isinstance(build, Mapping) and hasattr(cls, "build"):
        yield from _told(whole, ("model", "build"), fitted_call(cls.build, build)[1])


def _is_task(cls: type[Any], named: str) -> bool:
    """Whether ``cls`` is the task of that name, too; so where none can be loaded."""
    try:
        return find_part("task", named, "task") is cls
    except ConfigError:
        return True  # it is told what is wrong with the task


def _known_families() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield name and tasks of each family, as its source says."""
    for info in installed.installed("model"):
        module, _, name = info.value.rpartition(":")
        try:
            says = read_class(module, name).attributes.get("tasks", ())
        except SourceError:
            continue
        yield info.name, tuple(says)
