"""What metrics call the kinds of rows that they are told by."""

from __future__ import annotations

__all__ = ["slug"]


def slug(kind: object) -> str:
    """Return a kind as metrics write it: ``"yes/no"`` is ``yes_no``."""
    return "".join(c if c.isalnum() else "_" for c in str(kind).strip()).lower()
