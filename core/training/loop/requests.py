"""What plugins ask of a run, kept until a boundary at which the loop grants it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from signal import Signals
from typing import TYPE_CHECKING, Any

from training.view import Request

if TYPE_CHECKING:
    from training.bus.bus import Bus
    from training.loop.progress import Progress

log = logging.getLogger(__name__)

#: Requests that a run keeps at least for its history, beside those to stop.
MOST_REQUESTS = 1000


class Abandoned(BaseException):
    """Unwinds an evaluation because the run leaves; the loop catches it.

    No Exception: nobody who goes on after an error shall go on after this.
    """


class Requests:
    """What was asked of a run, by whom, and what of it is still to be granted.

    Args:
        bus: tells who is asking, and whether a run is on.
        progress: tells when.
    Attributes:
        asked: kind -> reasons, for "checkpoint" and "evaluation", until granted.
        stop: what ends the run, or None.
        signal: for which the run leaves, or None.
        failure: of an evaluation, for which it leaves, or None.
        heard: what this process was told, or None.
        are_shared: whether other processes may ask, too; see ``agreement``.
    """

    are_shared = False

    def __init__(self, bus: Bus, progress: Progress) -> None:
        self._bus = bus
        self._progress = progress
        self._made: list[Request] = []
        self.asked: dict[str, str] = {}
        self.stop: Request | None = None
        self.signal: Signals | None = None
        self.failure: BaseException | None = None
        self.heard: Signals | None = None

    def agree(self, may_be_told: bool = False) -> None:
        """Learn what other processes ask for; there are none."""

    @property
    def pending(self) -> dict[str, str]:
        """What is owed to whoever goes on from here: kind -> reasons."""
        # A checkpoint that was asked for is the one that holds this.
        return {k: why for k, why in self.asked.items() if k == "evaluation"}

    @property
    def noted(self) -> tuple[Request, ...]:
        """What was asked, in order: all stops, and at least the latest 1000 others."""
        return tuple(self._made)

    @property
    def stop_reason(self) -> str | None:
        """Why the run ends; None while nothing ends it."""
        return None if self.stop is None else self.stop.reason

    @property
    def stop_owner(self) -> str | None:
        """Who ends it: a plugin's name, or ``"trainer"`` when the plan is done."""
        return None if self.stop is None else self.stop.owner

    def take(self, kind: str) -> str | None:
        """Return why ``kind`` was asked for, as it is granted; None if it was not."""
        return self.asked.pop(kind, None)

    def stop_on_signal(self, number: Signals) -> None:
        """End the run at the next boundary, whatever else would have ended it."""
        self.heard = self.heard or number
        self.ask("stop", f"{number.name} received", "signal", number)

    def leave_for_signal(self, number: Signals) -> None:
        """Let a signal end the run, for which a process has left at once."""
        if self.signal is None:
            self.heard = self.heard or number
            reason, at = f"{self.heard.name} received", self._progress
            self.stop = Request("stop", "signal", reason, at.step, at.epoch)

    def save_on_signal(self, number: Signals) -> None:
        """Ask for a checkpoint."""
        self.ask("checkpoint", f"{number.name} received", "signal")

    def stops_run_after(self, error: BaseException) -> bool:
        """Whether a failed evaluation ends the run by way of a stop, which is saved.

        The training before it shall not be lost. Of several processes the others may
        be at another place, where they could not save with this one.
        """
        if self.are_shared or isinstance(error, Abandoned):
            return False
        self.failure = error
        if self.signal is None:
            self.stop = None  # whoever asked before, for a run that went well
        self.ask("stop", "an evaluation failed", "error")
        return True

    def let_go(self) -> BaseException | None:
        """Return ``failure``, and keep none: its traceback holds what it measured."""
        failure, self.failure = self.failure, None
        return failure

    def finish(self, reason: str) -> None:
        """Note that the plan is done, unless somebody has ended the run."""
        # Not among what was asked: nobody did.
        if self.stop is None:
            at = self._progress
            self.stop = Request("stop", "trainer", reason, at.step, at.epoch)

    def state_dict(self) -> list[list[Any]]:
        """Return what was asked so far, each as a list of its fields."""
        return [[r.kind, r.owner, r.reason, r.step, r.epoch] for r in self._made]

    def load_state_dict(
        self, made: Iterable[Iterable[Any]], asked: Mapping[str, str]
    ) -> None:
        """Take over what ``state_dict`` and ``pending`` returned."""
        self._made[:] = [Request(*fields) for fields in made]
        self.asked = dict(asked)

    def ask(
        self,
        kind: str,
        reason: str,
        owner: str | None = None,
        signal: Signals | None = None,
    ) -> None:
        """Ask for ``kind`` at the next boundary; reasons that meet there are joined.

        Of those to stop the first is the one kept, but for a signal.
        """
        if owner is None:
            owner = self._bus.caller()
            if not self._bus.is_in_run:
                log.warning(
                    "%s asks for %s (%s) outside of train(), where nothing is granted; "
                    "ask in a hook",
                    *(owner, kind, reason),
                )
        at = self._progress
        self._receive(Request(kind, owner, reason, at.step, at.epoch), signal)

    def _receive(self, request: Request, signal: Signals | None) -> None:
        """Let ``request`` hold: the boundary to come grants it."""
        # All are noted: later ones tell who else would have ended it.
        self._made.append(request)
        if len(self._made) > 2 * MOST_REQUESTS:  # not at every request
            self._forget()
        if request.kind != "stop":
            earlier, reason = self.asked.get(request.kind), request.reason
            self.asked[request.kind] = f"{earlier}; {reason}" if earlier else reason
        elif signal is not None:
            # An earlier stop gives way: the exit code is that of the signal.
            self.signal, self.stop = signal, request
        elif self.stop is None:
            self.stop = request

    def _forget(self) -> None:
        """Drop the oldest that are no stops: a checkpoint carries them all."""
        others = [r for r in self._made if r.kind != "stop"]
        stale = set(map(id, others[:-MOST_REQUESTS]))
        self._made[:] = [r for r in self._made if id(r) not in stale]
