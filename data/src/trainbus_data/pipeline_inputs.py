"""What a pipeline starts from: its section, task and family, in any form."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainbus_data.config import (
    DEFAULT_TASK,
    OF_EVERY_MODEL,
    ONCE_HERE,
    SPLITS,
    DataConfig,
    parse_data_config,
)
from training.documents.document import Document, Key
from training.errors import ConfigError, did_you_mean

__all__ = ["Inputs", "load_inputs"]


@dataclass(slots=True)
class Inputs:
    """What was written.

    Attributes:
        data: the section.
        locate: turns a path in the configuration into words, for messages.
        task: a name, or one over its options.
        family: a name; None: the task's default.
        options: of the family, and where each stands.
    """

    data: DataConfig
    locate: Callable[[Key], str]
    task: Any = DEFAULT_TASK
    family: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


def load_inputs(
    config: str | os.PathLike[str] | Mapping[str, Any] | DataConfig,
) -> Inputs:
    """Return what a file, a mapping or a DataConfig says.

    Raises:
        ConfigError: one sentence per mistake.
    """
    document = Document()
    if isinstance(config, DataConfig):
        return Inputs(config, document.place)
    if isinstance(config, Mapping):
        document.origins[()] = "data"
        document.tree = dict(config)
    else:
        document = Document.read(config)
        document.origins[()] = os.fspath(config)
    tree = document.tree
    if isinstance(tree.get("data"), Mapping):
        values, once = _without_once(tree["data"])
        data = parse_data_config(values, document.origin, ("data",))
        model = tree.get("model")
        model = model if isinstance(model, Mapping) else {}
        own = {k: v for k, v in model.items() if k not in OF_EVERY_MODEL}
        task = tree.get("task", DEFAULT_TASK)
        return Inputs(data, document.place, task, model.get("type"), {**once, **own})
    if "task_type" in tree or "data_paths" in tree:
        return _from_guide(document)
    values, once = _without_once(tree)
    data = parse_data_config(values, document.origin)
    return Inputs(data, document.place, options=once)


def _without_once(
    values: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the section, and the model's options that once stood in it."""
    once = {key: values[key] for key in ONCE_HERE if key in values}
    return {key: v for key, v in values.items() if key not in ONCE_HERE}, once


def _from_guide(document: Document) -> Inputs:
    """Translate the guide's ``task_type`` and ``data_paths``.

    A key of ``DataConfig`` may stand beside them, such as ``batch_size``. A
    ``training`` section, which the guide allows in the same file, is left to others.
    """
    origin = document.origin
    values = {key: v for key, v in document.tree.items() if key != "training"}
    task = values.pop("task_type", DEFAULT_TASK)
    paths = values.pop("data_paths", None)
    here = origin(("data_paths",))
    if not isinstance(paths, Mapping):
        raise ConfigError(
            f"{here}: data_paths is {paths!r}, but must map train, validation and test "
            "to files"
        )
    for key in paths:
        if key not in SPLITS:
            raise ConfigError(
                f"{origin(('data_paths', key))}: data_paths.{key} is not "
                f"a split{did_you_mean(str(key), SPLITS)}; known here: "
                f"{', '.join(SPLITS)}"
            )
        if key in values:
            raise ConfigError(f"{here}: data_paths.{key} and {key} say the same twice")
    rest, once = _without_once(values)
    data = parse_data_config(rest | dict(paths), origin)
    return Inputs(data, document.place, task, options=once)
