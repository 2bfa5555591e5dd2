"""The constructor's signature as the schema of its options: types, bounds, defaults.

A configuration is checked against it before anything is built; ``checked_options``
holds a constructor that Python code calls to the same.
"""

from __future__ import annotations

import functools
import inspect
import json
import typing
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

from training.discovery.fields import default_of, fields_of, filled
from training.documents.document import Key, dotted
from training.errors import ConfigError, did_you_mean
from training.plain import plain

#: Options that every plugin has.
RESERVED = ("id", "on_failure")

#: The constructor that is about to get values that were fitted to its signature.
_fitted_for: ContextVar[Any] = ContextVar("fitted_for", default=None)

#: Where below the options a mistake is, and what to say behind that place.
Mistake = tuple[Key, str]

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
        if _fitted_for.get() is checking:
            _fitted_for.set(None)  # what it constructs in turn is checked
            return init(self, *args, **kwargs)
        args = tuple(plain(value) for value in args)
        kwargs = {name: plain(value) for name, value in kwargs.items()}
        try:
            given = signature.bind(self, *args, **kwargs).arguments
        except TypeError:
            given = {}  # Python itself says best what is wrong with such a call
        name = getattr(self, "name", None) or type(self).__name__
        parameters = _named((signature.parameters[each] for each in given), init)
        checked = [_checked(parameters[each], given[each]) for each in parameters]
        mistakes = [
            f"{name}.{dotted(path)}{text}"
            for _, found in checked
            for path, text in found
        ]
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        return init(self, *args, **kwargs)

    return typing.cast(Init, checking)


def fitted(
    cls: type[Any], options: Mapping[str, Any], also: Iterable[str] = RESERVED
) -> tuple[dict[str, Any], list[Mistake]]:
    """Return the options as the constructor's types, and what is wrong with them.

    The check is strict, as a typed file would be read: True is no number, 1.0 is no
    integer, 1 is a float. What YAML can write may become a path, tuple, set or
    enumeration; Python objects are taken as they are.

    Args:
        cls: whose constructor takes them.
        options: what is given.
        also: names that may stand beside the options, for suggestions.
    Returns:
        Keyword arguments for ``instance``, good if there is no mistake; and for every
        mistake, in reading order, its place below the options and what to say there.
    """
    takes_more = cls.__init__ is not object.__init__ and _takes_more(cls)
    return _fit(parameters_of(cls), takes_more, options, also)


def fitted_call(
    function: Callable[..., Any], options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Mistake]]:
    """Return the same of the keyword-only arguments of a function."""
    return _fit(keyword_only(function), _takes_more(function), options, ())


def keyword_only(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the keyword-only parameters of a function, as ``parameters_of``."""
    given = inspect.signature(function).parameters.values()
    return _named((p for p in given if p.kind is p.KEYWORD_ONLY), function)


def _fit(
    parameters: Mapping[str, inspect.Parameter],
    takes_more: bool,
    options: Mapping[str, Any],
    also: Iterable[str],
) -> tuple[dict[str, Any], list[Mistake]]:
    values: dict[str, Any] = {}
    mistakes: list[Mistake] = []
    for name, value in options.items():
        if name in parameters:
            values[name], found = _checked(parameters[name], value)
            mistakes += found
        elif takes_more:
            values[name] = plain(value)
        else:
            known = ", ".join(parameters) or "none"
            hint = did_you_mean(name, [*parameters, *also])
            # "none" would contradict a hint at what may stand beside the options.
            told = f" is no option{hint}"
            told += "" if hint and not parameters else f"; the options are: {known}"
            mistakes.append(((name,), told))
    mistakes += [
        ((name,), " is missing; it has no default")
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and name not in options
    ]
    return values, mistakes


def instance(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """Return ``cls(**values)`` for values that are ``fitted``: not checked again."""
    given = filled(cls.__init__, values)
    token = _fitted_for.set(cls.__init__)
    try:
        return cls(**given)
    finally:
        _fitted_for.reset(token)


def signature_mistakes(cls: type[Any]) -> list[str]:
    """Return what is wrong with a constructor as the schema of options."""
    # Its bounds are not seen, and from Python it arrives as the value.
    return out_of_reach(cls) + [
        f"the option {name!r} has a Field as its default; write it into the type, as "
        "in Annotated[int, Field(ge=1)] = 3"
        for name in fields_of(cls.__init__)
    ]


def out_of_reach(cls: type[Any]) -> list[str]:
    """Return which options of a constructor no configuration can set."""
    parameters = parameters_of(cls)
    return [
        f"the option {name!r} is reserved for the configuration; rename it"
        for name in RESERVED
        if name in parameters
    ]


def parameters_of(cls: type[Any]) -> dict[str, inspect.Parameter]:
    """Return the named parameters of the constructor.

    Annotations are resolved; a Field in place of a default gives way to what it holds.
    """
    if cls.__init__ is object.__init__:
        return {}
    return _named(inspect.signature(cls).parameters.values(), cls.__init__)


def _named(
    parameters: Iterable[inspect.Parameter], init: Callable[..., Any]
) -> dict[str, inspect.Parameter]:
    """Return those of ``init``'s parameters that have names, as ``parameters_of``."""
    scope = getattr(inspect.unwrap(init), "__globals__", {})
    return {
        each.name: each.replace(
            annotation=_resolve(each.annotation, scope), default=default_of(each)
        )
        for each in parameters
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    }


def _takes_more(function: Callable[..., Any]) -> bool:
    """Whether it takes ``**kwargs``, so that any name is an option."""
    parameters = inspect.signature(function).parameters.values()
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
    from pydantic_core import PydanticCustomError

    def refuse(value: Any) -> Any:
        if isinstance(value, (str, int, float, list, dict)):
            raise PydanticCustomError("needs_python_object", "not from a file")
        return value

    return typing.Annotated[Any, AfterValidator(refuse)]


def _checked(parameter: inspect.Parameter, value: Any) -> tuple[Any, list[Mistake]]:
    """Return ``value`` as the parameter's type, and the first mistake in it, if any.

    pydantic is imported only for what is neither a default nor free.
    """
    value = plain(value)
    if parameter.annotation is Any or value is parameter.default:
        return value, []
    from pydantic import PydanticUserError, ValidationError

    try:
        return _converted(parameter.annotation, value), []
    except PydanticUserError as error:
        if error.code != "typed-dict-version":
            raise
        told = " is of a typing.TypedDict, which cannot be checked before Python 3.12; "
        told += "have its class use typing_extensions.TypedDict"
        return value, [((parameter.name,), told)]
    except ValidationError as error:
        from training.documents.mistakes import mistakes_in

        path, text = next(mistakes_in(error, value))
        return value, [((parameter.name, *path), text)]


def _converted(annotation: Any, value: Any) -> Any:
    from pydantic import ValidationError

    adapter = _adapter(annotation)
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


def _adapter(annotation: Any) -> Any:
    """Return a validator of ``annotation``, or None where there can be none.

    It takes no key that a dataclass has no field for; a pydantic class decides itself.
    """
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter
    from typing_extensions import TypeAliasType

    # A dataclass itself would take no configuration, but its alias does.
    alias: Any = TypeAliasType("alias", annotation)
    config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    try:
        return TypeAdapter(alias, config=config)
    except PydanticUserError as error:
        if error.code == "typed-dict-version":
            raise
        return None
