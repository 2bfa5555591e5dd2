"""What a person sees of a real run, in Chromium: the report, and TensorBoard.

Pictures of both are kept in build/screenshots.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from training.app.cli import main

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium here; apt-get install chromium"
    ),
]

pytest.importorskip("tensorboard", reason="needs tensorboard")
pytest.importorskip("matplotlib", reason="needs trainbus[report]")

RUN = [
    *("run", "demo", "-p", "no:progress", "-p", "no:csv", "--profile-plugins"),
    *("--set", "data.synthetic.num_train_images=40"),
    *("--set", "data.synthetic.num_validation_images=12"),
    *("--set", "data.synthetic.folder=shapes", "--set", "model.build.hidden_size=32"),
    *("--set", "training.num_epochs=2", "--set", "training.save_dir=runs/demo"),
    *("--set", "plugins.tensorboard.every_n_steps=1"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of a small real run, with predictions and a report."""
    place = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(RUN) == 0
        folder = place / "runs" / "demo"
        checkpoint = next(folder.glob("checkpoints/checkpoint-*.pt"))
        evaluate = ["evaluate", "runs/demo/config.yaml", "--checkpoint"]
        predictions = ["--predictions", "runs/demo/predictions.jsonl"]
        assert main([*evaluate, str(checkpoint), *predictions]) == 0
        assert main(["report", "runs/demo"]) == 0
        yield folder


class Browser:
    """Opens addresses without a window.

    Args:
        profile: a folder for what it remembers.
    """

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        self.command = [
            *(CHROMIUM, "--headless", "--disable-gpu", "--hide-scrollbars"),
            *("--no-first-run", "--disable-background-networking"),
            "--window-size=1400,2000",
            *(f"--user-data-dir={profile}", "--virtual-time-budget=20000"),
            # Not for root, who may have no sandbox.
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
        ]

    def page(self, address: str) -> str:
        """Return the page as it is when its own programs have run."""
        return self._run("--dump-dom", address).stdout

    def screenshot(self, address: str, name: str, size: str) -> Image.Image:
        """Return how the page looks, and keep that."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        file = SCREENSHOTS / name
        file.unlink(missing_ok=True)
        self._run(f"--window-size={size}", f"--screenshot={file}", address)
        return Image.open(file).convert("RGB")

    def _run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *options],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    return Browser(tmp_path / "profile")


def wait_for_curves(address: str) -> None:
    """Return when TensorBoard has read its files, which it begins to when it is up."""
    until = time.monotonic() + 60
    while b"loss/val" not in urlopen(f"{address}/data/plugin/scalars/tags").read():
        assert time.monotonic() < until


@pytest.fixture
def tensorboard(run: Path) -> Iterator[str]:
    """Return the address of TensorBoard with that run, while it is up."""
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "tensorboard.main", "--port=0"),
            *("--logdir", str(run / "tensorboard"), "--load_fast=false"),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stderr is not None
        found = (re.search(r"http://\S+:\d+", line) for line in server.stderr)
        address = next(each[0] for each in found if each)
        wait_for_curves(address)
        yield address
    finally:
        server.terminate()
        server.communicate()


def share_of(picture: Image.Image, colour: tuple[int, int, int]) -> float:
    """Return the share of the pixels that are nearly of a colour."""
    pixels = np.asarray(picture, dtype=np.int16)  # (H, W, 3)
    return float((abs(pixels - np.asarray(colour)) < 40).all(axis=2).mean())


def test_the_report_shows_charts_and_pictures(run: Path, browser: Browser) -> None:
    address = (run / "report.html").as_uri()
    page = browser.page(address)
    assert page.count("<svg") == 4  # losses, two metrics, the rate
    assert "data:image/png;base64," in page
    assert "stopped by" in page
    picture = browser.screenshot(address, "report.png", "1200,2600")
    assert share_of(picture, (0, 114, 178)) > 0.0005  # curves and bars
    assert share_of(picture, (240, 240, 240)) > 0.005  # the ground of pictures


def test_tensorboard_shows_charts_and_pictures(
    tensorboard: str, browser: Browser
) -> None:
    page = browser.page(f"{tensorboard}/#timeseries")
    for tag in ("grad_norm", "loss/train", "loss/val"):  # it opens two groups alone
        assert tag in page
    for group in ("metric", "lr", "time", "rows", "worst"):
        assert re.search(rf">\s*{group}\s*<", page)
    assert re.search(r">\s*demo\s*<", page)  # the run's name
    curves = browser.screenshot(
        f"{tensorboard}/#custom_scalars", "tensorboard_curves.png", "1400,1000"
    )
    assert share_of(curves, (255, 112, 67)) > 0.0005  # the colour of its first run
    rows = browser.screenshot(
        f"{tensorboard}/#images", "tensorboard_rows.png", "1400,1700"
    )
    assert share_of(rows, (240, 240, 240)) > 0.05  # the ground of the pictures
