"""How long something took, in words."""

from __future__ import annotations

import math

__all__ = ["duration"]


def duration(seconds: float | None) -> str:
    """Return ``"12.3 s"``, ``"3 min 20 s"`` or ``"2 h 5 min"``; ``""`` for None."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(math.floor(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"
