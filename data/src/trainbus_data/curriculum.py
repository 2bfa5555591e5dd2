"""A curriculum: the rows to learn from first, and when all come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from typing import Any, NamedTuple

from trainbus_data.config import CurriculumConfig
from training.documents.document import Key
from training.errors import ConfigError, did_you_mean
from training.feed.permutation import Permutation
from training.messages.tables import count

__all__ = ["Beginning", "Curriculum", "rows_to_begin_with"]


class Beginning(NamedTuple):
    """How many rows are trained on alone at first, of how many.

    Attributes:
        chosen: number of them.
        rows: number of all.
        config: the choice.
    """

    chosen: int
    rows: int
    config: CurriculumConfig

    def __str__(self) -> str:
        return f"{self.chosen:,} alone in {self.config.told}"

    def never_drawn(self, epochs: int) -> list[str]:
        """Return a sentence if a run of so many epochs is over before all rows come."""
        left = self.rows - self.chosen
        if not left or epochs > self.config.epochs:
            return []
        return [
            f"data.curriculum.epochs is {self.config.epochs:,}, but the run has "
            f"{count(epochs, 'epoch')}: {left:,} of {count(self.rows, 'training row')} "
            "are never trained on; lower it, or train for longer"
        ]


class Curriculum(Permutation):
    """Draw some rows alone in the first epochs, then all in a new order each epoch.

    Args:
        length: number of rows, and of what is drawn in each epoch.
        first: indices of the rows to begin with.
        epochs: in which they are alone.
    """

    def __init__(self, length: int, first: Sequence[int], epochs: int) -> None:
        super().__init__(length)
        self.first = first
        self.epochs = epochs
        self.epoch = 0

    @property
    def fingerprint(self) -> str:
        """Tell this order from others, for who resumes in it."""
        digest = sha256(",".join(map(str, self.first)).encode()).hexdigest()[:8]
        return f"{self.epochs} epochs of {len(self.first)} rows ({digest})"

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is drawn next, from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.epoch >= self.epochs:
            return super().__iter__()
        return islice(self._again_and_again(), self.length)

    def _again_and_again(self) -> Iterator[int]:
        order = Permutation(len(self.first), self.generator)
        while True:
            for place in order:
                yield self.first[place]


def rows_to_begin_with(
    rows: Sequence[Mapping[str, Any]],
    config: CurriculumConfig,
    fields: Mapping[str, str],
    locate: Callable[[Key], str],
) -> list[int]:
    """Return the indices of the rows that ``config`` chooses; reads each row once.

    Args:
        rows: to train on.
        config: the choice.
        fields: of the task.
        locate: tells where a key of the configuration stands.
    Raises:
        ConfigError: the task has no such field, or no row such a value.
    """
    if config.field not in fields:
        raise ConfigError(
            f"{locate(('data', 'curriculum', 'field'))} is {config.field!r}, no field "
            f"of the task{did_you_mean(config.field, fields)}; its fields are: "
            f"{', '.join(fields)}"
        )
    given = (row.get(config.field) for row in rows)
    values = [None if value is None else str(value) for value in given]
    there = sorted({value for value in values if value is not None})
    unknown = [value for value in config.values if value not in there]
    if unknown:
        more = ", ..." if len(there) > 10 else ""
        raise ConfigError(
            f"{locate(('data', 'curriculum', 'values'))} names {unknown[0]!r}, which "
            "no training row has as its "
            f"{config.field}{did_you_mean(unknown[0], there)}; "
            f"rows have: {', '.join(there[:10])}{more}"
        )
    chosen = set(config.values)
    return [index for index, value in enumerate(values) if value in chosen]
