"""What a plugin declares, spelt right: else it would say nothing to anybody."""

from __future__ import annotations

import difflib
import inspect
import logging
import reprlib
from collections.abc import Mapping
from types import FunctionType
from typing import Any, Final

from training.bus.callback import Callback
from training.bus.foreign_hooks import FOREIGN, hint_for
from training.bus.slots import describe
from training.errors import PluginError, did_you_mean
from training.hooks.hook_api import API_VERSION, PROJECT, SINCE, is_meant
from training.hookspecs import HOOKS

log = logging.getLogger(__name__)

#: What a plugin may declare in ``mutates``.
MUTABLES: Final = ("parameters", "gradients", "optimizer", "modes", "rng")
_CHOICES = {"mutates": MUTABLES, "reads_device": HOOKS}
_COLLECTIONS = (tuple, list, set, frozenset, Mapping)
_STATE = ("state_dict", "load_state_dict")
#: Names that are near these are too often others' own, as in ``names``.
_EVERYDAY = ("name", "scheduler")
#: Attribute -> of which kind its value is, or would be if it were misspelt.
_KINDS: dict[str, tuple[type, ...]] = dict.fromkeys(_STATE, (FunctionType,))
for _name, _default in vars(Callback).items():
    if _name[0] == "_" or _name in (*_STATE, *_EVERYDAY):
        continue
    if isinstance(_default, bool):
        _KINDS[_name] = (bool,)
    elif isinstance(_default, (tuple, dict)):
        _KINDS[_name] = (str, *_COLLECTIONS)
    else:
        _KINDS[_name] = (str,)


def api_mistake(hook_api: Any) -> str:
    """Return what is wrong with a declared range of the hook API, ``""`` if nothing.

    Args:
        hook_api: a version range such as ``">=1.0,<2"``; None declares nothing.
    """
    if hook_api is None:
        return ""
    # Here, since most plugins declare no range.
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        hash(hook_api)  # what cannot be hashed is no text
        fits = API_VERSION in SpecifierSet(hook_api)
    except (InvalidSpecifier, AttributeError, TypeError):
        return f"declares hook_api {hook_api!r}; write a range such as '>=1.0,<2'"
    if fits:
        return ""
    major, _, _ = API_VERSION.partition(".")
    return (
        f"needs hook API {hook_api}, but this trainbus has {API_VERSION} and serves "
        f"plugins written for >={major}.0,<={API_VERSION}; install releases that fit"
    )


def declared_mistake(plugin: Any) -> str:
    """Return what is wrong with what ``plugin`` declares, ``""`` if nothing."""
    return _misspelt(plugin) or _odd_value(plugin) or _unread_state(plugin)


def _misspelt(plugin: Any) -> str:
    """Return what is said of a name that is nearly one that is read, or ``""``."""
    kinds = (kind for kind in type(plugin).__mro__ if kind not in (Callback, object))
    own = {
        name: value for kind in reversed([*kinds]) for name, value in vars(kind).items()
    }
    # What an instance was given is data, whatever its name.
    given = getattr(plugin, "__dict__", {})
    has_state = not own.keys().isdisjoint(_STATE)
    for name, value in own.items():
        if name.startswith("_") or name in _KINDS or name in HOOKS or name in given:
            continue
        # Of its kind only: a count of `failures` is no policy.
        meant = [
            each
            for each, kinds_of in _KINDS.items()
            if each not in own
            and isinstance(value, kinds_of)
            # A longer name may be what it says: `upload_state_dict`, say.
            and (each not in _STATE or "state_dict" not in name or has_state)
        ]
        if near := difflib.get_close_matches(name, meant, n=1, cutoff=0.88):
            is_method = near[0] in _STATE
            told = f"has a method {name!r}" if is_method else f"says {name} = {value!r}"
            return (
                f"{told}, which nobody reads (did you mean {near[0]!r}?); if it is for "
                f"its own use, call it _{name}"
            )
    return ""


def alters_training(plugin: Any) -> bool:
    """Whether a run without ``plugin`` would train other weights, as far as it says.

    Gradients are there for training alone: who changes them need not say it twice.
    """
    says = bool(getattr(plugin, "alters_training", False))
    return says or "gradients" in getattr(plugin, "mutates", ())


def _odd_value(plugin: Any) -> str:
    """Return what is said of a value that lists what there is not, or ``""``."""
    for name, choices in _CHOICES.items():
        value = getattr(plugin, name, ())
        listed = value if isinstance(value, _COLLECTIONS) else (value,)
        odd = [each for each in listed if each not in choices]
        # A text would pass for a collection, of letters.
        if odd or listed is not value:
            hint = did_you_mean(str(odd[0]), choices) if odd else ""
            return f"says {name} = {value!r}{hint}; list some of: {', '.join(choices)}"
    return ""


