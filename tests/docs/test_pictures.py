"""The README's pictures show what a terminal shows, and fetch nothing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"


@pytest.fixture(scope="module")
def terminal() -> Any:
    for name in ("pyte", "rich"):
        pytest.importorskip(name, reason="draws pictures; pip install -e '.[docs]'")
    path = PICTURES / "terminal.py"
    spec = importlib.util.spec_from_file_location("terminal", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_shows_what_a_terminal_shows_in_the_end(terminal: Any) -> None:
    written = (
        b"epoch 1: 50%\r\x1b[Kepoch 1 \x1b[1;32mdone\x1b[0m\r\nnext\x1b[3D\x1b[K\r\n"
    )
    lines = terminal.screen_of(written)
    assert [line.plain for line in lines] == ["epoch 1 done", "n"]
    styles = {str(span.style) for span in lines[0].spans}
    assert "bold green" in styles
    picture = ElementTree.fromstring(terminal.drawn(lines, "$ run"))
    text = "".join(picture.itertext()).replace("\xa0", " ")
    assert "epoch 1 done" in text.replace("\n", "")
    assert "$ run" in text


def test_a_program_is_told_that_it_is_at_a_terminal(
    terminal: Any, tmp_path: Path
) -> None:
    size = ("sh", "-c", "test -t 2 && stty size")
    assert terminal.recorded(size, tmp_path).split() == [b"50", b"80"]
    with pytest.raises(SystemExit, match="ended with 3"):
        terminal.recorded(("sh", "-c", "exit 3"), tmp_path)


def test_the_picture_fetches_nothing() -> None:
    text = (PICTURES / "terminal.svg").read_text(encoding="utf-8")
    assert "@font-face" not in text
    assert "url(http" not in text
