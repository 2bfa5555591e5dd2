"""Fixtures that several test files share, and how often promises were tested."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ahead import pytest_generate_tests, reading  # noqa: F401
from promises import as_text, tally

from training.app.cli import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def as_at_a_terminal() -> None:
    """Hear what a shell's `&` or nohup lets this process ignore, and runs with it."""
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


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
    promises = tally(
        (report.nodeid, outcome, dict(getattr(report, "user_properties", ())))
        for outcome in ("passed", "failed", "skipped")
        for report in terminalreporter.stats.get(outcome, [])
    )
    if not promises:
        return
    terminalreporter.section("promises put to the test")
    for number, counts in promises.items():
        terminalreporter.write_line(f"{number:4}{as_text(counts)}")


@pytest.fixture
def install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str, str], Path]:
    """Return a function that puts a distribution with entry points on the path."""

    def make(name: str, version: str, entry_points: str, folder: str = "site") -> Path:
        site = tmp_path / folder
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata)
        (info / "entry_points.txt").write_text(f"[trainbus]\n{entry_points}\n")
        monkeypatch.syspath_prepend(str(site))
        return site

    return make
