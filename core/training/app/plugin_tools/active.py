"""Which plugins are active, and what made each of them so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.app.config.named_parts import named_in
from training.app.config.sources import PluginList, environment, gather, sources
from training.documents.document import Document

__all__ = ["Choice", "choices", "parts"]


@dataclass(slots=True)
class Choice:
    """What the sources say about one plugin.

    Attributes:
        name: what it is called in the run.
        use: the entry point or file.
        is_active: whether it takes part.
        trail: a sentence for each source that spoke of it, the weakest first.
    """

    name: str
    use: str
    is_active: bool = False
    trail: list[str] = field(default_factory=list)


def choices(path: str | Path | None, plugins: Iterable[str]) -> dict[str, Choice]:
    """Return name -> choice for every plugin that is or was chosen.

    Args:
        path: a configuration; None asks what is active in one that lists no plugins.
        plugins: what ``-p`` says.
    Raises:
        ConfigError: a source cannot be read.
    """
    documents = sources(path, (), plugins, environment())
    if path is None:  # evaluation belongs to the defaults wherever there is data for it
        documents[0].tree.setdefault("data", {"validation": ""})
    _, changes = gather(documents)
    return _followed(changes)


def parts(path: str | Path | None) -> dict[tuple[str, str], str]:
    """Return kind and name of each task, model family and reader -> what chose it.

    Args:
        path: a configuration; None: nothing is chosen.
    Raises:
        ConfigError: a source cannot be read.
    """
    if path is None:
        return {}
    whole, _ = gather(sources(path))
    return {
        (kind, name): f"on: {whole.origin(at) or 'a default of trainbus run'}"
        for kind, name, at in named_in(whole)
    }


def _followed(changes: Sequence[Document]) -> dict[str, Choice]:
    known: dict[str, Choice] = {}
    for change in changes:
        entries = change.tree.get("plugins", {})
        if isinstance(change, PluginList):
            _replace(known, change, entries)
        for name, entry in entries.items():
            origin = change.origin(("plugins", name))
            use = entry.get("use") if isinstance(entry, dict) else None
            choice = known.setdefault(name, Choice(name, use or name))
            if entry is None:
                choice.is_active = False
                choice.trail.append(f"off: {origin}")
            elif use is not None:
                choice.use, choice.is_active = use, True
                choice.trail.append(f"on: {origin or 'a default of trainbus run'}")
            else:
                choice.trail.append(f"options changed: {origin}")
    return known


def _replace(known: dict[str, Choice], change: Document, entries: Any) -> None:
    """Note that a list of plugins switches off whatever it leaves out."""
    place = change.origin(("plugins",))
    for name, choice in known.items():
        if name not in entries and choice.is_active:
            choice.is_active = False
            choice.trail.append(f"off: {place} lists plugins without it")
