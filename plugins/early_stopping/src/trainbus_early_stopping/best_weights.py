"""The weights of the best check: in a checkpoint if one holds them, else a copy."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainbus_early_stopping.progress import Progress
from training import CheckpointError
from training.plugin import (
    as_plain,
    check_weights,
    complete,
    load_weights,
    peek_state,
    read_checkpoint,
    weights_of,
)

if TYPE_CHECKING:
    from training import Trainer

log = logging.getLogger(__name__)


class BestWeights:
    """Keeps weights and buffers of model and loss of one moment; puts them back.

    Attributes:
        owner: name of the plugin, for messages and to recognise its checkpoints.
    """

    def __init__(self, owner: str) -> None:
        self.owner = owner
        #: State of the model on the CPU, or None while no copy is held.
        self.copy: dict[str, Any] | None = None
        #: The same of the loss; None also in the copies of releases that took none.
        self.loss: dict[str, Any] | None = None
        self._trainer: Trainer | None = None  # of the run that is on

    def take(self, trainer: Trainer) -> None:
        """Copy the state of model and loss to the CPU: one device-to-host copy."""
        self._trainer = trainer
        self.copy = _cpu_copies(weights_of(trainer.model))  # aliases the live tensors
        self.loss = _cpu_copies(trainer.criterion.state_dict())

    def drop(self) -> None:
        """Free the copy."""
        self.copy = self.loss = None

    def check(self, trainer: Trainer) -> None:
        """See that a copy which a checkpoint brought fits the model.

        Raises:
            CheckpointError: names, shapes or kinds of numbers differ; says which.
        """
        if self.copy is None:
            return
        self._trainer = trainer
        source, own = str(trainer.resumed_from), weights_of(trainer.model)
        plain = as_plain(trainer.model, self.copy)
        try:
            check_weights(plain, own, "model", source)
        except CheckpointError as error:
            raise CheckpointError(f"{self.owner}: its best weights: {error}") from error
        # A checkpoint holds them whole; from here on as the model has them.
        self.copy = trainer.strategy.own(plain, own)

    def is_needed(self, best: Progress) -> bool:
        """Whether a checkpoint of now must carry the copy, if there is one.

        It need not where its own weights are those.
        """
        now = None if self._trainer is None else self._trainer.step
        return self.copy is not None and now != best.best_step

    def leave(self) -> None:
        """Let go of the trainer, whose run is over."""
        self._trainer = None

    def release_if_saved(self, trainer: Trainer, best: Progress) -> None:
        """Free the copy if a checkpoint holds it, too; all processes call it."""
        if self.copy is None or best.best_step is None:
            return
        path = _find_checkpoint(trainer, best.best_step)
        is_there = path is not None and self._unfit(peek_state(path), best) is None
        # One for which it is not to be found would have nothing to put back.
        if all(trainer.strategy.gather(is_there)):
            self.drop()

    def restore(self, trainer: Trainer, best: Progress) -> None:
        """Load the best weights into model and loss, or say why live ones stay.

        All processes call it, and do the same.
        """
        step = best.best_step
        if step is None:
            log.warning("%s: no finite value was seen; live weights stay", self.owner)
            return
        # Another plugin may have put other weights in the place of the last ones.
        if step != trainer.step or trainer.weights_are != "live":
            saved = self._saved(trainer, best)
            if not all(trainer.strategy.gather(saved is not None)):
                saved = None
            weights, loss = saved or (self.copy, self.loss)
            if weights is None:
                log.warning(
                    "%s: neither a checkpoint nor a copy of the best step %d is left; "
                    "live weights stay",
                    *(self.owner, step),
                )
                return
            load_weights(trainer.model, as_plain(trainer.model, weights))
            if loss is None and trainer.criterion.tensors():
                log.warning(
                    "%s: what is left of the best step %d is of an earlier release, "
                    "which kept nothing of the loss; its live weights stay",
                    *(self.owner, step),
                )
            trainer.criterion.load_state_dict(loss or {})
        trainer.weights_are = f"best@{step}"

    def _saved(
        self, trainer: Trainer, best: Progress
    ) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
        """Return model and loss of a verified checkpoint that saw the same best.

        What is sharded is this process's part.
        """
        assert best.best_step is not None
        path = _find_checkpoint(trainer, best.best_step)
        state = None if path is None else self._read(path)
        # Before it is completed, which all do together where weights are sharded.
        if not all(trainer.strategy.gather(state is not None)) or state is None:
            return None
        try:
            complete(trainer.model, state, str(path))  # frozen ones may not be in it
        except CheckpointError as error:
            log.warning("%s: %s", self.owner, error)
            return None
        if why := self._unfit(state, best):
            log.warning("%s: %s %s; it is not used", self.owner, path, why)
            return None
        part = trainer.strategy.own(state["model"], weights_of(trainer.model))
        return part, state.get("loss")

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            return read_checkpoint(path)
        except CheckpointError as error:
            log.warning("%s: %s", self.owner, error)
            return None

    def _unfit(self, state: Mapping[str, Any], best: Progress) -> str | None:
        """Return why the state of a checkpoint is not that of the best check, or None.

        A file that a signal had written before the check is none: nobody could tell
        it from one of another run.
        """
        own = state.get("plugins", {}).get(self.owner, {}).get("progress", {})
        if own and own.get("best_seen") != best.best_seen:
            return "is from before that check, or of another run"
        if state.get("progress", {}).get("step") != best.best_step:
            return "is of another step"
        return None


def _find_checkpoint(trainer: Trainer, step: int) -> Path | None:
    """Ask the plugins that write checkpoints for a complete file of ``step``."""
    find = trainer.bus.find_checkpoint
    return None if find is None else find(trainer, step)


def _cpu_copies(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _cpu_copy(value) for name, value in state.items()}


def _cpu_copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    return copy.deepcopy(value)  # a module's extra state may be anything
