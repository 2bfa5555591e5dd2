"""Pages about the house name what there is: files, classes, functions, tests, links."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from training.discovery.installed import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("core", "data", "models", "plugins", "tests")
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
PAGES = [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *DECISIONS]
HEADINGS = ["Context", "Decision", "Consequences", "Measured"]


def dead_links(page: Path, text: str) -> list[str]:
    links = re.findall(r"\]\(([^)]+)\)", text)
    return [link for link in links if "//" not in link and not leads(page, link)]


def leads(page: Path, link: str) -> bool:
    """Whether ``link`` leads to a file, and to a heading in it if it names one."""
    file, _, heading = link.partition("#")
    target = page.parent / file if file else page
    if not target.exists() or not heading:
        return target.exists()
    titles = re.findall(r"^#+ (.+)", target.read_text(encoding="utf-8"), re.MULTILINE)
    return heading in [
        re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles
    ]


@cache
def known() -> set[str]:
    """Return the names of all source files, and every word in them."""
    paths = [path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")]
    # Not this file, which names what there is not.
    texts = [p.read_text(encoding="utf-8") for p in paths if p != Path(__file__)]
    return {path.name for path in paths}.union(*(re.findall(r"\w+", t) for t in texts))


def unknown_names(text: str) -> list[str]:
    """Return what stands alone in backquotes and is no name in the sources."""
    named = re.findall(r"`([A-Za-z_]\w*(?:\.py)?)(?:\([^`]*\))?`", text)
    return [name for name in named if name not in known()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert dead_links(page, text) == []


@pytest.mark.parametrize(
    "page", [ROOT / "ARCHITECTURE.md", *DECISIONS], ids=lambda page: page.name
)
def test_every_name_is_in_the_sources(page: Path) -> None:
    assert unknown_names(page.read_text(encoding="utf-8")) == []


def test_a_name_or_a_link_to_what_there_is_not_is_found() -> None:
    text = "`loop.py` `lop.py` `Trainer` `train()` `Trainr` `test_there_is_none(x)`"
    assert unknown_names(text) == ["lop.py", "Trainr", "test_there_is_none"]
    page = ROOT / "README.md"
    links = "[a](tests) [b](tets) [c](https://x) [d](#in-python) [e](LICENSE#f)"
    assert dead_links(page, links) == ["tets", "LICENSE#f"]


def test_every_folder_of_the_kernel_is_in_the_picture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    kernel = ROOT / "core" / "training"
    folders = {path.parent.name for path in kernel.glob("*/__init__.py")}
    assert folders == set(re.findall(r"`core/training/(\w+)/`", text))


def test_each_decision_is_one_page_in_the_index_with_the_same_headings() -> None:
    index, pages = DECISIONS[0], DECISIONS[1:]
    assert index.name == "README.md"
    rows = re.findall(
        r"^\| \[(.+?)\]\((.+?)\)", index.read_text(encoding="utf-8"), re.M
    )
    told = {}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"^## (.+)", text, re.M) == HEADINGS
        told[page.name] = text.split("\n")[0].removeprefix("# ")
    assert {file: title for title, file in rows} == told


@pytest.mark.parametrize("name", SHIPPED)
def test_a_plugin_page_sends_to_the_hooks_that_are_read_from_the_code(
    name: str,
) -> None:
    folder = SHIPPED[name].removeprefix("trainbus-").replace("-", "_")
    page = ROOT / "plugins" / folder / "README.md"
    text = page.read_text(encoding="utf-8").partition("\n**Hooks**")[2]
    link = f"../../docs/shipped-plugins.md#{name}"
    assert link in text.partition("\n\n")[0]
    assert leads(page, link)
