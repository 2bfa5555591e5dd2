"""Distributions that a configuration requires, checked before anything is built."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from training.discovery import installed
from training.errors import did_you_mean

__all__ = ["requirement_mistakes"]


def requirement_mistakes(
    requires: Any, place: Callable[[tuple[str | int, ...]], str]
) -> list[str]:
    """Return a sentence for each requirement that is not met.

    Args:
        requires: a list such as ``["trainbus-ema>=0.2,<1"]``; another type is left to
            the validation of types.
        place: turns a path in the configuration into words.
    """
    if not isinstance(requires, list):
        return []
    mistakes = []
    for index, text in enumerate(requires):
        complaint = _complaint(text) if isinstance(text, str) else ""
        if complaint:
            mistakes.append(f"{place(('requires', index))} is {text!r}, {complaint}")
    return mistakes


def _complaint(text: str) -> str:
    try:
        wanted = Requirement(text)
    except InvalidRequirement:
        return "but must be a name and versions, such as trainbus-ema>=0.2,<1"
    remedy = f"run: pip install {str(wanted)!r}"
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        known = {info.distribution for info in installed.installed(None)}
        return f"which is not installed{did_you_mean(wanted.name, known)}; {remedy}"
    if wanted.specifier.contains(version, prereleases=True):
        return ""
    return f"but {version} is installed; {remedy}"
