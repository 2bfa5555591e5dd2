"""The path is read once, and again when something was put on it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from training.discovery.entry_points import announced


def num_distributions_read(call: Callable[[], object]) -> int:
    seen: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_globals["__name__"] == announced.__module__:
            seen.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return seen.count("_read")


def put_on(folder: Path, name: str) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[trainbus]\n{name} = {name}:Plugin\n")


def test_a_path_that_stays_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert num_distributions_read(announced) > 0
    assert num_distributions_read(announced) == 0


def test_what_is_put_on_the_path_later_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    put_on(tmp_path, "early")
    found = {info.name for info in announced()}
    assert ("early" in found, "late" in found) == (True, False)
    put_on(tmp_path, "late")
    assert "late" in {info.name for info in announced()}
