"""What the files of a run's record are called, for who writes and who reads them."""

from __future__ import annotations

__all__ = ["CONFIG", "HISTORY", "LOCK", "RECORD", "STARTS", "SUMMARY"]

CONFIG = "config.yaml"
HISTORY = "history.json"
SUMMARY = "summary.json"
STARTS = "starts.json"
#: All of them.
RECORD = (CONFIG, HISTORY, SUMMARY, STARTS)
#: Beside them while a run is on.
LOCK = "record.lock"
