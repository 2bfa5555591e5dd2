"""Take a picture of TensorBoard with the run of terminal.py in it.

Usage, after terminal.py: ``python docs/pictures/tensorboard.py``

Needs Chromium. TensorBoard is served on the loopback for as long as that takes.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

from PIL import Image

HERE = Path(__file__).resolve().parent
RUN = HERE.parents[1] / "build" / "pictures" / "runs" / "demo" / "tensorboard"
WIDTH, HEIGHT = 1500, 860  # pixels of the window
SHOWN = 1264  # of its width: the settings at the right are left out
PATIENCE = 60.0  # seconds until the server must answer
LOADING = 30_000  # milliseconds of the page's own time, for its charts to be drawn
COLOURS = 128  # of the picture: flat areas and text need no more


def browser() -> str:
    """Return the program that draws pages, or end with what to install."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    sys.exit("there is no Chromium here; on Debian: apt-get install chromium")


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


def taken(program: str, address: str, target: Path) -> None:
    """Let the browser draw a page into ``target``, a PNG."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                *(program, "--headless", "--no-sandbox", "--disable-gpu"),
                *("--hide-scrollbars", f"--user-data-dir={profile}"),
                f"--window-size={WIDTH},{HEIGHT}",
                f"--virtual-time-budget={LOADING}",
                f"--screenshot={target}",
                address,
            ],
            check=True,
            capture_output=True,
        )
    with Image.open(target) as picture:
        shown = picture.convert("RGB").crop((0, 0, SHOWN, HEIGHT))
    small = shown.quantize(COLOURS)
    small.save(target, optimize=True)


def main() -> None:
    """Serve the run, and take its picture."""
    program, port = browser(), free_port()
    if not RUN.is_dir():
        sys.exit(f"{RUN} is missing; run docs/pictures/terminal.py first")
    address = f"http://127.0.0.1:{port}"
    module = [sys.executable, "-m", "tensorboard.main", "--logdir", str(RUN)]
    server = subprocess.Popen(
        [*module, "--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(address)
        target = HERE / "tensorboard.png"
        taken(program, f"{address}/?darkMode=false#timeseries", target)
    finally:
        server.terminate()
        server.wait()
    print(target, file=sys.stderr)


if __name__ == "__main__":
    main()
