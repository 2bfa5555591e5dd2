"""What one process's part of a batch weighs, decided alike on all processes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from training.errors import ConfigError
from training.feed.share import StandIn
from training.weighing import sentences
from training.weighing.collated import load
from training.weighing.counts import Contents
from training.weighing.search import Search
from training.weighing.sentences import WAYS_OUT
from training.weighing.subject import Look
from training.weighing.units import in_words
from training.weighing.untouched import untouched
from training.weighing.usual_batch import Weigh
from training.weighing.weigher import Weigher

log = logging.getLogger("training.weighing")

#: What a process tells of the batch, in this order.
WHAT = ("unit", "what it may be", "whether it is known", "scale")


@dataclass(slots=True)
class Part(Contents):
    """What one process's part of a batch holds.

    Attributes:
        read: returns the contents of the batch.
    """

    read: Callable[[], Contents] | None = None

    def whole(self) -> Contents:
        """Return the contents of the batch that it is a part of."""
        assert self.read is not None
        return self.read()


class PartSearch(Search):
    """Measures batches, which are the same on all processes, and weighs their parts.

    While several units are left all processes are asked at each batch whether they go
    together in every part: one sum.
    """

    def _as_before(self, own: Contents) -> float | None:
        return None if self._has_parted(own) else self.known.amount(own)

    def _has_parted(self, own: Contents) -> bool:
        """Whether the units left weigh any process's part unlike those before."""
        if len(self.known.possible) <= 1:
            return False
        differs = not own.stands_in and self.known.has_parted(own)
        return self._subject.strategy.sum([float(differs)]) != [0.0]

    def _compare_resumed(self, batch: Contents) -> None:
        super()._compare_resumed(batch)
        self._agree()

    def _once_seen(self, own: Contents, is_counted: bool) -> float:
        self._agree()
        return super()._once_seen(own, is_counted)

    def _agree(self) -> None:
        """Refuse to go on if processes have seen different things in one batch.

        Raises:
            OutOfMemoryError: one of them had no room for any of the batch.
            ConfigError: they have measured it, and not the same.
        """
        known = self.known
        own = known.unit, list(known.possible), known.is_settled, known.scale
        every = zip(*self._subject.strategy.gather(own), strict=True)
        for what, found in zip(WHAT, every, strict=True):
            if all(each == found[0] for each in found):
                continue
            self._subject.strategy.on_each(partial(_require_room, self.last_look))
            said = ", ".join(f"{each!r} on rank {r}" for r, each in enumerate(found))
            raise ConfigError(
                "what the loss is a mean over was measured otherwise in each process "
                f"({what} is {said}): {WAYS_OUT}"
            )

    def _refusal(self, why: str) -> ConfigError:
        return ConfigError(sentences.divided(self._subject.strategy.size, why))


class PartWeigher(Weigher):
    """Weighs this process's parts of batches."""

    _search_kind = PartSearch

    def ask(self, part: Any, source: Any) -> float:
        """Return what a part that this process trains on counts in its window.

        Args:
            part: on the host.
            source: a ``DividedLoader``, or what it told when it had read this part.
        """
        return counted(super().ask(part, source), source)

    def _contents(self, part: Any, source: Any) -> Part:
        how = {"issued": source.issued, "stands_in": source.stands_in}
        return Part(self.counts, part, **how, read=partial(self._whole, part, source))

    def _usual(self) -> Weigh | None:
        if len(self._search.known.possible) > 1:  # others are asked at each batch
            return None
        weigh = super()._usual()
        if weigh is None:
            return None
        return lambda part, source: counted(weigh(part, source), source)

    def evaluated(self, batch: Any, samples: int | None = None) -> float:
        """Return what a batch that is not trained on counts; it decides nothing.

        No other process is asked: some evaluators measure on one alone. Before the
        first batch of a run whose passes wait for one another nothing is measured,
        since parts may take unequal numbers of passes.
        """
        if (said := self._said(batch)) is not None:
            return said
        known = self._search.known
        is_first = known.unit is None and not known.is_settled
        if is_first and not self._subject.strategy.passes_together:
            return super().evaluated(batch, samples)
        own = Contents(self.counts, batch, samples)
        unit, weight, agree = known.compared(own)
        if not agree:
            others = [in_words(each) for each in known.possible if each != unit]
            log.warning(
                "evaluation counts by %s; that the loss is a mean over %s is as likely",
                *(in_words(str(unit)), " or ".join(others)),
            )
        return weight

    def _whole(self, part: Any, source: Any) -> Contents:
        """Return the batch, which is the same everywhere."""
        subject = self._subject
        if subject.strategy.data == "own":  # that of main: there is none of all
            shared = subject.strategy.on_main(lambda: part)
            return Contents(self.counts, shared)
        if source.whole is not None:
            return Contents(self.counts, source.whole)
        indices = source.issued.whole
        with untouched([], subject.loader):
            (batch,) = load(subject.loader, indices, [range(len(indices))])
        return Contents(self.counts, batch, issued=indices)


def counted(weight: float, source: Any) -> float:
    """Return ``weight``, or what says that the part only stands in for an empty one."""
    return StandIn() if source.stands_in else weight


def _require_room(look: Look) -> None:
    if look.has_no_room:
        why = "; ".join(look.reasons)
        raise torch.OutOfMemoryError(
            f"a batch was measured, to tell what its loss is a mean over, and {why}"
        )