def _unread_state(plugin: Any) -> str:
    """Return what is said of a state that would be saved and never read, or ``""``."""
    saves, loads = (has_own(plugin, name) for name in _STATE)
    if not saves or loads:
        return ""
    return (
        "has state_dict without load_state_dict: what it saves is lost at a resume; "
        "write load_state_dict, or leave state_dict out"
    )


def has_own(plugin: Any, name: str) -> bool:
    """Whether a plugin has a method beside the one that each ``Callback`` inherits."""
    method = getattr(plugin, name, None)
    inherited = getattr(Callback, name)
    return method is not None and getattr(method, "__func__", method) is not inherited


def refuse_misspelt_hooks(plugin: Callback, name: str) -> None:
    """Refuse what begins like a hook and is none; warn of what nearly is one."""
    own = set(dir(plugin))
    others = [h for h in HOOKS if h not in own and is_meant(h, plugin.hook_api)]
    # Of the class: what an instance was given is data, whatever its name.
    for attribute in dir(type(plugin)):
        if attribute in HOOKS:
            _tell_of_newer(plugin, name, attribute)
            continue
        if attribute.startswith("_"):
            continue
        if attribute.startswith("on_"):
            raise PluginError(
                f"plugin {name!r} has {attribute!r}, which is no hook"
                f"{hint_for(attribute)}; the hooks are: {', '.join(HOOKS)}"
            )
        if not inspect.isfunction(inspect.getattr_static(plugin, attribute, None)):
            continue
        near = difflib.get_close_matches(attribute, others, n=1, cutoff=0.85)
        # Only a warning: a method may have such a name for reasons of its own.
        if near or attribute in FOREIGN:
            hint = f" (did you mean {near[0]!r}?)" if near else hint_for(attribute)
            log.warning(
                "plugin %r has a method %r, which is no hook and is never called%s",
                *(name, attribute, hint),
            )


def _tell_of_newer(plugin: Callback, name: str, hook: str) -> None:
    """Say that a method is not called where the plugin is for an API without it."""
    method = inspect.getattr_static(plugin, hook, None)
    is_marked = hasattr(method, f"{PROJECT}_impl")
    if is_marked or not inspect.isfunction(method) or is_meant(hook, plugin.hook_api):
        return
    log.warning(
        "plugin %r has a method %r, which is a hook since API %s, and is not called: "
        "its hook_api (%s) allows older ones; if it is meant, say hook_api = '>=%s,<2'",
        *(name, hook, SINCE[hook], plugin.hook_api or "any", SINCE[hook]),
    )


def warn_of_unmarked(plugin: Any, name: str) -> None:
    """Warn of hook-named methods that pluggy does not see, since nothing marks them."""
    for hook in HOOKS:
        method = getattr(type(plugin), hook, None)
        is_marked = hasattr(method, f"{PROJECT}_impl")
        if hook == "evaluate" or hook in SINCE:
            continue  # what many an object calls a method of its own
        if inspect.isfunction(method) and not is_marked:
            log.warning(
                "plugin %r defines %s, which is not marked and is never called; "
                "put @training.hookimpl above it, or derive from training.Callback",
                *(name, hook),
            )


def refuse_without_hooks(plugin: Any, name: str) -> None:
    """Refuse an object that hears nothing, unless it keeps something; warn of ours.

    One with unmarked hooks is warned of, too, but for another trainer's callback.
    """
    if isinstance(plugin, Callback):
        # It says what it is meant to be; a base may be given before its hooks are.
        if not has_own(plugin, "state_dict"):
            log.warning(
                "plugin %r (%s) hears nothing: no method of it has the name of a hook; "
                "write one, such as on_step_end, or leave the plugin out",
                *(name, describe(plugin)),
            )
        return
    attributes = set(dir(type(plugin)))
    foreign = [each for each in FOREIGN if each in attributes]
    is_foreign = any(each.startswith("on_") for each in foreign)
    if not is_foreign and attributes & {*HOOKS, "state_dict"} - {"evaluate", *SINCE}:
        return  # unmarked hooks are warned of
    text = f"{reprlib.repr(plugin)} ({describe(plugin)})"
    if isinstance(plugin, str):
        raise PluginError(
            f"{text} is no plugin but a name; pass an instance, or the name in plugins="
        )
    # Three tell whose callback it is; the base class of one has them all.
    known = ", ".join(f"{each}{hint_for(each)}" for each in foreign[:3])
    raise PluginError(
        f"{text} has no hook{known and f', but {known}'}; pass an instance of a class "
        "that derives from training.Callback, or whose methods carry @training.hookimpl"
    )
