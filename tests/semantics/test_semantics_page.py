"""docs/semantics/ points to tests that exist, and says nothing without one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INDEX = ROOT / "docs" / "semantics.md"
PAGES = sorted((ROOT / "docs" / "semantics").glob("*.md"))
LINES = [line for page in PAGES for line in page.read_text("utf-8").splitlines()]
ROWS = [line for line in LINES if line.startswith("| ") and "Shown by" not in line]
LINK = re.compile(r"\[(\w+)\]\(\.\./\.\./([\w/]+\.py)\)")
LINKS = sorted({match for row in ROWS for match in LINK.findall(row)})


@pytest.mark.parametrize(("name", "path"), LINKS, ids=[name for name, _ in LINKS])
def test_a_linked_test_exists(name: str, path: str) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^def {name}\(", source, re.MULTILINE)


def test_every_decision_has_a_test() -> None:
    assert len(ROWS) > 50
    assert [row for row in ROWS if not LINK.search(row)] == []
    assert all(row.count("|") == 4 for row in ROWS)


def test_the_index_leads_to_every_page() -> None:
    linked = re.findall(r"\(semantics/([\w-]+\.md)\)", INDEX.read_text("utf-8"))
    assert sorted(linked) == [page.name for page in PAGES]


def test_every_test_of_semantics_that_runs_a_trainer_is_on_a_page() -> None:
    """What was worth a test across parts is worth a row, controls aside."""
    folder = ROOT / "tests" / "semantics"
    linked = {Path(path).name for _, path in LINKS}
    files = {path.name for path in folder.glob("test_*.py")}
    assert files - linked <= {Path(__file__).name, "test_semantics_benchmark.py"}
