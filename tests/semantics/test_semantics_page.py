"""docs/semantics/ points to tests that exist, and says nothing without one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Characters of a decision, rows of a table: more is not read.
LONGEST, MOST_ROWS = 350, 20
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


def test_a_decision_is_short_enough_to_be_read() -> None:
    """A question that holds several decisions is several questions."""
    assert [row for row in ROWS if len(row.split("|")[2].strip()) > LONGEST] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_its_idea_first_and_has_no_table_without_an_end(page: Path) -> None:
    opening, *tables = page.read_text("utf-8").split("| Question | Decision |")
    assert len(re.findall(r"\.\s", opening)) >= 3
    assert max(table.count("\n| ") for table in tables) <= MOST_ROWS


def test_the_index_leads_to_every_page() -> None:
    linked = re.findall(r"\(semantics/([\w-]+\.md)\)", INDEX.read_text("utf-8"))
    assert sorted(linked) == [page.name for page in PAGES]


def test_every_test_of_semantics_that_runs_a_trainer_is_on_a_page() -> None:
    """What was worth a test across parts is worth a row, controls aside."""
    folder = ROOT / "tests" / "semantics"
    linked = {Path(path).name for _, path in LINKS}
    files = {path.name for path in folder.glob("test_*.py")}
    assert files - linked <= {Path(__file__).name, "test_semantics_benchmark.py"}
