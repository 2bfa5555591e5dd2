"""Whether an object, a function or a hook is a user's own: no library's, nor ours."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from training.modules.bytecode import LIBRARIES, is_library
from training.modules.reachable import CONTAINERS, counts

#: Modules of what is not: hooks from there around a state save what is theirs, or
#: listen.
NOT_USERS = ("torch.", "training.", "trainbus_")


def is_users_object(value: Any) -> bool:
    """Whether it is a plain object of a class that no library, nor we, have written."""
    name = type(value).__module__
    if not isinstance(name, str) or name.startswith(NOT_USERS):
        return False
    if counts(value) or isinstance(value, CONTAINERS):
        return False
    # A class of a notebook is in no file.
    at = getattr(sys.modules.get(name), "__file__", None) or LIBRARIES[0]
    if name != "__main__" and is_library(at):
        return False
    try:
        return isinstance(vars(value), dict)
    except Exception:  # it has none, or one that raises
        return False


def is_users_function(value: Any) -> bool:
    """Whether it is a function, or a plain object to call, and a user's."""
    function = value.func if isinstance(value, partial) else value
    code = getattr(function, "__code__", None)
    if code is None:
        return callable(function) and is_users_object(function)
    return not is_library(code.co_filename)


def is_users_hook(hook: Any) -> bool:
    """Whether a hook may know of a user's numbers."""
    return not (getattr(hook, "__module__", None) or "").startswith(NOT_USERS)


def has_users_hook(hooks: Mapping[int, Any]) -> bool:
    """Whether one of them may know of a user's numbers."""
    return any(map(is_users_hook, hooks.values()))
