"""Show how far a command is that goes through rows, batch by batch."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["Counted"]


class Counted:
    """The batches of ``loader``, with a bar on standard error if that is a terminal.

    Args:
        loader: of batches; whatever else is asked, it answers.
        what: is done with them, for the bar.
        total: batches; None: as many as the loader says.

    Attributes:
        is_weighed: whether a batch has come that is part of a loss.
    """

    def __init__(
        self, loader: Iterable[Any], what: str, total: int | None = None
    ) -> None:
        self.loader = loader
        self._what = what
        self._total = total
        self.is_weighed = False

    def __iter__(self) -> Iterator[Any]:
        from tqdm.auto import tqdm

        from training.feed.structure import attribute_of

        for batch in tqdm(
            self.loader,
            desc=self._what,
            total=self._total,
            unit="batch",
            file=sys.stderr,
            disable=None,  # where nobody looks
            leave=False,
            dynamic_ncols=True,
        ):
            self.is_weighed |= attribute_of(batch, "loss_weight") != 0
            yield batch

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "loader":  # what Python asks in copying
            raise AttributeError(name)
        return getattr(self.loader, name)
