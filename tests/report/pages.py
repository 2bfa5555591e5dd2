"""A page as tests read it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from training.app.cli import main


class Page(HTMLParser):
    """The words of a page by the heading above them, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.parts: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._heading = ""
        self._in_heading = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "h2":
            self._heading, self._in_heading = "", True

    def handle_endtag(self, tag: str) -> None:
        self._in_heading = self._in_heading and tag != "h2"

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self._heading += data
        words = self.parts.get(self._heading, "")
        self.parts[self._heading] = " ".join(f"{words} {data}".split())


def page_of(*runs: Path, options: tuple[str, ...] = ()) -> Page:
    assert main(["report", *map(str, runs), *options]) == 0
    target = Path(options[1]) if options else runs[0] / "report.html"
    return Page(target.read_text(encoding="utf-8"))
