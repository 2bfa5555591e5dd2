"""What one process's part of a batch weighs, decided alike on all processes."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import torch

from training.errors import ConfigError
from training.feed.share import StandIn
from training.hardware.strategy import Strategy
from training.weighing import sentences
from training.weighing.candidates import said_weight
from training.weighing.collated import load
from training.weighing.sentences import WAYS_OUT
from training.weighing.subject import Look
from training.weighing.units import in_words
from training.weighing.untouched import untouched
from training.weighing.weigher import Weigher

log = logging.getLogger("training.weighing")

#: What a process tells of the batch, in this order.
WHAT = ("unit", "what it may be", "whether it is known", "scale")


class PartWeigher(Weigher):
    """Measures batches, which are the same on all processes, and weighs its own parts.

    While several units are left all processes are asked at each batch whether they go
    together in every part: one sum.

    Args:
        given: as those of ``Weigher``.
        strategy: of many processes.
    """

    def __init__(self, *given: Any, strategy: Strategy) -> None:
        super().__init__(*given)
        self._strategy = strategy
        self._seen = Look()  # in the batch that was measured last

    def ask(self, part: Any, source: Any) -> float:
        """Return what a part that this process trains on counts in its window.

        Args:
            part: on the host.
            source: a ``DividedLoader``, or what it told when it had read this part.
        """
        weight = self._weight(part, source)
        if self.weigh == self.ask and len(self._told.live) <= 1:
            self._find_usual()
        return counted(weight, source)

    def _find_usual(self) -> None:
        super()._find_usual()
        if self.weigh != self.ask:
            weigh = self.weigh
            self.weigh = lambda part, source: counted(weigh(part, source), source)

    def evaluated(self, batch: Any, samples: int | None = None) -> float:
        """Return what a batch that is not trained on counts; it decides nothing.

        No other process is asked: some evaluators measure on one alone. Before the
        first batch of a run whose passes wait for one another nothing is measured,
        since parts may take unequal numbers of passes.
        """
        said = said_weight(batch) is not None or self._function is not None
        is_first = self._told.unit is None and not self._told.is_settled
        if said or (is_first and not self._strategy.passes_together):
            return super().evaluated(batch, samples)
        unit, weight, agree = self._told.compared(self._counts, batch, samples)
        if not agree:
            others = [in_words(each) for each in self._told.live if each != unit]
            log.warning(
                "evaluation counts by %s; that the loss is a mean over %s is as likely",
                *(in_words(str(unit)), " or ".join(others)),
            )
        return weight

    def _weight(self, part: Any, source: Any) -> float:
        issued = source.issued
        if said_weight(part) is not None or self._function is not None:
            return self(part, issued)
        samples = None if issued is None else len(issued)
        if not self._told.is_settled and self._model is not None:
            counts = self._measured(*self._whole(part, source)) != 0.0
            self._agree()
            if not counts:  # nor does any part
                return 0.0
        elif self._told.later.is_due():
            self._look_again(*self._whole(part, source)[:2])
        if self._differ(part, samples, source.stands_in):
            if self._told.is_settled:
                counts = self._decided_late(*self._whole(part, source)) != 0.0
                self._agree()
                if not counts:
                    return 0.0
            if self._differ(part, samples, source.stands_in):
                self._unknown(sentences.undecided(self._told.live, self._reasons))
        return 0.0 if source.stands_in else self._amount(part, samples)

    def _whole(self, part: Any, source: Any) -> tuple[Any, Any, int | None]:
        """Return (batch, its indices where known, samples): the same everywhere."""
        if self._strategy.data == "own":  # that of main: there is none of all
            return self._strategy.on_main(lambda: part), None, None
        if source.whole is not None:
            return source.whole, None, None
        indices = source.issued.whole
        with untouched([], self._loader):
            (batch,) = load(self._loader, indices, [range(len(indices))])
        return batch, indices, len(indices)

    def _differ(self, part: Any, samples: int | None, stands_in: bool) -> bool:
        """Whether the units left weigh any process's part differently."""
        if len(self._told.live) <= 1:
            return False
        differs = not stands_in and self._told.has_parted(self._counts, part, samples)
        return self._strategy.sum([float(differs)]) != [0.0]

    def look(self, batch: Any, issued: Any, live: list[str] | None = None) -> Look:
        """Return what ``batch`` tells, and remember it."""
        self._seen = super().look(batch, issued, live)
        return self._seen

    def _agree(self) -> None:
        """Refuse to go on if processes have seen different things in one batch.

        Raises:
            OutOfMemoryError: one of them had no room for any of the batch.
            ConfigError: they have measured it, and not the same.
        """
        told = self._told
        own = told.unit, list(told.live), told.is_settled, told.scale
        every = zip(*self._strategy.gather(own), strict=True)
        for what, found in zip(WHAT, every, strict=True):
            if all(each == found[0] for each in found):
                continue
            self._strategy.on_each(partial(_require_room, self._seen))
            said = ", ".join(f"{each!r} on rank {r}" for r, each in enumerate(found))
            raise ConfigError(
                "what the loss is a mean over was measured otherwise in each process "
                f"({what} is {said}): {WAYS_OUT}"
            )

    def _refuse_differing(self, batch: Any, samples: int | None, seen: Any) -> None:
        self._reasons += seen.reasons  # parts are compared, not the batch

    def _refusal(self, why: str) -> ConfigError:
        return ConfigError(sentences.divided(self._strategy.size, why))


def counted(weight: float, source: Any) -> float:
    """Return ``weight``, or what says that the part only stands in for an empty one."""
    return StandIn() if source.stands_in else weight


def _require_room(seen: Look) -> None:
    if seen.has_no_room:
        why = "; ".join(seen.reasons)
        raise torch.OutOfMemoryError(
            f"a batch was measured, to tell what its loss is a mean over, and {why}"
        )
