"""What can be said of every installed plugin without importing one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from training.app.config.plugin_choices import Choice
from training.bus.declared import api_mistake
from training.bus.foreign_hooks import hint_for
from training.bus.methods import async_mistake
from training.bus.order import relation_mistake, solve_order
from training.bus.ranks import ranks_mistake
from training.discovery import installed
from training.discovery.installed import CALLBACK, PluginInfo
from training.discovery.sources import (
    SourceError,
    SourceFacts,
    UnknownSourceError,
    read_class,
)
from training.errors import PluginError
from training.hookspecs import HOOKS

__all__ = [
    "Entry",
    "Named",
    "Standing",
    "entries",
    "facts_of",
    "kind_of",
    "order_of",
    "standing_in",
]

#: Kind and name of one that is installed, or of a class in a file.
Named = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One installed plugin.

    Attributes:
        info: what its distribution announces.
        facts: what its source says; None if it does not say.
        state: ``"active"``, ``"off"`` or ``"broken"``.
        why: the reason of that state.
    """

    info: PluginInfo
    facts: SourceFacts | None
    state: str
    why: str

    @property
    def hook_api(self) -> str:
        """The declared range of the hook API; ``""`` for none."""
        return str((self.facts.attributes if self.facts else {}).get("hook_api") or "")

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        keys = ("kind", "name", "distribution", "version", "value", "path", "shadowed")
        return {
            **{key: getattr(self.info, key) for key in keys},
            "hook_api": self.hook_api or None,
            "hooks": list(self.facts.hooks) if self.facts else None,
            "state": self.state,
            "why": self.why,
        }


def entries(
    chosen: Mapping[str, Choice], parts: Mapping[Named, str] | None = None
) -> list[Entry]:
    """Return all that is installed, of every kind; what is chosen is active.

    Args:
        chosen: plugins, by the name that they have in the run.
        parts: kind and name of a task, model family or reader -> what chose it.
    """
    found = installed.installed(None)
    return [_entry(info, found, chosen, parts or {}) for info in found]


def kind_of(name: str, kind: str | None, where: str) -> str:
    """Return what ``name`` is; ``kind`` decides where it is that of several.

    Without it an installed callback goes first: to it alone a name belonged once.

    Raises:
        PluginError: it is of several kinds and nobody says which.
    """
    if kind is not None:
        return kind
    if installed.is_file(name):
        file, _, own = name.rpartition(":")
        path = Path(file)
        try:
            kinds = set(read_class(path.stem, own, path.resolve()).kinds)
        except (SourceError, OSError):
            return CALLBACK  # finding it says what is wrong
    else:
        kinds = {info.kind for info in installed.installed(None) if info.name == name}
        if CALLBACK in kinds:
            return CALLBACK
    if len(kinds) > 1:
        raise PluginError(
            f"{where}: {name!r} is a {' and a '.join(sorted(kinds))}; say which with "
            "--kind"
        )
    return next(iter(kinds), CALLBACK)


def facts_of(info: PluginInfo) -> SourceFacts:
    """Return what the source of ``info`` says.

    Raises:
        SourceError: it cannot be loaded.
        UnknownSourceError: its source does not say.
    """
    if info.trouble:
        raise SourceError(info.trouble)
    module, _, name = info.value.rpartition(":")
    if installed.is_file(info.value):
        path = Path(module)
        return read_class(path.stem, name, path)
    return read_class(module, name)


def complaint(facts: SourceFacts) -> str:
    """Return why the bus would refuse the plugin, ``""`` if nothing is seen."""
    if facts.asynchronous:
        return async_mistake(facts.asynchronous[0])
    if facts.misspelt:
        word = facts.misspelt[0]
        return f"{word!r} is no hook{hint_for(word)}"
    return (
        relation_mistake(standing_in(facts))
        or ranks_mistake(SimpleNamespace(**facts.attributes), facts.hooks)
        or api_mistake(facts.attributes.get("hook_api"))
    )


def _entry(
    info: PluginInfo,
    found: Sequence[PluginInfo],
    chosen: Mapping[str, Choice],
    parts: Mapping[Named, str],
) -> Entry:
    named = info.kind, info.name
    rivals = [o for o in found if (o.kind, o.name) == named and o is not info]
    is_callback = info.kind == CALLBACK
    try:
        facts = facts_of(info)
        trouble = complaint(facts) if is_callback else ""
    except UnknownSourceError:
        facts, trouble = None, ""
    except SourceError as error:
        facts, trouble = None, str(error)
    if rivals:
        others = ", ".join(installed.provider(one) for one in rivals)
        end = installed.way_out([info, *rivals])
        trouble = f"{info.name!r} is also provided by {others}; {end}"
    if trouble:
        return Entry(info, facts, "broken", trouble)
    if not is_callback:
        why = parts.get(named)
        return Entry(info, facts, "active" if why else "off", why or "nobody chose it")
    mine = [choice for choice in chosen.values() if choice.use == info.name]
    active = [choice for choice in mine if choice.is_active]
    said = [choice.trail[-1] for choice in active or mine if choice.trail]
    why = "; ".join(dict.fromkeys(said)) or "nobody chose it"
    namesake = chosen.get(info.name)
    if not mine and namesake is not None and namesake.is_active:
        why = f"its name is that of {namesake.use}, {namesake.trail[-1]}"
    return Entry(info, facts, "active" if active else "off", why)


@dataclass(frozen=True, slots=True)
class Standing:
    """Stands in for a plugin where only its order matters."""

    facts: SourceFacts
    name: Any = None
    before: Any = ()
    after: Any = ()


def standing_in(facts: SourceFacts) -> Standing:
    """Return what orders the plugin: its name, and its declared relations."""
    says = facts.attributes
    relations = says.get("before", ()), says.get("after", ())
    return Standing(facts, says.get("name"), *relations)


def order_of(plugins: Mapping[str, Standing]) -> list[tuple[str, list[str], list[str]]]:
    """Return (event, listeners in order, reasons) for each event that is heard.

    Raises:
        PluginError: the relations run in a circle.
    """
    order, reasons = solve_order(plugins)
    table = []
    for hook in HOOKS:
        heard = [name for name in order if hook in plugins[name].facts.hooks]
        around = [name for name in heard if hook in plugins[name].facts.wrappers]
        names = [f"({n} around)" for n in around]
        names += [name for name in heard if name not in around]
        told = [text for pair, text in reasons.items() if set(pair) <= set(heard)]
        if heard:
            table.append((hook, names, told))
    return table
