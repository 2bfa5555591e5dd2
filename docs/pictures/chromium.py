"""Draw pages in Chromium, without a window.

The browser is told what to do over a pipe (DevTools protocol), so that a page can take
the time that it needs: one with workers is not done when its own clock says so.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PATIENCE = 120.0  # seconds for a page to be as it shall be
LOOK = 0.25  # seconds between two looks


def program() -> str:
    """Return the browser, or end with what to install."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    sys.exit("there is no Chromium here; on Debian: apt-get install chromium")


class Chromium:
    """One page, without a window.

    Args:
        width: of the page, in pixels.
        height: of the page, in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs, self._to = _high_pipe()
        self._from, ours = _high_pipe()

        def place() -> None:  # where Chromium looks for them
            os.dup2(theirs, 3)
            os.dup2(ours, 4)

        self._process = subprocess.Popen(
            [
                *(program(), "--headless", "--no-sandbox", "--disable-gpu"),
                *("--hide-scrollbars", "--allow-file-access-from-files"),
                "--remote-debugging-pipe",
                f"--user-data-dir={self._profile.name}",
            ],
            pass_fds=(3, 4),
            preexec_fn=place,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(ours)
        self._ids = itertools.count(1)
        self._read = b""
        self._session: str | None = None
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        self._profile.cleanup()

    def open(self, address: str, until: str = "true") -> None:
        """Show a page, and wait until an expression of JavaScript holds there.

        Raises:
            TimeoutError: it does not within ``PATIENCE`` seconds.
        """
        self._ask("Page.navigate", url=address)
        whole = f"document.readyState === 'complete' && ({until})"
        end = time.monotonic() + PATIENCE
        while not self.value(whole):
            if time.monotonic() > end:
                raise TimeoutError(f"{address}: not {until} after {PATIENCE} s")
            time.sleep(LOOK)

    def value(self, expression: str) -> Any:
        """Return what an expression of JavaScript is in the page."""
        answer = self._ask(
            "Runtime.evaluate", expression=expression, returnByValue=True
        )
        return answer["result"].get("value")

    def picture(self, target: Path) -> None:
        """Write the page as it is into ``target``, a PNG."""
        answer = self._ask("Page.captureScreenshot", format="png")
        target.write_bytes(base64.b64decode(answer["data"]))

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            part = os.read(self._from, 1 << 20)
            if not part:
                raise RuntimeError("Chromium ended")
            self._read += part
        one, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(one)
        return message


def _high_pipe() -> tuple[int, int]:
    """Return (to read, to write) of a pipe, with numbers that place() leaves alone."""
    low = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low)
    for end in low:
        os.close(end)
    return high[0], high[1]
