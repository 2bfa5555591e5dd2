"""Read a stream of events while it grows."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any


def follow(
    path: str | os.PathLike[str], interval: float = 0.1, patience: float | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the events in ``path`` from its first line on, until ``close``.

    Args:
        path: the file; it need not exist yet.
        interval: seconds between looks.
        patience: seconds without a new line after which to give up; None: never.
    Raises:
        TimeoutError: nothing came for ``patience`` seconds.
    """
    position, rest, last = 0, b"", time.monotonic()
    while True:
        data = b""
        if os.path.exists(path):
            with open(path, "rb") as file:
                file.seek(position)
                data = file.read()
        position += len(data)
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            last = time.monotonic()
            event = json.loads(line)
            is_last = event["event"] == "close"
            yield event
            if is_last:
                return
        if patience is not None and time.monotonic() - last > patience:
            raise TimeoutError(f"{os.fspath(path)!r} is silent for {patience:g} s")
        if not data:
            time.sleep(interval)
