"""The site has every page, its links lead somewhere, and it builds in strict mode."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def site_pages() -> Any:
    """Return the module that tells mkdocs of the pages, which needs no mkdocs."""
    path = DOCS / "site_pages.py"
    spec = importlib.util.spec_from_file_location("site_pages", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SITE = site_pages()
PAGES = {place: path for place, path in SITE.pages().items() if path.suffix == ".md"}
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def in_nav(nav: Any) -> Iterator[str]:
    """Yield the pages of a navigation, however deep they are."""
    if isinstance(nav, str):
        yield nav
    for each in nav.values() if isinstance(nav, dict) else nav:
        if not isinstance(nav, str):
            yield from in_nav(each)


def anchors(path: Path) -> set[str]:
    """Return what headings of a page are called in links."""
    titles = re.findall(r"^#+ (.+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}


def dead_links(page: Path, text: str) -> list[str]:
    """Return the links of a page that lead nowhere in the repository."""
    dead = []
    for path, anchor in SITE.links(text):
        target = page.parent / path if path else page
        is_there = target.exists()
        if is_there and anchor:
            is_there = anchor[1:] in anchors(target)
        if not is_there:
            dead.append(path + anchor)
    return dead


def test_every_page_of_docs_is_in_the_navigation() -> None:
    told = list(in_nav(CONFIG["nav"]))
    assert len(told) == len(set(told))
    assert [place for place in told if place not in PAGES] == []
    ours = {place for place, path in PAGES.items() if path.is_relative_to(DOCS)}
    assert ours - set(told) == set()


@pytest.mark.parametrize("place", PAGES)
def test_every_link_of_the_site_leads_to_a_file_and_a_heading(place: str) -> None:
    page = PAGES[place]
    assert dead_links(page, page.read_text(encoding="utf-8")) == []


def test_a_link_that_leads_nowhere_is_found() -> None:
    text = (
        "[a](hooks.md) [b](hoks.md) [c](hooks.md#rules) [d](#插件) [e](https://x.y)\n"
    )
    page = DOCS / "guide.zh.md"
    assert dead_links(page, text) == ["hoks.md", "hooks.md#rules"]
    assert dead_links(page, f"```md\n{text}```\n") == []


@pytest.mark.parametrize(
    ("link", "moved"),
    [
        pytest.param("[a](hooks.md#order)", "[a](hooks.md#order)", id="within docs"),
        pytest.param("[a](../README.md)", "[a](index.md)", id="the first page"),
        pytest.param(
            "[a](../SECURITY.md)", "[a](house/SECURITY.md)", id="a page elsewhere"
        ),
        pytest.param(
            "[a](../plugins/logging)",
            "[a](house/plugins/logging/README.md)",
            id="a folder is its README",
        ),
        pytest.param(
            "[a](../tests/toy.py)", "[a](source/tests/toy.py.txt)", id="a source file"
        ),
        pytest.param("[a](../tests)", "a", id="a folder without a README"),
        pytest.param("甲\n乙 x\ny", "甲乙 x\ny", id="lines of Chinese are joined"),
    ],
)
def test_a_link_out_of_docs_becomes_one_within_the_site(link: str, moved: str) -> None:
    assert SITE.as_in_site(link, DOCS / "resuming.md") == moved


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    reason = "builds the site; pip install -e '.[docs]'"
    for name in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{reason} ({name} is missing)")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-d", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    english = (tmp_path / "index.html").read_text(encoding="utf-8")
    chinese = (tmp_path / "guide.zh.html").read_text(encoding="utf-8")
    assert '<html lang="en"' in english
    assert '<html lang="zh"' in chinese
    assert "gradient_accumulation_steps" in (
        tmp_path / "api" / "trainer.html"
    ).read_text(encoding="utf-8")
