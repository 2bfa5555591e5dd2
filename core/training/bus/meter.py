"""Who costs what: time and calls for each plugin and hook."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Cost:
    """What one plugin spent in one hook.

    Attributes:
        calls: how often it was called.
        seconds: wall time inside these calls.
        syncs: times that it made the CPU wait for the device, where that is counted.
    """

    calls: int = 0
    seconds: float = 0.0
    syncs: int = 0


@dataclass(slots=True)
class Meter:
    """Accounts for the calls of a run; give it to ``bus.meter``.

    Attributes:
        costs: (plugin, hook) -> what was spent.
        events: (plugin, hook, start, seconds, syncs) of each call, when
            ``keep_events``; start in seconds of ``time.perf_counter``.
        keep_events: remember each single call, for a trace file.
    """

    keep_events: bool = False
    costs: dict[tuple[str, str], Cost] = field(default_factory=dict)
    events: list[tuple[str, str, float, float, int]] = field(default_factory=list)
    _running: Cost | None = None

    def note_sync(self) -> None:
        """Book one synchronisation to the call that is running, if one is."""
        if self._running is not None:
            self._running.syncs += 1

    def for_call(self, plugin: str, hook: str) -> Callable[..., Any]:
        """Return ``call(function, *arguments)``, which books the time it takes."""
        # As a slot is compiled, so that no call looks it up.
        cost = self.costs.setdefault((plugin, hook), Cost())

        def call(function: Callable[..., Any], *arguments: Any) -> Any:
            # Calls nest, as where a hook saves: a wait is booked to the inner one.
            outer, self._running = self._running, cost
            syncs = cost.syncs
            start = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self._running = outer
                seconds = time.perf_counter() - start
                cost.calls += 1
                cost.seconds += seconds
                if self.keep_events:
                    made = cost.syncs - syncs
                    self.events.append((plugin, hook, start, seconds, made))

        return call

    def table(self) -> list[tuple[str, str, Cost]]:
        """Return (plugin, hook, cost) for every hook that was called, dearest first."""
        # Compiled for everybody who listens; some never hear anything.
        rows = [(*key, cost) for key, cost in self.costs.items() if cost.calls]
        return sorted(rows, key=lambda row: -row[2].seconds)

    def as_json(self) -> list[dict[str, Any]]:
        """Return the table as JSON values, for the record of the run."""
        return [
            {"plugin": plugin, "hook": hook, **asdict(cost)}
            for plugin, hook, cost in self.table()
        ]

    def trace(self) -> dict[str, Any]:
        """Return the events in the Chrome/Perfetto trace format; times in us."""
        return {
            "displayTimeUnit": "ms",
            "traceEvents": [
                {
                    "name": f"{plugin}.{hook}",
                    "cat": hook,
                    "ph": "X",
                    "ts": start * 1e6,
                    "dur": seconds * 1e6,
                    "pid": 0,
                    # A plugin stands for a thread: viewers give each a row of its own.
                    "tid": plugin,
                    "args": {"syncs": syncs},
                }
                for plugin, hook, start, seconds, syncs in self.events
            ],
        }
