"""Which plugins a run has, and what made each of them so: one source after another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from training.discovery import installed
from training.documents.document import Document, dotted
from training.errors import PluginError, did_you_mean

__all__ = ["Choice", "Choices", "PluginList", "PluginNamed"]


class PluginList(Document):
    """Plugins of a document that lists them, and so replaces earlier ones."""


class PluginNamed(Document):
    """What one ``-p`` says: a plugin goes by the name that it brings along."""


@dataclass(slots=True)
class Choice:
    """What the sources say about one plugin.

    Attributes:
        name: what it is called in the run.
        use: the entry point or file.
        is_active: whether it takes part.
        by: what switched it on or off, ``""`` where the last list left it out.
        trail: a sentence for each source that spoke of it, the weakest first.
    """

    name: str
    use: str
    is_active: bool = False
    by: str = ""
    trail: list[str] = field(default_factory=list)


class Choices:
    """What all sources so far say about plugins.

    Args:
        whole: gets those that are active, with their options, below ``plugins``.

    Attributes:
        known: name -> choice, of all that were ever spoken of.
        mistakes: what a run is refused for, of the last list and what came after it.
    """

    def __init__(self, whole: Document) -> None:
        self.known: dict[str, Choice] = {}
        self.mistakes: list[PluginError] = []
        self._whole = whole

    def follow(self, change: Document) -> None:
        """Switch plugins on and off, and change their options, as the next source says.

        Raises:
            PluginError: a plugin of ``-p`` has the name of another one that is active.
        """
        if isinstance(change, PluginList):
            self._replace(change)
        entries = change.tree.setdefault("plugins", {})
        for name, entry in entries.items():
            if entry is None:
                self._switch_off(name, change)
            elif "use" in entry:
                self._switch_on(name, entry["use"], change)
            else:
                self._change_options(name, entry, change)
        change.tree["plugins"] = {
            name: _without_own_id(name, entry)
            for name, entry in entries.items()
            if entry is not None and self.known[name].is_active
        }
        self._whole.merge(change)

    def _replace(self, change: Document) -> None:
        """Switch off whatever a list leaves out."""
        self._whole.pop(("plugins",))
        self.mistakes.clear()
        place = change.origin(("plugins",))
        for name, choice in self.known.items():
            choice.by = ""
            if choice.is_active and name not in change.tree["plugins"]:
                choice.is_active = False
                choice.trail.append(f"off: {place} lists plugins without it")

    def _switch_off(self, name: str, change: Document) -> None:
        path = ("plugins", name)
        by = change.origin(path) or dotted(path)
        meant = self._meant_by(name)
        for each in meant:
            self._whole.pop(("plugins", each.name))
            each.is_active, each.by = False, by
        for each in meant or [self._choice(name, name)]:
            each.trail.append(f"off: {by}")
        if not meant and not installed.is_known(name):
            self._refuse(change, name, f"no plugin is called {name!r}", "")

    def _switch_on(self, name: str, use: str, change: Document) -> None:
        choice = self._choice(name, use)
        origin = change.origin(("plugins", name))
        is_other = os.path.abspath(use) != os.path.abspath(choice.use)
        if choice.is_active and is_other and isinstance(change, PluginNamed):
            by_option = origin.startswith("-p ")
            way = f"-p no:{name}" if by_option else f"no:{name} ahead of it"
            raise PluginError(
                f"{origin}: it is called {name!r}, as is {choice.use} ({choice.by}); "
                "give a class of yours another `name`, or switch the other off before "
                f"it: {way}"
            )
        choice.use, choice.is_active = use, True
        choice.by = origin or "a default of trainbus run"
        choice.trail.append(f"on: {choice.by}")

    def _change_options(
        self, name: str, entry: Mapping[str, Any], change: Document
    ) -> None:
        path = ("plugins", name)
        choice = self._choice(name, name)
        choice.trail.append(f"options changed: {change.origin(path)}")
        options = entry.get("options", {})
        if choice.is_active and options.get("id", name) == name:
            return
        if choice.is_active:
            told = f"plugin {name!r} gets its id in a configuration's list of plugins "
            told += "alone; write there: "
            way = f"- {choice.use}: {{id: ...}}"
            self.mistakes.append(PluginError(f"{change.place(path)}: {told}{way}"))
        elif choice.by:
            told = f"plugin {name!r} is switched off by {choice.by}; leave out one of "
            self.mistakes.append(PluginError(f"{change.place(path)}: {told}the two"))
        elif ids := [each.name for each in self._meant_by(name)]:
            option = next(iter(options), "OPTION")
            runs = " and ".join(map(repr, ids))
            ways = " or ".join(f"plugins.{each}.{option}" for each in ids)
            told = f"plugin {name!r} runs as {runs}; write {ways}"
            self.mistakes.append(PluginError(f"{change.place(path)}: {told}"))
        else:
            way = f"; enable it with: -p {name}" if installed.is_known(name) else ""
            self._refuse(change, name, f"plugin {name!r} is not enabled", way)

    def _choice(self, name: str, use: str) -> Choice:
        return self.known.setdefault(name, Choice(name, use))

    def _meant_by(self, name: str) -> list[Choice]:
        """Return what is active and meant: that id alone, else all such plugins."""
        active = [each for each in self.known.values() if each.is_active]
        own = [each for each in active if each.name == name]
        return own or [e for e in active if installed.name_of(e.use) == name]

    def _refuse(self, change: Document, name: str, what: str, way: str) -> None:
        """Note that a source speaks of a plugin that is not there to be changed."""
        active = self._whole.get(("plugins",), {})
        self.mistakes.append(
            PluginError(
                f"{change.place(('plugins', name))}: {what}"
                f"{did_you_mean(name, active)}; enabled are: "
                f"{', '.join(active) or 'none'}{way}"
            )
        )


def _without_own_id(name: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return changed options without the id that the plugin has in its list."""
    options = entry.get("options", {})
    if "use" in entry or options.get("id") != name:
        return entry
    others = {option: value for option, value in options.items() if option != "id"}
    return {**entry, "options": others}
