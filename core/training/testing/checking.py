"""Run a table of checks, and fail once with all that they find."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from training.messages.error_texts import error_text, notes_of

CaseT = TypeVar("CaseT")


def told_of(error: BaseException) -> str:
    """Return an error with its notes, which say whose it is, in one line."""
    return f"{error_text(error)} {'; '.join(notes_of(error))}".strip()


def assert_passes(
    what: str,
    checks: Mapping[str, Callable[[CaseT], list[str]]],
    case_of: Callable[[str], CaseT],
    skip: Collection[str],
    decisive: str,
) -> None:
    """Run all checks but those to skip.

    Args:
        what: is checked, such as ``the plugin``.
        checks: name -> check, which returns what is wrong, in the order they run.
        case_of: name -> what the check of that name gets.
        skip: names of checks to leave out.
        decisive: a check after which nothing more is tried where anything was wrong:
            the others would say the same in more words.
    Raises:
        AssertionError: one line for each thing that is wrong.
        ValueError: no check has a name in ``skip``.
    """
    if unknown := sorted(set(skip) - set(checks)):
        raise ValueError(f"no check is named {unknown[0]!r}; they are: {[*checks]}")
    problems: list[str] = []
    cause: BaseException | None = None
    for name, check in checks.items():
        if name in skip:
            continue
        try:
            problems += [f"{name}: {problem}" for problem in check(case_of(name))]
        except Exception as error:
            cause = cause or error
            problems.append(f"{name}: {told_of(error)}")
        if name == decisive and problems:
            break
    if problems:
        told = "\n".join([f"{what} does not conform", *problems])
        raise AssertionError(told) from cause
