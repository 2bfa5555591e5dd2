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

from training.bus.registration import FAILURE_POLICIES
from training.bus.slots import describe
from training.discovery import installed
from training.discovery.installed import BrokenPluginError
from training.discovery.signature import (
    RESERVED,
    converted,
    option_mistakes,
    parameters_of,
)
from training.errors import ConfigError, PluginError, TrainbusError
from training.messages.error_texts import error_text, text_of

__all__ = [
    "PluginSpec",
    "build_plugin",
    "build_plugins",
    "load_class",
    "parse_specs",
    "spec_mistakes",
]

#: Turns the path of a setting into words that a reader can find it by.
Locate = Callable[[tuple[str, ...]], str]


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path)


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

    @property
    def own_options(self) -> dict[str, Any]:
        """What the constructor gets."""
        return {k: v for k, v in self.options.items() if k not in RESERVED}


def parse_specs(specs: Iterable[Any], locate: Locate = _dotted) -> list[PluginSpec]:
    """Return the entries of a plugin list in one form.

    Raises:
        PluginError: an entry has another form, or two have the same id.
    """
    parsed: dict[str, PluginSpec] = {}
    for index, entry in enumerate(specs):
        spec = _parse_spec(entry, locate(("plugins", str(index))))
        if spec.id in parsed:
            raise PluginError(
                f"{locate(('plugins', str(index)))}: plugin {spec.id!r} is listed "
                "twice; drop one, or tell them apart with the option `id: NAME`"
            )
        parsed[spec.id] = spec
    return list(parsed.values())


def load_class(spec: PluginSpec, where: str = "plugins") -> type[Any]:
    """Import and return the class that ``spec`` names."""
    if installed.is_file(spec.use):
        return installed.load_file(spec.use, where)
    return installed.load(installed.find(spec.use, where))


def build_plugins(
    specs: Iterable[Any], locate: Locate = _dotted
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
    classes: dict[str, type[Any]] = {}
    mistakes: list[str] = []
    for spec in parsed:
        mistakes += spec_mistakes(spec, locate, classes)
    if mistakes:
        raise PluginError("\n".join(mistakes))
    for spec in parsed:
        try:
            pairs.append((spec.id, _build(classes[spec.id], spec, locate)))
        except BrokenPluginError:
            raise  # its own traceback matters more than further mistakes
        except ConfigError as error:
            place = locate(("plugins", spec.id))
            told = text_of(error)
            mistakes.append(told if told.startswith(place) else f"{place}: {told}")
    if mistakes:
        raise PluginError("\n".join(mistakes))
    return pairs


def spec_mistakes(
    spec: PluginSpec, locate: Locate, classes: dict[str, type[Any]] | None = None
) -> list[str]:
    """Return what is wrong with one entry, in sentences; nothing is constructed.

    Args:
        spec: the entry.
        locate: turns ``("plugins", id, option)`` into words.
        classes: receives id -> class.
    Raises:
        BrokenPluginError: its own traceback matters more than further mistakes.
    """
    try:
        cls = load_class(spec, locate(("plugins", spec.id)))
    except BrokenPluginError:
        raise
    except PluginError as error:
        return [text_of(error)]
    if classes is not None:
        classes[spec.id] = cls
    found = [*option_mistakes(cls, spec.own_options), *_policy_mistakes(spec)]
    return [f"{locate(('plugins', spec.id, option))} {text}" for option, text in found]


def build_plugin(cls: type[Any], options: Mapping[str, Any], path: str) -> Any:
    """Return ``cls(**options)`` after checking the options against its signature.

    Args:
        cls: a plugin class.
        options: keyword arguments of its constructor, as YAML or Python gives them.
        path: where they are written, for messages.
    Raises:
        PluginError: every mistake at once, or what the constructor refuses.
        BrokenPluginError: the constructor failed otherwise.
    """
    mistakes = option_mistakes(cls, options)
    if mistakes:
        raise PluginError("\n".join(f"{path}.{name} {text}" for name, text in mistakes))
    parameters = parameters_of(cls)
    values = {
        name: converted(parameters[name], value) if name in parameters else value
        for name, value in options.items()
    }
    return construct(cls, values, path)


def construct(cls: type[Any], values: Mapping[str, Any], path: str) -> Any:
    """Return ``cls(**values)``; what it raises comes as a sentence about ``path``."""
    try:
        return cls(**values)
    except TrainbusError:
        raise
    except ValueError as error:
        raise PluginError(
            f"{path}: {cls.__name__} ({describe(cls)}) refuses its options: "
            f"{text_of(error)}"
        ) from error
    except (Exception, SystemExit) as error:
        raise BrokenPluginError(
            f"{path}: {cls.__name__} ({describe(cls)}) cannot be constructed: "
            f"{error_text(error)}"
        ) from error


def _build(cls: type[Any], spec: PluginSpec, locate: Locate) -> Any:
    plugin = build_plugin(cls, spec.own_options, locate(("plugins", spec.id)))
    policy = spec.options.get("on_failure")
    if policy is not None:
        plugin.failure = policy
    return plugin


def _policy_mistakes(spec: PluginSpec) -> list[tuple[str, str]]:
    policy = spec.options.get("on_failure")
    if policy is None or policy in FAILURE_POLICIES:
        return []
    choices = ", ".join(FAILURE_POLICIES)
    return [("on_failure", f"is {policy!r}; choose one of: {choices}")]


def _parse_spec(entry: Any, where: str) -> PluginSpec:
    if isinstance(entry, PluginSpec):
        return entry
    if isinstance(entry, str):
        return PluginSpec(entry, installed.name_of(entry))
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise PluginError(
            f"{where} is {entry!r}; write a name, or one `name: {{option: value}}` (an "
            "instance belongs to callbacks)"
        )
    ((use, given),) = entry.items()
    options = {} if given is None else given
    if not isinstance(use, str) or not isinstance(options, Mapping):
        raise PluginError(
            f"{where} is {entry!r}; write a name, or one `name: {{option: value}}`"
        )
    options = dict(options)
    name = options.pop("id", None)
    if name is None:
        name = installed.name_of(use)
    if not isinstance(name, str) or not name:
        raise PluginError(f"{where}: id is {name!r}; use a word")
    return PluginSpec(use, name, options)
