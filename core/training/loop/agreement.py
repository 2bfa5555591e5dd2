"""What several processes ask of one run: each asks for all, at the boundary at hand.

One process may be told a signal, or decide by its own clock. Were it to act on that,
the others would wait for it for ever. So what is asked is held back until all are at
the same place; there each learns of it, and from then on it holds everywhere. The loop
goes by nothing else, so all processes go the same way.

Behind a window the processes need not wait for one another to learn that nobody asks:
where none did until its gradients were complete, and no plugin listens from there to
the boundary, its own sum has told. What comes in that short time all the same, a signal
or what an optimizer asks, holds at the boundary after it; at the end of an epoch, or of
a run by ``max_steps``, the processes wait for one another all the same.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from signal import Signals
from typing import TYPE_CHECKING

from training.loop.requests import Requests
from training.view import Request

if TYPE_CHECKING:
    from training.bus.bus import Bus
    from training.hardware.strategy import Strategy
    from training.loop.progress import Progress

#: A request, and the signal that asks, if one does.
Asked = tuple[Request, Signals | None]


class SharedRequests(Requests):
    """As ``Requests``, of several processes.

    Attributes:
        may_come: whether any process may ask at the boundary at hand; False only where
            a window has told, as the sum of ``may_request``.
    """

    are_shared = True
    may_come = True

    def __init__(self, bus: Bus, progress: Progress, strategy: Strategy) -> None:
        super().__init__(bus, progress)
        self._strategy = strategy
        self._held: deque[Asked] = deque()

    @property
    def noted(self) -> tuple[Request, ...]:
        """As there; last what this process has asked for and the others know not."""
        return (*super().noted, *(request for request, _ in self._held))

    @property
    def may_request(self) -> bool:
        """Whether this process asks, or may before the boundary of the window at hand.

        To be read where its gradients are complete.
        """
        bus = self._bus
        listens = bus.on_before_step is not None or bus.on_step_end is not None
        return listens or bool(self._held)

    def agree(self, may_be_told: bool = False) -> None:
        """Let hold everywhere what any process has asked for since the last time.

        All call it at the same places. One small sum; texts travel where there are any.

        Args:
            may_be_told: whether what a window has told is enough.
        """
        may_come, self.may_come = self.may_come, True
        if may_be_told and not may_come:
            return
        (asking,) = self._strategy.sum([float(bool(self._held))])
        if not asking:
            return
        # One by one: a signal, or a thread, may add another at any time.
        held = []
        while self._held:
            held.append(self._held.popleft())
        for request, signal in each_once(self._strategy.gather(held)):
            # The first signal is the one that the run leaves for, as in one process.
            if signal is None or self.signal is None:
                super()._receive(request, signal)

    def _receive(self, request: Request, signal: Signals | None) -> None:
        self._held.append((request, signal))


def each_once(asked: Iterable[Iterable[Asked]]) -> Iterator[Asked]:
    """Yield the requests of a run in the order of ranks, those of several only once.

    The reason says which process asks, where the main one does not.
    """
    known: Counter[Request] = Counter()
    for rank, own in enumerate(asked):
        seen: Counter[Request] = Counter()
        for request, signal in own:
            seen[request] += 1
            if seen[request] <= known[request]:
                continue
            known[request] += 1
            if rank:
                request = replace(request, reason=f"{request.reason} (rank {rank})")
            yield request, signal
