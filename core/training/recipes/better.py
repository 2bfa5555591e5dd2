"""Which of two values of a metric is the better one."""

from __future__ import annotations

__all__ = ["gain"]


def gain(value: float, other: float, mode: str) -> float:
    """Return by how much ``value`` is better than ``other``; below 0: it is worse.

    Two different finite floats never gain 0, however near they are. NaN gains NaN,
    which is above nothing.

    Args:
        value: of a metric.
        other: of the same, in the same unit.
        mode: ``"min"`` if smaller is better, ``"max"`` if larger is.
    """
    return other - value if mode == "min" else value - other
