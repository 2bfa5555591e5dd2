"""Drive a torch scheduler object, and carry its state across checkpoints."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from trainbus_lr_scheduling.drivers import set_lr


class TorchDriver:
    """Steps a torch scheduler object.

    Args:
        scheduler: its state now counts as the beginning, and as what was configured.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._fresh: dict[str, Any] = plain(scheduler.state_dict())
        # The scheduler's own rates: the groups' may have been restored since.
        self._lrs = [float(rate) for rate in scheduler.get_last_lr()]
        self._settings: dict[str, Any] = self._fresh
        self._advances = 0

    @property
    def settings(self) -> dict[str, Any]:
        """The scheduler's state at its beginning."""
        return self._settings

    def start(self) -> None:
        """Put scheduler and rates back to the beginning."""
        self._settings, self._advances = self._fresh, 0
        self._load(self._fresh)
        self._set_rates(self._lrs)

    def advance(self, value: float | None = None) -> None:
        """Step the scheduler, with ``value`` if it follows a metric."""
        self._advances += 1
        if value is None:
            self._scheduler.step()
        else:
            self._scheduler.step(value)

    def progress(self) -> dict[str, Any]:
        """Return the scheduler's state and how often it was stepped."""
        state: dict[str, Any] = plain(self._scheduler.state_dict())
        return {"advances": self._advances, "state": state}

    def resume(self, settings: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
        """Load the saved state; torch lets it replace the configured settings."""
        self._settings = dict(settings)
        self._advances = progress["advances"]
        self._load(progress["state"])
        self._set_rates(progress["state"]["_last_lr"])

    def restart(self, progress: Mapping[str, Any]) -> None:
        """Begin the configured schedule here; its length stays as it was built."""
        self.start()

    def rescale(self, progress: Mapping[str, Any]) -> None:
        """Replay the configured scheduler; a plateau keeps what it has seen."""
        if isinstance(self._scheduler, ReduceLROnPlateau):
            learnt = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
            seen = {name: progress["state"][name] for name in learnt}
            self._load({**self._fresh, **seen})
        else:
            self.start()
            with warnings.catch_warnings():  # "before optimizer.step()": a replay
                warnings.simplefilter("ignore")
                for _ in range(progress["advances"]):
                    self._scheduler.step()
        self._advances = progress["advances"]

    def _set_rates(self, rates: list[float]) -> None:
        groups = self._scheduler.optimizer.param_groups
        bases = getattr(self._scheduler, "base_lrs", self._lrs)
        for group, rate, base in zip(groups, rates, bases, strict=False):
            group["initial_lr"] = float(base)
            set_lr(group, float(rate))

    def _load(self, state: Mapping[str, Any]) -> None:
        current = self._scheduler.state_dict()
        loaded = copy.deepcopy(dict(state))  # the scheduler keeps and changes the lists
        for name, value in loaded.items():
            if isinstance(current.get(name), Counter):  # MultiStepLR's milestones
                loaded[name] = Counter(value)
        self._scheduler.load_state_dict(loaded)


def plain(value: Any) -> Any:
    """Return a copy of ``value`` made of dicts, lists, tensors and JSON values."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.clone() if isinstance(value, Tensor) else value
