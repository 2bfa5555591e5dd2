"""Fixtures that several test files share, and how often promises were tested."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.app.cli import main

ROOT = Path(__file__).resolve().parents[1]
#: Numbers stand at the head of a test's name: ``test_p1_p2_a_signal_...``.
NUMBERS = re.compile(r"::test_((?:[cpr]\d+_)+)")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Return the folder of shared input beside the repository, or skip."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the shared input folder {folder}")
    return folder


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs ``trainbus ...``: (exit code, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print a line for each number: cases, failures, and what the tests counted."""
    cases: dict[str, Counter[str]] = defaultdict(Counter)
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            found = NUMBERS.search(report.nodeid)
            for number in found[1].strip("_").split("_") if found else ():
                cases[number][outcome] += 1
                counted[number].update(dict(report.user_properties))
    if not cases:
        return
    terminalreporter.section("promises put to the test")
    for number in sorted(cases, key=lambda each: (each[0], int(each[1:]))):
        facts = {**cases[number], **counted[number]}
        line = ", ".join(f"{count:,} {what}" for what, count in facts.items())
        terminalreporter.write_line(f"{number.upper():4}{line}")
