"""Turn plugin specifications into instances, after all their options were checked.

A specification is what a configuration lists: ``"name"``, or ``{"name": {option:
value}}``, or either with ``"./file.py:Class"`` as the name. Two options are reserved:
``id`` names the instance, so that one plugin can take part twice; ``on_failure`` is
``fatal`` or ``isolate``, in place of the class's own policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from training.discovery import installed
from training.discovery.installed import BrokenPluginError
from training.discovery.provenance import describe
from training.discovery.signature import (
    RESERVED,
    Mistake,
    fitted,
    instance,
    out_of_reach,
)
from training.documents.document import Key, dotted
from training.errors import ConfigError, PluginError, TrainbusError
from training.hooks.hook_api import FAILURE_POLICIES
from training.messages.error_texts import error_text, text_of
from training.signals.handlers import Terminated

#: Turns the path of a setting into words that a reader can find it by.
Locate = Callable[[Key], str]


@dataclass(frozen=True, slots=True)
class PluginSpec:
    """One entry of a plugin list.

    Attributes:
        use: an entry-point name, or ``path.py:Class``.
        id: what the instance is called in the run; unique.
        options: keyword arguments of its constructor, and maybe ``on_failure``.
    """

    use: str
    id: str
    options: Mapping[str, Any] = field(default_factory=dict)


def parse_specs(specs: Iterable[Any], locate: Locate = dotted) -> list[PluginSpec]:
    """Return the entries of a plugin list in one form.

    Raises:
        PluginError: an entry has another form, or two have the same id.
    """
    parsed: dict[str, PluginSpec] = {}
    for index, entry in enumerate(specs):
        place = locate(("plugins", str(index)))
        spec = _parse_spec(entry, place)
        if spec.id in parsed:
            raise PluginError(
                f"{place}: plugin {spec.id!r} is listed "
                "twice; drop one, or tell them apart with the option `id: NAME`"
            )
        parsed[spec.id] = spec
    return list(parsed.values())


def find_plugin(spec: PluginSpec, locate: Locate = dotted) -> None:
    """Raise ``PluginError`` if nobody provides the plugin; a file is not looked at."""
    if not installed.is_file(spec.use):
        installed.find(spec.use, locate(("plugins", spec.id)))


def load_class(
    use: str, where: str = "plugins", kind: str = installed.CALLBACK
) -> type[Any]:
    """Import and return the class that ``use`` names, of whatever kind."""
    if installed.is_file(use):
        return installed.load_file(use, where)
    return installed.load(installed.find(use, where, kind))


def refuse_mistakes(mistakes: Iterable[Mistake], locate: Locate, at: Key) -> None:
    """Raise ``PluginError`` for what is wrong with options that stand at ``at``."""
    told = [locate((*at, *path)) + text for path, text in mistakes]
    if told:
        raise PluginError("\n".join(told))


def build_plugins(
    specs: Iterable[Any], locate: Locate = dotted
) -> list[tuple[str, Any]]:
    """Return (name, instance) for every entry of a plugin list, in its order.

    Args:
        specs: specifications; a finished (name, instance) pair passes through.
        locate: turns ``("plugins", id, option)`` into words, for messages.
    Raises:
        PluginError: unknown plugins, options that are unknown, missing or of the wrong
            type: all mistakes at once, one a line, before anything is constructed;
            after that, all that the constructors refuse.
    """
    if isinstance(specs, (str, Mapping)) or not isinstance(specs, Iterable):
        raise PluginError(
            f"plugins is {specs!r}; write a list of names or of `{{name: {{option: "
            "value}}`, as in plugins=['csv']; an instance belongs to callbacks"
        )
    entries = list(specs)
    pairs = [entry for entry in entries if isinstance(entry, tuple)]
    parsed = parse_specs((e for e in entries if not isinstance(e, tuple)), locate)
    mistakes: list[str] = []
    makers: dict[str, Callable[[], Any]] = {}
    for spec in parsed:
        try:
            makers[spec.id] = checked_spec(spec, locate)
        except BrokenPluginError:
            raise  # its own traceback matters more than further mistakes
        except PluginError as error:
            mistakes.append(text_of(error))
    if mistakes:
        raise PluginError("\n".join(mistakes))
    for name, make in makers.items():
        try:
            pairs.append((name, make()))
        except BrokenPluginError:
            raise
        except ConfigError as error:
            place = locate(("plugins", name))
            told = text_of(error)
            mistakes.append(told if told.startswith(place) else f"{place}: {told}")
    if mistakes:
        raise PluginError("\n".join(mistakes))
    return pairs


def checked_spec(spec: PluginSpec, locate: Locate = dotted) -> Callable[[], Any]:
    """Return what makes the instance; nothing is constructed here.

    Args:
        spec: the entry.
        locate: turns ``("plugins", id, option)`` into words, for messages.
    Raises:
        PluginError: the class is not found, or its options are wrong: one mistake a
            line.
        BrokenPluginError: the class cannot be imported.
    """
    place = locate(("plugins", spec.id))
    cls = load_class(spec.use, place)
    if wrong := out_of_reach(cls):
        raise PluginError(
            f"{place}: {cls.__name__} ({describe(cls)}) cannot be configured: "
            f"{'; '.join(wrong)}"
        )
    options = {k: v for k, v in spec.options.items() if k not in RESERVED}
    values, mistakes = fitted(cls, options)
    policy = spec.options.get("on_failure")
    if policy is not None and policy not in FAILURE_POLICIES:
        choices = ", ".join(FAILURE_POLICIES)
        mistakes.append((("on_failure",), f" is {policy!r}; choose one of: {choices}"))
    refuse_mistakes(mistakes, locate, ("plugins", spec.id))

    def make() -> Any:
        plugin = construct(cls, values, place)
        if policy is not None:
            plugin.failure = policy
        return plugin

    return make


def construct(cls: type[Any], values: Mapping[str, Any], path: str) -> Any:
    """Return ``cls(**values)``; what it raises comes as a sentence about ``path``."""
    try:
        return instance(cls, values)
    except TrainbusError:
        raise
    except ValueError as error:
        raise PluginError(
            f"{path}: {cls.__name__} ({describe(cls)}) refuses its options: "
            f"{text_of(error)}"
        ) from error
    except Terminated:  # it is not the plugin that leaves
        raise
    except (Exception, SystemExit) as error:
        raise BrokenPluginError(
            f"{path}: {cls.__name__} ({describe(cls)}) cannot be constructed: "
            f"{error_text(error)}"
        ) from error


def name_and_options(entry: Any) -> tuple[str | None, Mapping[str, Any]]:
    """Read ``NAME`` or ``{NAME: {option: value}}``; the name is None for all else."""
    named = {entry: None} if isinstance(entry, str) else entry
    is_one = isinstance(named, Mapping) and len(named) == 1
    ((name, given),) = named.items() if is_one else [(None, None)]
    if not isinstance(name, str) or not isinstance(given, Mapping | None):
        return None, {}
    return name, given or {}


def _parse_spec(entry: Any, where: str) -> PluginSpec:
    if isinstance(entry, PluginSpec):
        return entry
    use, given = name_and_options(entry)
    if use is None:
        raise PluginError(
            f"{where} is {entry!r}; write a name, or one `name: {{option: value}}` (an "
            "instance belongs to callbacks)"
        )
    options = dict(given)
    name = options.pop("id", None)
    if name is None:
        name = installed.name_of(use)
    if not isinstance(name, str) or not name:
        raise PluginError(f"{where}: id is {name!r}; use a word")
    return PluginSpec(use, name, options)
