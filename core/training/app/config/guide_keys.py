"""Translate the guide's older keys into the form that ``config`` validates.

    task_type: vqa                      task: vqa
    data_paths: {train: a.jsonl}        data: {train: a.jsonl}
    training:
      fp16: true                        training: {precision: fp16}
      freeze: {enabled: true,           model: {freeze: [vision_model]}
               layers: [vision_model]}
      scheduler: {type: cosine}         plugins: [lr_scheduling: {type: cosine}]
      early_stopping: {enabled: true,   plugins: [early_stopping: {patience: 3}]
                       patience: 3}
      use_tensorboard: true             plugins: [tensorboard]

Here and nowhere else. A document in the new form passes through unchanged.
"""

from __future__ import annotations

from typing import Any

from training.documents.document import Document, Key, as_yaml
from training.errors import ConfigError

__all__ = ["GUIDE_KEYS", "SECTIONS", "translate", "translate_once"]

#: The guide's keys below ``training``, for suggestions.
GUIDE_KEYS = ("early_stopping", "fp16", "freeze", "scheduler", "use_tensorboard")

#: Key of the guide -> the plugin that it enables.
SECTIONS = {
    ("training", "scheduler"): "lr_scheduling",
    ("training", "early_stopping"): "early_stopping",
}


def translate(document: Document) -> None:
    """Rewrite ``document`` in place; plugins must be in their named form already.

    Raises:
        ConfigError: a guide key holds another kind of value, or contradicts a new one.
    """
    document.move(("task_type",), ("task",))
    _move_data(document)
    _move_precision(document)
    _move_freeze(document)
    for path, plugin in SECTIONS.items():
        if document.has(path):
            options = _section(document, path)
            _switch(document, path, plugin, is_on=options is not None)
    path = ("training", "use_tensorboard")
    if document.has(path):
        is_on = _flag(document, path)
        document.set(path, {}, document.origin(path))
        _switch(document, path, "tensorboard", is_on)


def translate_once(whole: Document, family: str) -> None:
    """Move options of the model that stood below ``data`` when there was one family.

    Raises:
        ConfigError: an option stands in both places, with different values.
    """
    from trainbus_data.config import ONCE_FAMILY, ONCE_HERE

    if family == ONCE_FAMILY:
        for key in ONCE_HERE:
            whole.move(("data", key), ("model", key))


def _switch(document: Document, path: Key, plugin: str, is_on: bool) -> None:
    """Turn the section at ``path`` into an entry of the plugins."""
    entry = ("plugins", plugin)
    origin = document.origin(path)
    if not is_on:
        document.pop(path)
        document.set(entry, None, origin)
        return
    document.move(path, (*entry, "options"))
    document.set((*entry, "use"), plugin, origin)


def _move_data(document: Document) -> None:
    """Move ``data_paths``, and the keys of ``data`` that stand beside it."""
    paths = document.get(("data_paths",))
    if not document.has(("data_paths",)):
        return
    if not isinstance(paths, dict):
        raise ConfigError(
            f"{document.place(('data_paths',))} is {as_yaml(paths)}, but must map "
            "train, validation and test to files"
        )
    for key in list(paths):
        document.move(("data_paths", key), ("data", key))
    document.pop(("data_paths",))
    from trainbus_data.config import ONCE_HERE, DataConfig

    for key in (*DataConfig.model_fields, *ONCE_HERE):
        document.move((key,), ("data", key))


def _move_precision(document: Document) -> None:
    old, new = ("training", "fp16"), ("training", "precision")
    if not document.has(old):
        return
    if not _flag(document, old):
        document.pop(old)
        return
    given = document.get(new)
    if given not in (None, "fp16"):
        raise ConfigError(
            f"{document.place(old)} is true, but {document.place(new)} is "
            f"{as_yaml(given)}; keep one of them"
        )
    document.pop(new)
    document.tree["training"]["fp16"] = "fp16"
    document.move(old, new)


def _move_freeze(document: Document) -> None:
    old, new = ("training", "freeze"), ("model", "freeze")
    if not document.has(old):
        return
    options = _section(document, old)
    unknown = sorted((options or {}).keys() - {"layers"})
    if unknown:
        raise ConfigError(
            f"{document.place((*old, unknown[0]))} is not a setting; freeze knows: "
            "enabled, layers"
        )
    origin = document.origin((*old, "layers"))
    document.pop(old)
    document.set(new, (options or {}).get("layers", []), origin)


def _section(document: Document, path: Key) -> dict[str, Any] | None:
    """Take ``enabled`` out of a section; return the rest, None if it is off."""
    value = document.get(path)
    if value is None or isinstance(value, bool):
        value = {"enabled": bool(value)}
        document.set(path, value, document.origin(path))
    if not isinstance(value, dict):
        raise ConfigError(
            f"{document.place(path)} is {as_yaml(value)}, but must be a mapping of keys"
        )
    is_enabled = _flag(document, (*path, "enabled")) if "enabled" in value else True
    document.pop((*path, "enabled"))
    return value if is_enabled else None


def _flag(document: Document, path: Key) -> bool:
    value = document.get(path)
    if not isinstance(value, bool):
        raise ConfigError(
            f"{document.place(path)} is {as_yaml(value)}, but must be true or false"
        )
    return value
