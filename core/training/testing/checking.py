"""Run a table of checks, and fail once with all that they find."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from training.messages.error_texts import error_text, notes_of

CaseT = TypeVar("CaseT")


def error_with_notes(error: BaseException) -> str:
    """Return an error with its notes, which say whose it is, in one line."""
    return f"{error_text(error)} {'; '.join(notes_of(error))}".strip()


def findings_of(
    checks: Mapping[str, Callable[[CaseT], list[str]]],
    case_of: Callable[[str], CaseT],
    skip: Collection[str],
    decisive: str,
) -> tuple[list[str], BaseException | None]:
    """Run all checks but those to skip; return what is wrong, and the first error.

    Args:
        checks: name -> check, which returns what is wrong, in the order they run.
        case_of: name -> what the check of that name gets.
        skip: names of checks to leave out.
        decisive: a check after which nothing more is tried where anything was wrong:
            the others would say the same in more words.
    Raises:
        ValueError: no check has a name in ``skip``.
    """
    if unknown := sorted(set(skip) - set(checks)):
        raise ValueError(f"no check is named {unknown[0]!r}; they are: {[*checks]}")
    problems: list[str] = []
    errors: set[str] = set()  # what ends the runs of all checks alike is told once
    cause: BaseException | None = None
    for name, check in checks.items():
        if name in skip:
            continue
        try:
            problems += [f"{name}: {problem}" for problem in check(case_of(name))]
        except Exception as error:
            cause = cause or error
            told = error_with_notes(error)
            if told not in errors:
                problems.append(f"{name}: {told}")
            errors.add(told)
        if name == decisive and problems:
            break
    return problems, cause


def assert_passes(
    what: str,
    checks: Mapping[str, Callable[[CaseT], list[str]]],
    case_of: Callable[[str], CaseT],
    skip: Collection[str],
    decisive: str,
    remarks: Sequence[str] = (),
) -> None:
    """Run all checks but those to skip, as ``findings_of`` does, and tell.

    Args:
        what: is checked, such as ``the plugin``.
        checks: name -> check.
        case_of: name -> what the check of that name gets.
        skip: names of checks to leave out.
        decisive: a check after which nothing more is tried where anything was wrong.
        remarks: filled by the checks with what is no mistake: told beside those, or
            as warnings.
    Raises:
        AssertionError: one line for each thing that is wrong.
    """
    problems, cause = findings_of(checks, case_of, skip, decisive)
    if problems:
        beside = [f"remark: {remark}" for remark in remarks]
        told = "\n".join([f"{what} does not conform", *problems, *beside])
        raise AssertionError(told) from cause
    for remark in remarks:
        warnings.warn(f"{what} conforms, but {remark}", stacklevel=3)
