"""Waiting for the others in one call, and telling that they are in another one.

Processes that call different things wait for one another for ever: one that saves by
itself, say, while the others go on to the next step. Or worse, one takes what is said
there for what it asked. So each says its call, too; and whoever has waited long enough
writes down where. Once all have, and it is not the same call, that is an error.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

from trainbus_distributed.lines import AheadError, Gathering
from training import PluginError

#: The how many-th it is, and what it is in a word or two.
Call = tuple[int, str]

#: Seconds after which a process in one call writes down where it is; between looks.
PATIENCE, BETWEEN = 4.0, 1.0
#: Seconds that who has met another call waits for the others to write down theirs.
TO_LEARN = 6.0
#: Code of the run itself; who has called that is what a person wants to know.
OWN = ("training", "trainbus_distributed", "torch", "contextlib")


class OutOfStepError(PluginError):
    """The processes of a run wait for one another in different calls."""


class Waiting:
    """Waits for the others in calls that all processes make in one order.

    Args:
        store: shared by all processes; None: nobody can be told anything.
        rank: of this one.
        size: how many they are.
    """

    number = 0  # of calls begun so far, of all groups of this process

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self._store, self._rank, self._size = store, rank, size

    def begin(self, call: str) -> Call:
        """Count a call; return what stands for it: the same on all processes.

        Args:
            call: what it is, in a word or two.
        """
        Waiting.number += 1
        return Waiting.number, call

    def until_done(self, gathering: Gathering, call: Call) -> None:
        """Wait for what others say.

        Args:
            gathering: under way.
            call: as begun.
        Raises:
            OutOfStepError: all wait, but not in the same call.
            LineError: another process is gone, or has not come.
        """
        try:
            if gathering.is_done(PATIENCE):
                return
            self._write_down(call)
            seen: Sequence[Any] = ()
            while not gathering.is_done(BETWEEN):
                # Twice the same: one that is about to go on may not have said so.
                if (now := self._calls()) == seen and is_mixed(now):
                    raise OutOfStepError(out_of_step(now))
                seen = now
            if self._store is not None:
                self._store.set(self._key(self._rank), "null")
        except AheadError:
            self._write_down(call)
            calls: list[Any] = [None] * self._size
            calls[self._rank] = [*call, place()]
            calls[self._rank - 1] = [*call, "a pass of the model"]  # it has told
            raise OutOfStepError(out_of_step(calls)) from None

    def require_same(self, calls: Iterable[Call], call: Call) -> None:
        """Refuse what was heard of another call.

        Args:
            calls: of all processes.
            call: of this one.
        Raises:
            OutOfStepError: another process has called something else.
        """
        calls = list(calls)
        if all(each == call for each in calls):
            return
        self._write_down(call)
        until, found = time.monotonic() + TO_LEARN, self._calls()
        while None in found and self._store is not None and time.monotonic() < until:
            time.sleep(BETWEEN)
            found = self._calls()
        # Of who has not written down where it is, what it has called.
        known = zip(calls, found, strict=True)
        raise OutOfStepError(
            out_of_step([at or [*each, f"the call {each[1]!r}"] for each, at in known])
        )

    def _write_down(self, call: Call) -> None:
        if self._store is not None:
            self._store.set(self._key(self._rank), json.dumps([*call, place()]))

    def _calls(self) -> Sequence[Any]:
        """Return (number, call, place) of each process; None: it does not wait."""
        found = []
        for key in map(self._key, range(self._size)):
            known = self._store is not None and self._store.check([key])
            found.append(json.loads(self._store.get(key)) if known else None)
        return found

    def _key(self, rank: int) -> str:
        return f"waits/{rank}"


def is_mixed(calls: Sequence[Any]) -> bool:
    """Whether all processes wait, and in different calls."""
    return None not in calls and len({(each[0], each[1]) for each in calls}) > 1


def out_of_step(calls: Sequence[Any]) -> str:
    """Return the sentence that says where each process waits."""
    places = [call[2] for call in calls if call is not None]
    is_told = len(set(places)) == len(places)  # else it takes the inner calls, too
    said = (
        f"rank {rank} is elsewhere"
        if call is None
        else f"rank {rank} in {call[2]}" + ("" if is_told else f", by {call[1]!r}")
        for rank, call in enumerate(calls)
    )
    return (
        f"the processes of the run wait for one another in different calls: "
        f"{', '.join(said)}; let all of them make the same calls in the same order, "
        "not only 'if trainer.is_main'"
    )


def asker() -> str:
    """Return which function of the run calls the function that calls this.

    ``""`` for other code, which may ask by another function on each process.
    """
    frame = sys._getframe(2)
    is_own = frame.f_globals.get("__name__", "").startswith("training.")
    return frame.f_code.co_name if is_own else ""


def place() -> str:
    """Return what of the run was called, and by which line of other code."""
    called = ""
    for frame, line in traceback.walk_stack(None):
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package and package not in OWN:
            file = os.path.basename(frame.f_code.co_filename)
            return f"{called} ({file}, line {line})"
        called = frame.f_code.co_name
    return called
