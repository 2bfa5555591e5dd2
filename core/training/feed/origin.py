"""Where a batch came from."""

from __future__ import annotations

from typing import Any, NamedTuple


class Origin(NamedTuple):
    """Where a batch came from, for when the loader has read others.

    Attributes:
        issued: the indices of its samples, where known.
        whole: of a part of one: the undivided batch, where it is here.
        stands_in: whether it stands in for an empty part.
    """

    issued: Any
    whole: Any
    stands_in: bool


def origin_of(source: Any) -> Origin:
    """Return where the batch came from that ``source``, a loader, has read last."""
    return Origin(source.issued, source.whole, source.stands_in)
