"""What each source of a configuration says, before it is validated.

Files, the variable TRAINBUS_PLUGINS, ``-p`` and ``--set`` are a document each. Nothing
here imports pydantic, nor yaml before a file is read: listing plugins is quick.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from training.app.config.guide_keys import translate
from training.app.config.named_parts import replace_named
from training.app.config.plugin_choices import Choices, PluginList, PluginNamed
from training.app.config.shipped_configs import find_config
from training.discovery import installed
from training.discovery.specs import parse_specs
from training.documents.document import Document, Key, as_yaml
from training.errors import ConfigError, PluginError

__all__ = [
    "DEFAULT_PLUGINS",
    "environment",
    "gather",
    "sources",
]

#: What is enabled when no source lists plugins; evaluation only with validation rows.
DEFAULT_PLUGINS = ("progress", "csv", "evaluation", "checkpointing")


#: Names plugins as ``-p`` does: ``TRAINBUS_PLUGINS=ema,no:csv``.
ENVIRONMENT = "TRAINBUS_PLUGINS"


def environment() -> str:
    """Return the value of TRAINBUS_PLUGINS."""
    return os.environ.get(ENVIRONMENT, "")


def sources(
    path: str | Path | None,
    overrides: Iterable[str] = (),
    plugins: Iterable[str] = (),
    environment: str = "",
) -> list[Document]:
    """Return what ``load_config`` reads, in rising weight; no file for None."""
    from_variable = [text.strip() for text in environment.split(",") if text.strip()]
    listed, changed = _overridden(overrides)
    return [
        *([] if path is None else [Document.read(find_config(path))]),
        listed,  # in the place of the file's list: plugins are named beside it
        *_chosen(from_variable, f"{ENVIRONMENT}="),
        *_chosen(plugins),
        changed,  # options, of those named, too
    ]


def gather(
    documents: Sequence[Document], taken: Iterable[str] = ()
) -> tuple[Document, Choices]:
    """Return all sources merged, and what they say of plugins.

    Plugins that are enabled by default come first; a list replaces all before it.
    """
    whole = Document()
    changes: list[Document] = []
    for document in documents:
        is_list = _name_plugins(document)
        translate(document)
        changes.append(_split_plugins(document, is_list))
        replace_named(whole, document)
        whole.merge(document)
    choices = Choices(whole)
    for change in (_default_plugins(whole, set(taken)), *changes):
        choices.follow(change)
    return whole, choices


def _name_plugins(document: Document) -> bool:
    """Turn a list of plugins into a mapping by name; return whether there was one."""
    listed = document.tree.get("plugins")
    if not isinstance(listed, list):
        return False

    def locate(path: Key) -> str:
        return document.place((path[0], int(path[1])))

    specs = parse_specs(listed, locate)
    origins = dict(document.origins)
    places = [document.origin(("plugins", index)) for index in range(len(listed))]
    document.forget(("plugins",))
    document.tree["plugins"] = {}
    for index, spec in enumerate(specs):
        name = ("plugins", spec.id)
        entry = {"use": spec.use, "options": dict(spec.options)}
        document.tree["plugins"][spec.id] = entry
        if place := places[index]:  # of the list, if it came as a whole
            document.origins[name] = place
        for path, origin in origins.items():
            if path[:3] == ("plugins", index, spec.use):
                document.origins[(*name, "options", *path[3:])] = origin
    return True


def _split_plugins(document: Document, is_list: bool) -> Document:
    """Move the plugins of ``document`` into a document of their own."""
    plugins = PluginList() if is_list else type(document)()
    given = document.tree.get("plugins", {})
    if not isinstance(given, dict):
        raise ConfigError(
            f"{document.place(('plugins',))} is {as_yaml(given)}, but must be a list "
            "of names or of `name: {option: value}`"
        )
    for name, entry in given.items():
        _check_entry(document.place(("plugins", name)), entry)
    plugins.tree = {"plugins": given}
    plugins.origins = {
        path: origin
        for path, origin in document.origins.items()
        if path[:1] == ("plugins",)
    }
    document.pop(("plugins",))
    return plugins


def _check_entry(place: str, entry: Any) -> None:
    """Refuse what does not name a plugin, change its options or switch it off."""
    if entry is None or (
        isinstance(entry, dict)
        and entry.keys() <= {"use", "options"}
        and isinstance(entry.get("use", ""), str)
        and isinstance(entry.get("options", {}), dict)
    ):
        return
    raise ConfigError(
        f"{place} is {as_yaml(entry)}, but must be a mapping of use and options; or "
        "list plugins, as in plugins: [csv: {filename: a.csv}]"
    )


def _default_plugins(whole: Document, taken: Collection[str]) -> Document:
    """Return the plugins of a configuration that lists none."""
    has_validation = any(
        whole.get(("data", key)) is not None for key in ("validation", "synthetic")
    )
    defaults = Document()
    for name in DEFAULT_PLUGINS:
        if name not in taken and (name != "evaluation" or has_validation):
            defaults.set(("plugins", name, "use"), name)
    if not has_validation and "checkpointing" not in taken:
        # Nothing ranks checkpoints: keep the last one.
        defaults.set(("plugins", "checkpointing", "options"), {"monitor": None})
    return defaults


def _chosen(plugins: Iterable[str], option: str = "-p ") -> Iterator[Document]:
    """Yield what each ``-p`` says: a name to enable, ``no:NAME`` to switch off."""
    for text in plugins:
        is_off = text.startswith("no:")
        use = text.removeprefix("no:")
        if not use:
            raise PluginError(
                f"{option}{text}: name a plugin, as in: -p csv, -p no:csv"
            )
        name = installed.name_of(use)
        document = PluginNamed()
        chosen = None if is_off else {"use": use}
        document.set(("plugins", name), chosen, f"{option}{text}")
        yield document


def _overridden(overrides: Iterable[str]) -> tuple[Document, Document]:
    """Return the list of plugins of ``--set``, and all else that it says.

    Each value is read as YAML.
    """
    listed, changed = Document(), Document()
    for text in overrides:
        from training.documents.yaml_file import parse_yaml_value

        key, equals, value = text.partition("=")
        path: Key = tuple(part.strip() for part in key.split("."))
        if not equals or not all(path):
            raise ConfigError(
                f"--set {text!r} has no value; write --set key.path=value, as in "
                "--set training.num_epochs=5"
            )
        read = parse_yaml_value(value, f"--set {key}")
        if path[0] == "plugins" and len(path) > 1:
            if len(path) == 2 and not isinstance(read, dict):
                raise ConfigError(
                    f"--set {key} is {as_yaml(read)}, but must be a mapping of "
                    f"options; write --set {key}.OPTION=value, or switch it off "
                    f"with: -p no:{path[1]}"
                )
            path = (*path[:2], "options", *path[2:])
        is_list = path == ("plugins",) and isinstance(read, list)
        (listed if is_list else changed).set(path, read, "--set")
    return listed, changed
