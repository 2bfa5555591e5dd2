"""The constructor's signature as the schema of its options: types, bounds, defaults.

A configuration is checked against it before anything is built; ``checked_options``
holds a constructor that Python code calls to the same.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from training.errors import ConfigError, did_you_mean
from training.plain import plain

__all__ = [
    "RESERVED",
    "checked_options",
    "converted",
    "option_mistakes",
    "parameters_of",
    "signature_mistakes",
]

#: Options that every plugin has.
RESERVED = ("id", "on_failure")

#: What pydantic says -> what a reader of YAML knows.
_PLAIN = {"a valid array": "a list", "less than inf": "finite"}

Init = TypeVar("Init", bound=Callable[..., None])


def checked_options(init: Init) -> Init:
    """Let a constructor refuse arguments that do not fit its own signature.

    As a decorator of ``__init__``, so that bounds in the annotations, such as
    ``Annotated[int, Ge(1)]``, hold for calls from Python as for configurations.
    Arguments arrive as they were passed, but numbers of other libraries as Python's
    own; defaults are not checked.

    Raises:
        ConfigError: by the decorated constructor: every mistake, one a line, as in
            ``checkpointing.save_top_k is -2, but must be ...``.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checking(self: Any, *args: Any, **kwargs: Any) -> None:
        args = tuple(plain(value) for value in args)
        kwargs = {name: plain(value) for name, value in kwargs.items()}
        try:
            given = signature.bind(self, *args, **kwargs).arguments
        except TypeError:
            given = {}  # Python itself says best what is wrong with such a call
        name = getattr(self, "name", None) or type(self).__name__
        parameters = _named((signature.parameters[each] for each in given), init)
        mistakes = [
            f"{name}.{option} is {given[option]!r}{text}"
            for option, parameter in parameters.items()
            if (text := _complaint(parameter, given[option]))
        ]
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        init(self, *args, **kwargs)

    return typing.cast(Init, checking)


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


def parameters_of(cls: type[Any]) -> dict[str, inspect.Parameter]:
    """Return the named parameters of the constructor, annotations resolved."""
    if cls.__init__ is object.__init__:
        return {}
    return _named(inspect.signature(cls).parameters.values(), cls.__init__)


def _named(
    parameters: Iterable[inspect.Parameter], init: Callable[..., Any]
) -> dict[str, inspect.Parameter]:
    """Return those of ``init``'s parameters that have names, annotations resolved."""
    scope = getattr(inspect.unwrap(init), "__globals__", {})
    return {
        each.name: each.replace(annotation=_resolve(each.annotation, scope))
        for each in parameters
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    }


def _takes_more(cls: type[Any]) -> bool:
    """Whether the constructor takes ``**kwargs``, so that any name is an option."""
    if cls.__init__ is object.__init__:
        return False
    parameters = inspect.signature(cls).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _resolve(annotation: Any, scope: dict[str, Any]) -> Any:
    """Return the type that ``annotation`` means.

    Names imported under TYPE_CHECKING only do not exist here. In their place stands a
    type that takes any object, but nothing that a configuration file can write.
    """
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, scope)  # what typing.get_type_hints does
    except Exception:
        pass
    if "|" not in annotation:
        return _foreign()
    members = [_resolve(part.strip(), scope) for part in annotation.split("|")]
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
    if _is_free(parameter, value):
        return ""
    from pydantic import ValidationError

    try:
        converted(parameter, value)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        problem = problems[0]
        is_item = isinstance((*problem["loc"], "")[0], int)
        if len(problems) > 1 and not is_item:  # one for each type of a union
            return f", but must be {_words(parameter.annotation)}"
        text = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "value_error":
            return f", but must be {text}"
        _, is_rule, rule = text.partition(" should ")
        if not is_rule:
            return f": {text}"
        hint = did_you_mean(str(problem["input"]), re.findall(r"'(.*?)'", rule))
        for word, plain in _PLAIN.items():
            rule = rule.replace(word, plain)
        return f"{hint}, but must {rule}"
    return ""


def _is_free(parameter: inspect.Parameter, value: Any) -> bool:
    """Whether ``value`` needs no check; pydantic is imported for the others only."""
    return parameter.annotation is Any or value is parameter.default


def _words(annotation: Any) -> str:
    return inspect.formatannotation(annotation).replace(" | ", " or ")


def converted(parameter: inspect.Parameter, value: Any) -> Any:
    """Return ``value`` as the parameter's type; strict, as a typed file would be read.

    Python objects are taken as they are; what YAML can write may become a path, tuple,
    set or enumeration. True is no number, 1.0 is no integer, 1 is a float.

    Raises:
        pydantic.ValidationError: it is of another type.
    """
    value = plain(value)
    if _is_free(parameter, value):
        return value
    from pydantic import TypeAdapter, ValidationError

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
