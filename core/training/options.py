"""Turn plugin specifications into instances: the constructor's signature is the schema.

A specification is what a configuration lists: ``"name"``, or ``{"name": {option:
value}}``, or either with ``"./file.py:Class"`` as the name. Two options are reserved:
``id`` names the instance, so that one plugin can take part twice; ``on_failure`` is
``fatal`` or ``isolate``, in place of the class's own policy.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from training import discovery
from training.discovery import BrokenPluginError
from training.errors import ConfigError, PluginError, TrainbusError, did_you_mean
from training.registration import FAILURE_POLICIES
from training.slots import describe

__all__ = [
    "PluginSpec",
    "build_plugin",
    "build_plugins",
    "load_class",
    "option_mistakes",
    "parameters_of",
    "parse_specs",
    "signature_mistakes",
    "spec_mistakes",
]

#: Options that every plugin has.
RESERVED = ("id", "on_failure")

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
    if discovery.is_file(spec.use):
        return discovery.load_file(spec.use, where)
    return discovery.load(discovery.find(spec.use, where))


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
            told = str(error)
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
        return [str(error)]
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
        name: _convert(parameters[name], value) if name in parameters else value
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
            f"{path}: {cls.__name__} ({describe(cls)}) refuses its options: {error}"
        ) from error
    except (Exception, SystemExit) as error:
        raise BrokenPluginError(
            f"{path}: {cls.__name__} ({describe(cls)}) cannot be constructed: "
            f"{type(error).__name__}: {error}"
        ) from error


def option_mistakes(
    cls: type[Any], options: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Return (option, what is wrong with it) for every mistake, in reading order."""
    parameters = parameters_of(cls)
    takes_more = _takes_more(cls)
    mistakes = []
    for name, value in options.items():
        if name in parameters:
            text = _complaint(parameters[name], value)
            if text:
                mistakes.append((name, f"is {value!r}{text}"))
        elif not takes_more:
            known = ", ".join(parameters) or "none"
            hint = did_you_mean(name, [*parameters, *RESERVED])
            mistakes.append((name, f"is no option{hint}; the options are: {known}"))
    mistakes += [
        (name, "is missing; it has no default")
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and name not in options
    ]
    return mistakes


def signature_mistakes(cls: type[Any]) -> list[str]:
    """Return what is wrong with a constructor as the schema of options."""
    parameters = parameters_of(cls)
    mistakes = [
        f"the option {name!r} is reserved for the configuration; rename it"
        for name in RESERVED
        if name in parameters
    ]
    # Only pydantic's own classes take it away; here it would arrive as the value.
    return mistakes + [
        f"the option {name!r} has a Field as its default; write it into the type, as "
        "in Annotated[int, Field(ge=1)] = 3"
        for name, parameter in parameters.items()
        if type(parameter.default).__name__ == "FieldInfo"
    ]


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
        return PluginSpec(entry, _default_id(entry))
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise PluginError(
            f"{where} is {entry!r}; write a name, or one `name: {{option: value}}`"
        )
    ((use, given),) = entry.items()
    options = {} if given is None else given
    if not isinstance(use, str) or not isinstance(options, Mapping):
        raise PluginError(
            f"{where} is {entry!r}; write a name, or one `name: {{option: value}}`"
        )
    options = dict(options)
    name = options.pop("id", None) or _default_id(use)
    if not isinstance(name, str):
        raise PluginError(f"{where}: id is {name!r}; use a word")
    return PluginSpec(use, name, options)


def _default_id(use: str) -> str:
    """Return the entry-point name, or the class name of a file's plugin."""
    return use.rpartition(":")[2] if discovery.is_file(use) else use


def parameters_of(cls: type[Any]) -> dict[str, inspect.Parameter]:
    """Return the named parameters of the constructor, annotations resolved."""
    if cls.__init__ is object.__init__:
        return {}
    parameters = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            hint = _resolve(parameter.annotation, cls)
            parameters[name] = parameter.replace(annotation=hint)
    return parameters


def _takes_more(cls: type[Any]) -> bool:
    """Whether the constructor takes ``**kwargs``, so that any name is an option."""
    if cls.__init__ is object.__init__:
        return False
    parameters = inspect.signature(cls).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _resolve(annotation: Any, cls: type[Any]) -> Any:
    """Return the type that ``annotation`` means.

    Names imported under TYPE_CHECKING only do not exist here. In their place stands a
    type that takes any object, but nothing that a configuration file can write.
    """
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    scope = getattr(inspect.unwrap(cls.__init__), "__globals__", {})
    try:
        return eval(annotation, scope)  # what typing.get_type_hints does
    except Exception:
        pass
    if "|" not in annotation:
        return _foreign()
    members = [_resolve(part.strip(), cls) for part in annotation.split("|")]
    return typing.Union[tuple(members)]  # noqa: UP007 - the members are a list


def _foreign() -> Any:
    """Return the type of objects that no configuration file can write."""
    from pydantic import AfterValidator

    def refuse(value: Any) -> Any:
        if isinstance(value, (str, int, float, list, dict)):
            raise ValueError("an object that only Python code can pass")
        return value

    return typing.Annotated[Any, AfterValidator(refuse)]


def _complaint(parameter: inspect.Parameter, value: Any) -> str:
    """Return what ``value`` must be and is not, or ``""``."""
    from pydantic import ValidationError

    try:
        _convert(parameter, value)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        if len(problems) > 1:
            return f", but must be {_words(parameter.annotation)}"
        text = problems[0]["msg"].removeprefix("Value error, ")
        if problems[0]["type"] == "value_error" or text.startswith("Input should be "):
            text = text.removeprefix("Input should be ")
            return f", but must be {text.replace('a valid array', 'a list')}"
        return f": {text}"
    return ""


def _words(annotation: Any) -> str:
    return inspect.formatannotation(annotation).replace(" | ", " or ")


def _convert(parameter: inspect.Parameter, value: Any) -> Any:
    """Return ``value`` as the parameter's type; strict, as a typed file would be read.

    Python objects are taken as they are; what YAML can write may become a path, tuple,
    set or enumeration. True is no number, 1.0 is no integer, 1 is a float.

    Raises:
        pydantic.ValidationError: it is of another type.
    """
    from pydantic import TypeAdapter, ValidationError

    if parameter.annotation is Any or value is parameter.default:
        return value
    adapter = _adapter(TypeAdapter, parameter.annotation)
    if adapter is None:
        return value
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError:
        try:
            text = json.dumps(value)
        except (TypeError, ValueError):
            text = None
        if text is None:
            raise
        return adapter.validate_json(text, strict=True)


def _adapter(make: Any, annotation: Any) -> Any:
    """Return a validator of ``annotation``, or None where there can be none."""
    from pydantic import ConfigDict, PydanticUserError

    try:
        return make(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            return None
    return make(annotation)  # a model or dataclass brings its own configuration
