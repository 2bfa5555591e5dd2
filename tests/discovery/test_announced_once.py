"""The path is read once, and again when something was put on it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from training.discovery.entry_points import announced
from training.discovery.provenance import describe


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


def test_a_class_is_of_the_version_that_was_there_when_it_was_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    put_on(tmp_path, "mine")
    (tmp_path / "mine.py").write_text("class Plugin: ...\n")
    plugin = importlib.import_module("mine").Plugin
    assert describe(plugin).endswith("mine 1.0")
    (tmp_path / "mine-1.0.dist-info").rename(tmp_path / "mine-2.0.dist-info")
    metadata = tmp_path / "mine-2.0.dist-info" / "METADATA"
    metadata.write_text("Name: mine\nVersion: 2.0\n")
    assert "2.0" in {info.version for info in announced() if info.name == "mine"}
    assert describe(plugin).endswith("mine 1.0")
