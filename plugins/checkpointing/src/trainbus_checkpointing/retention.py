"""Which checkpoints are the best, which one enters, which go: no file is touched."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from training.plugin import gain

log = logging.getLogger(__name__)

#: ``save_top_k`` that keeps everything.
KEEP_ALL = -1


@dataclass
class Entry:
    """One complete checkpoint file.

    Attributes:
        file: bare name below the folder.
        step: ``trainer.step`` of its state.
        epoch: completed epochs.
        update: applied updates.
        is_ranked: competes for the best k; False for a file that is only the last.
        reason: what the save was for.
        metrics: values measured at this step; None stands for NaN and infinities.
        num_bytes: size of the file.
        digest: of names, sizes and CRC32s of all its records.
        run: number of the run in this folder that it belongs to.
        written_by: random id of the run that wrote it, the same in each folder that it
            writes to; empty where an earlier release did.
        is_spared: is never deleted: was among the best by another monitor or mode, or
            was listed again, by what is in it.
    """

    file: str
    step: int
    epoch: int
    update: int
    is_ranked: bool
    reason: str
    num_bytes: int = 0
    digest: str = ""
    run: int = 0
    written_by: str = ""
    is_spared: bool = False
    metrics: dict[str, float | None] = field(default_factory=dict)

    def value(self, monitor: str | None) -> float | None:
        """Return the finite value of ``monitor``, or None."""
        value = None if monitor is None else self.metrics.get(monitor)
        return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class Ranking:
    """How checkpoints compare.

    Attributes:
        monitor: the metric; None ranks by age, the newest first.
        mode: ``"min"`` if smaller is better, ``"max"`` if larger is.
        keep: number of best ones to keep; KEEP_ALL for all.
    """

    monitor: str | None
    mode: str
    keep: int

    def beats(self, value: float, other: float) -> bool:
        """Whether ``value`` is strictly better."""
        return gain(value, other, self.mode) > 0

    def sorted(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the ranked ones of ``entries`` (oldest first), best first.

        A tie goes to the older; NaN, infinite and missing values come after all finite.
        """
        ranked = [entry for entry in entries if entry.is_ranked]
        if self.monitor is None:
            return ranked[::-1]

        # The gain of 0 over the value: the smaller, the better the value.
        def key(entry: Entry) -> tuple[bool, float]:
            value = entry.value(self.monitor)
            return value is None, 0.0 if value is None else gain(0.0, value, self.mode)

        return sorted(ranked, key=key)  # stable: equal ones stay oldest first

    def kept(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the best ``keep`` of ``entries``, best first."""
        ranked = self.sorted(entries)
        return ranked if self.keep == KEEP_ALL else ranked[: self.keep]

    def measured(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return those kept that have a finite value, best first."""
        return [e for e in self.kept(entries) if e.value(self.monitor) is not None]

    def best(self, entries: Sequence[Entry]) -> Entry | None:
        """Return the best of those kept with a finite value, or None."""
        return next(iter(self.measured(entries)), None)

    def spare(self, entries: Sequence[Entry], now: Ranking) -> None:
        """Let none of its best be deleted because the run now ranks in another way."""
        best = self.measured(entries)
        for entry in best:
            entry.is_spared = True
        if best:
            log.warning(
                "checkpointing: the run's checkpoints were ranked by %r (%s), and from "
                "here on by %r (%s); what was best stays until you delete it: %s",
                *(self.monitor, self.mode, now.monitor, now.mode),
                ", ".join(entry.file for entry in best),
            )

    def enters(self, value: float, entries: Sequence[Entry]) -> bool:
        """Whether a new checkpoint of ``value`` would be among the best ``keep``.

        It must be strictly better than the worst one kept; NaN and infinity never are.
        """
        if not math.isfinite(value) or self.keep == 0:
            return False
        # Asked first: there is nothing to compare, and so nothing to sort.
        if self.keep == KEEP_ALL or sum(e.is_ranked for e in entries) < self.keep:
            return True
        worst = self.kept(entries)[-1].value(self.monitor)
        return worst is None or self.beats(value, worst)

    def evicted(
        self, entries: Sequence[Entry], protected: Collection[str]
    ) -> list[Entry]:
        """Return the entries neither kept, nor spared, nor named in ``protected``."""
        stay = {entry.file for entry in self.kept(entries)} | set(protected)
        return [e for e in entries if not e.is_spared and e.file not in stay]
