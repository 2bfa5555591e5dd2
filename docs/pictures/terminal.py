"""Draw what a terminal shows of a run: ``python docs/pictures/terminal.py``.

Trains the demonstration at a pseudo-terminal of 80 columns, in build/pictures, lets a
terminal emulator read what was written, and draws its last screen as terminal.svg. The
run stays there, for the other picture.
"""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pyte
from pyte.screens import Char
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

HERE = Path(__file__).resolve().parent
PLACE = HERE.parents[1] / "build" / "pictures"
COLUMNS, LINES = 80, 500  # so many that nothing scrolls out
COMMAND = ("trainbus", "run", "demo")
THEME = TerminalTheme(
    (24, 26, 31),
    (212, 216, 224),
    [
        *((70, 74, 82), (224, 108, 117), (152, 195, 121), (229, 192, 123)),
        *((97, 175, 239), (198, 120, 221), (86, 182, 194), (212, 216, 224)),
    ],
    [
        *((120, 126, 138), (240, 130, 140), (170, 215, 140), (240, 205, 140)),
        *((120, 190, 245), (215, 145, 235), (110, 200, 210), (255, 255, 255)),
    ],
)
COLOURS = {"brown": "yellow"}  # pyte's name: rich's


def recorded(command: tuple[str, ...], folder: Path) -> bytes:
    """Run ``command`` in ``folder`` at a terminal; return all that it wrote there."""
    ours, theirs = pty.openpty()
    size = struct.pack("HHHH", 50, COLUMNS, 0, 0)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    # What draws beside the run: the environment's own programs, and no odd colours.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "TERM": "xterm-256color"}
    variables.pop("COLUMNS", None)
    process = subprocess.Popen(
        command, cwd=folder, env=variables, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    read = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # what Linux says at the end
            break
        if not part:
            break
        read += part
    os.close(ours)
    if process.wait():
        sys.exit(
            f"{' '.join(command)} ended with {process.returncode}:\n{read.decode()}"
        )
    return read


def screen_of(written: bytes) -> list[Text]:
    """Return the lines that a terminal shows after ``written``, with their styles."""
    screen = pyte.Screen(COLUMNS, LINES)
    pyte.ByteStream(screen).feed(written)
    lines = []
    for row in range(LINES):
        line = Text()
        cells = (screen.buffer[row][column] for column in range(COLUMNS))
        for style, alike in itertools.groupby(cells, style_of):
            line.append("".join(cell.data for cell in alike), style)
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1]:
        lines.pop()
    return lines


def style_of(cell: Char) -> Style:
    """Return how a character looks."""
    name = COLOURS.get(cell.fg, cell.fg)
    colour = f"#{name}" if re.fullmatch("[0-9a-f]{6}", name) else name
    return Style(
        color=None if name == "default" else colour.replace("bright", "bright_"),
        bold=cell.bold or None,
        underline=cell.underscore or None,
    )


def drawn(lines: list[Text], title: str) -> str:
    """Return ``lines`` as a picture of a window."""
    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor"
    )
    for line in lines:
        console.print(line, no_wrap=True, crop=True, highlight=False)
    picture = console.export_svg(title=title, theme=THEME, unique_id="terminal")
    # Fonts of a far server: a page that is shown as it is must fetch nothing.
    picture = re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL)
    return "\n".join(each.rstrip() for each in picture.splitlines()) + "\n"


def main() -> None:
    """Train, and draw."""
    PLACE.mkdir(parents=True, exist_ok=True)
    written = recorded(COMMAND, PLACE)
    (PLACE / "terminal.txt").write_bytes(written)  # to draw again without a run
    lines = screen_of(written)
    target = HERE / "terminal.svg"
    target.write_text(drawn(lines, f"$ {' '.join(COMMAND)}"), encoding="utf-8")
    print(target, file=sys.stderr)


if __name__ == "__main__":
    main()
