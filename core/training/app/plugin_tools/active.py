"""What is active in a configuration, and what made it so."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from training.app.config.named_parts import named_in
from training.app.config.plugin_choices import Choice
from training.app.config.sources import environment, gather, sources

__all__ = ["Active", "active"]


class Active(NamedTuple):
    """What the sources of a configuration speak of.

    Attributes:
        plugins: by the name that they have in the run; switched off some of them.
        parts: kind and name of each task, model family and reader -> what chose it.
    """

    plugins: dict[str, Choice]
    parts: dict[tuple[str, str], str]


def active(path: str | Path | None, plugins: Iterable[str]) -> Active:
    """Return what is chosen, without importing any of it.

    Args:
        path: a configuration; None asks what is active in one that lists no plugins.
        plugins: what ``-p`` says.
    Raises:
        ConfigError: a source cannot be read.
    """
    documents = sources(path, (), plugins, environment())
    if path is None:  # evaluation belongs to the defaults wherever there is data for it
        documents[0].tree.setdefault("data", {"validation": ""})
    whole, choices = gather(documents)
    parts = {
        (kind, name): f"on: {whole.origin(at) or 'a default of trainbus run'}"
        for kind, name, at in named_in(whole)
    }
    return Active(choices.known, parts)
