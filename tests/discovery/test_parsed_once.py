"""Source code is parsed once for all that is asked of it, and again when it changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.discovery.source_names import SourceError, parse
from training.discovery.sources import classes_of


def test_a_file_that_stays_is_parsed_once(tmp_path: Path) -> None:
    file = tmp_path / "plugin.py"
    file.write_text("class Early: pass\n")
    assert parse("plugin", file) is parse("plugin", file)


def test_a_file_that_was_changed_is_parsed_again(tmp_path: Path) -> None:
    file = tmp_path / "plugin.py"
    file.write_text("class Early: pass\n")
    assert classes_of(file) == ["Early"]
    file.write_text("class Later_on: pass\n")
    assert classes_of(file) == ["Later_on"]


def test_a_file_that_is_mended_is_no_mistake_any_more(tmp_path: Path) -> None:
    file = tmp_path / "plugin.py"
    with pytest.raises(SourceError, match="cannot be read"):
        classes_of(file)
    file.write_text("class Early(:\n")
    with pytest.raises(SourceError, match="cannot be read"):
        classes_of(file)
    file.write_text("class Early: pass\n")
    assert classes_of(file) == ["Early"]
