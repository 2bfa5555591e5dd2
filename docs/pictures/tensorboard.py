"""Take a picture of TensorBoard with the run of terminal.py in it.

Usage, after terminal.py: ``python docs/pictures/tensorboard.py``

Needs Chromium. TensorBoard is served on the loopback for as long as that takes.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

from chromium import Chromium
from PIL import Image

HERE = Path(__file__).resolve().parent
RUN = HERE.parents[1] / "build" / "pictures" / "runs" / "demo" / "tensorboard"
WIDTH, HEIGHT = 1280, 900  # pixels
PATIENCE = 60.0  # seconds until the server must answer
DRAWING = 8.0  # seconds for curves and pictures, which workers draw
COLOURS = 128  # of the picture: flat areas and text need no more
# What is shown of all that a run writes, and TensorBoard's own settings.
TAGS = "loss/(train|val)$|metric/accuracy$|rows/"
SETTINGS = {
    "timeSeriesSettingsPaneOpened": False,
    "scalarSmoothing": 0.0,
    "stepSelectorEnabled": False,
}
# Curves as SVG: there may be no WebGL where there is no screen.
QUERY = f"darkMode=false&forceSVG=true&tagFilter={quote(TAGS)}"
CARDS = "document.querySelectorAll('card-view').length > 1"


def free_port() -> int:
    """Return a port of the loopback that nobody uses now."""
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        return int(end.getsockname()[1])


def wait_for(address: str) -> None:
    """Return when the server knows of a run.

    Raises:
        TimeoutError: it does not within ``PATIENCE`` seconds.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(OSError), urlopen(f"{address}/data/runs") as answer:
            if json.load(answer):
                return
        time.sleep(0.5)
    raise TimeoutError(f"TensorBoard at {address} has shown no run in {PATIENCE} s")


def taken(address: str, target: Path) -> None:
    """Draw the curves of the served run into ``target``, a PNG."""
    with Chromium(WIDTH, HEIGHT) as browser:
        browser.open(address)
        settings = json.dumps(json.dumps(SETTINGS))
        browser.value(f"localStorage.setItem('_tb_global_settings', {settings})")
        browser.open("about:blank")
        browser.open(f"{address}/?{QUERY}", CARDS)
        time.sleep(DRAWING)
        browser.picture(target)
    with Image.open(target) as picture:
        small = picture.convert("RGB").quantize(COLOURS)
    small.save(target, optimize=True)


def main() -> None:
    """Serve the run, and take its picture."""
    if not RUN.is_dir():
        sys.exit(f"{RUN} is missing; run docs/pictures/terminal.py first")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    module = [sys.executable, "-m", "tensorboard.main", "--logdir", str(RUN)]
    server = subprocess.Popen(
        [*module, "--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(address)
        target = HERE / "tensorboard.png"
        taken(address, target)
    finally:
        server.terminate()
        server.wait()
    print(target, file=sys.stderr)


if __name__ == "__main__":
    main()
