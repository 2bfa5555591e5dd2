"""What mkdocs needs beside mkdocs.yml: pages that lie elsewhere, and their language.

The pages of docs/ link to files outside of it, as readers of the repository want it. In
the site such a page is below house/, any other text below source/, and the two READMEs
are the first pages. Imported without mkdocs, this says where each of them goes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
FIRST = {"README.md": "index.md", "README.zh.md": "index.zh.md"}
PICTURES = (".svg", ".png")
# Whatever stands in a fence is no link.
_FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s#]*)(#[^)\s]*)?(\))")
# A line's end between two of these characters would be shown as a space.
_WIDE = "[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef\u201c\u201d]"
_BROKEN = re.compile(f"(?<={_WIDE})\n *(?={_WIDE})")


def place_of(target: Path) -> str | None:
    """Return where in the site a file of the repository is; None: nowhere."""
    if target.is_dir():
        target /= "README.md"
    if not target.is_file() or not target.is_relative_to(ROOT):
        return None
    path = target.relative_to(ROOT).as_posix()
    if path in FIRST:
        return FIRST[path]
    if target.is_relative_to(DOCS) and target.suffix != ".py":
        return target.relative_to(DOCS).as_posix()
    if target.suffix == ".md":
        return f"house/{path}"
    return f"source/{path}" if target.suffix in PICTURES else f"source/{path}.txt"


def links(text: str) -> Iterator[tuple[str, str]]:
    """Yield (path, anchor) of each link that leads to something of ours."""
    for _, path, anchor, _ in _LINK.findall(_FENCE.sub("", text)):
        if "//" not in path:
            yield path, anchor


def pages() -> dict[str, Path]:
    """Return the pages of the site: those of docs/ and all they lead to, by place."""
    todo = [ROOT / name for name in FIRST] + sorted(DOCS.rglob("*.md"))
    todo.append(ROOT / "CHANGELOG.md")
    found: dict[str, Path] = {}
    while todo:
        page = todo.pop()
        place = place_of(page)
        if place is None or place in found:
            continue
        found[place] = page
        if page.suffix == ".md":
            text = page.read_text(encoding="utf-8")
            todo += [_target(page, path) for path, _ in links(text) if path]
    return found


def _target(page: Path, path: str) -> Path:
    target = (page.parent / path).resolve()
    return target / "README.md" if target.is_dir() else target


def as_in_site(text: str, page: Path) -> str:
    """Return the text of a page with links as they are in the site.

    What has no place there, such as a folder without a README, loses its link. Lines of
    Chinese are joined.
    """
    here = os.path.dirname(place_of(page) or "")

    def moved(match: re.Match[str]) -> str:
        before, path, anchor, after = match.groups()
        if not path or "//" in path:
            return match[0]
        place = place_of(_target(page, path))
        if place is None:
            return "](#)"
        return f"{before}{os.path.relpath(place, here or '.')}{anchor or ''}{after}"

    def mended(prose: str) -> str:
        prose = _BROKEN.sub("", _LINK.sub(moved, prose))
        return re.sub(r"\[([^\]]+)\]\(#\)", r"\1", prose)

    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [mended(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, mended(text[end:])])


def on_config(config: MkDocsConfig) -> None:
    """Let headings in any script have the anchors that a repository's page has."""
    from pymdownx.slugs import slugify

    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside of docs/."""
    from mkdocs.structure.files import File

    for place, path in pages().items():
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Make a file of the repository a page of the site."""
    source = page.file.abs_src_path
    return as_in_site(markdown, Path(source).resolve()) if source else markdown


def on_page_context(context: Any, page: Page, config: MkDocsConfig, **_: Any) -> None:
    """Say search, contents and all other words around a page in its own language."""
    is_chinese = page.file.src_uri.endswith(".zh.md")
    config.theme["language"] = "zh" if is_chinese else "en"
