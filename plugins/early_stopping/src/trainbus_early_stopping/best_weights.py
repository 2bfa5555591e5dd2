"""The weights of the best check: in a checkpoint if one holds them, else a copy."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainbus_early_stopping.progress import Progress
from training import CheckpointError
from training.plugin import as_plain, load_weights, read_checkpoint, weights_of

if TYPE_CHECKING:
    from training import Trainer

log = logging.getLogger(__name__)


class BestWeights:
    """Keeps weights and buffers of one moment, and puts them back.

    Args:
        owner: name of the plugin, for messages and to recognise its checkpoints.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        #: State of the model on the CPU, or None while no copy is held.
        self.copy: dict[str, Any] | None = None

    def take(self, trainer: Trainer) -> None:
        """Copy the model's state to the CPU; costs one device-to-host copy."""
        state = weights_of(trainer.model)  # aliases the live tensors
        self.copy = {name: _cpu_copy(value) for name, value in state.items()}

    def release_if_saved(self, trainer: Trainer, step: int) -> None:
        """Free the copy if a checkpoint of ``step`` exists."""
        if self.copy is not None and _checkpoint_of(trainer, step) is not None:
            self.copy = None

    def restore(self, trainer: Trainer, best: Progress) -> None:
        """Load the best weights into the model, or say why the live ones stay."""
        step = best.best_step
        if step is None:
            log.warning("%s: no finite value was seen; live weights stay", self._owner)
            return
        if step != trainer.step:
            weights = self._saved(trainer, best) or self.copy
            if weights is None:
                log.warning(
                    "%s: neither a checkpoint nor a copy of the best step %d is left; "
                    "live weights stay",
                    *(self._owner, step),
                )
                return
            load_weights(trainer.model, as_plain(trainer.model, weights))
        trainer.weights_are = f"best@{step}"

    def _saved(self, trainer: Trainer, best: Progress) -> dict[str, Any] | None:
        """Return the weights from a verified checkpoint that saw the same best."""
        assert best.best_step is not None
        path = _checkpoint_of(trainer, best.best_step)
        if path is None:
            return None
        try:
            state = read_checkpoint(path)
        except CheckpointError as error:
            log.warning("%s: %s", self._owner, error)
            return None
        own = state.get("plugins", {}).get(self._owner, {}).get("progress", {})
        if own and own.get("best_seen") != best.best_seen:
            log.warning("%s: %s is of another run; it is not used", self._owner, path)
            return None
        weights: dict[str, Any] = state["model"]
        return weights


def _checkpoint_of(trainer: Trainer, step: int) -> Path | None:
    """Ask every plugin that offers ``checkpoint_of(step)`` for a complete file."""
    for plugin in trainer.plugins.values():
        offer = getattr(plugin, "checkpoint_of", None)
        path: Path | None = offer(step) if callable(offer) else None
        if path is not None:
            return path
    return None


def _cpu_copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    return copy.deepcopy(value)  # a module's extra state may be anything
