"""The state of one run: what it has counted, measured and been asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.loop.metrics import Metrics
from training.loop.progress import Progress
from training.loop.requests import Requests
from training.loop.verdicts import Verdicts

if TYPE_CHECKING:
    from training.bus.bus import Bus
    from training.hardware.strategy import Strategy
    from training.modules.unsaved_buffers import UnsavedBuffers
    from training.modules.unsaved_numbers import UnsavedNumbers
    from training.weighing.weigher import Weigher

#: What a checkpoint holds for the first iterator of the run that goes on.
TO_RESTORE = ("data", "loader", "rng")


class RunState:
    """Made anew for each run, so that nothing of an earlier one is left in it.

    Args:
        bus: of the run.
        weigher: knows what a batch counts, once it was measured.
        strategy: by which processes the run is computed.
        resumed_from: the checkpoint that the run goes on from, or None.
    Attributes:
        progress: the counters.
        verdicts: attempts that are not counted yet.
        history: one row for each epoch.
        metrics: the latest values.
        requests: what plugins asked for.
        weights_are: ``"live"``, or which weights a plugin put in place.
        carried_states: states of the loaded checkpoint that no plugin has, by name.
        joining_groups: parameter groups of the loaded checkpoint that had joined the
            saved run and are not in the optimizer yet.
        group_places: for each parameter group its place in the loaded checkpoint, None
            for one that is not in it; empty where that has no names.
        to_restore: what a loaded checkpoint holds for the first iterator (``data``,
            ``loader``, ``rng``); empty as soon as that stands.
        begun_with: lengths of the data and other settings before a hook changed them.
        unsaved: what modules move and no checkpoint holds, watched from set-up on.
        before_evaluation: those who look at what training has left.
    """

    def __init__(
        self,
        bus: Bus,
        weigher: Weigher,
        strategy: Strategy,
        resumed_from: Path | None = None,
    ) -> None:
        self.weigher = weigher
        self.resumed_from = resumed_from
        self.progress = Progress()
        # These share the counters, which are therefore loaded in place.
        is_alone = strategy.size == 1
        self.verdicts = Verdicts(self.progress, may_be_early=is_alone)
        self.history: list[dict[str, Any]] = []
        self.metrics = Metrics(weigher.has_step)
        self.requests = Requests(bus, self.progress)
        if not is_alone:
            # Late: a run of one process need not import it.
            from training.loop.agreement import SharedRequests

            asking = SharedRequests(bus, self.progress, strategy)
            self.requests = strategy.asking = asking
        self.weights_are = "live"
        self.carried_states: dict[str, Any] = {}
        self.joining_groups: list[Any] = []
        self.group_places: list[int | None] = []
        self.to_restore: dict[str, Any] = {}
        self.begun_with: dict[str, Any] = {}
        self.unsaved: list[UnsavedBuffers | UnsavedNumbers] = []
        self.before_evaluation: list[Callable[[], None]] = []

    def settle(self) -> None:
        """Count all attempts and let the rest be seen as training has left it.

        Call it where training pauses, before anybody evaluates. Waits for the device.
        """
        self.verdicts.settle()
        for look in self.before_evaluation:
            look()

    def has_pending_row(self, max_steps: int | None) -> bool:
        """Whether a signal ended the run before the evaluation at ``max_steps``."""
        at = self.progress
        is_inside = at.batch > 0 and self.requests.stop is None
        is_told = any(row["step"] == at.step for row in self.history[-1:])
        return is_inside and not is_told and at.step == max_steps

    @property
    def update(self) -> int:
        """Applied updates; on CUDA this may wait for those that are under way."""
        return self.progress.update + self.verdicts.num_applied

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The history; a copy, so that changes stay outside."""
        return [dict(row) for row in self.history]

    def use_weights(self, label: str) -> None:
        """Note which weights are in place."""
        self.weights_are = label

    def state_dict(self) -> dict[str, Any]:
        """Return counters, history, metrics and requests; all verdicts are in.

        All processes call it: what any of them has asked for so far is in it, too.
        """
        self.requests.agree()
        # Waits for the device: the counters may be 16 steps behind.
        self.verdicts.settle()
        return {
            "progress": self.progress.state_dict(),
            "history": self.history,
            "metrics": self.metrics.state_dict(),
            "requests": self.requests.state_dict(),
            "asked": self.requests.pending,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds of a run, its plugins' states included."""
        self.progress.load_state_dict(state["progress"])
        # Rows are copied: what was loaded stays as it was read.
        self.history[:] = [dict(row) for row in state["history"]]
        self.metrics.load_state_dict(state["metrics"])
        self.requests.load_state_dict(state["requests"], state.get("asked", {}))
        self.carried_states.clear()
        self.carried_states.update(state["plugins"])
        # Kept, not used: the iterator they are for does not stand yet.
        self.to_restore.update((name, state.get(name)) for name in TO_RESTORE)
