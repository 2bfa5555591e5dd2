"""Keep an exponential moving average of the weights; evaluate with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from training import Callback, ConfigError, checked_options, hookimpl

if TYPE_CHECKING:
    from training import Trainer

log = logging.getLogger(__name__)


class EmaCallback(Callback):
    """Average the trained weights over steps; swap the average in for evaluation.

    After each applied update ``average = decay * average + (1 - decay) * weights``,
    in place, on the device, for parameters that are trained, complex ones among them.
    The average of weights in half precision is in float32: what a step moves it by
    would be rounded away there. One that is thawed in mid-run begins at its
    weight then; one that is frozen stays in the average. With ``warmup`` the decay of
    update n is at most (1 + n) / (10 + n), so that the first weights are soon forgotten
    (as in TensorFlow's ExponentialMovingAverage).

    Args:
        decay: share of the average that each update keeps, in [0, 1).
        warmup: begin with a smaller decay.
        evaluate_with_average: measure the average instead of the weights.
        keep_average: at the normal end of training the model gets the average;
            ``trainer.weights_are`` is then ``"ema"``.
    Raises:
        ConfigError: ``decay`` is out of range.
    """

    name = "ema"
    hook_api = ">=1.0,<2"
    mutates = ("parameters",)  # around evaluate, and on_train_end with keep_average
    reads_device: ClassVar = {
        "on_step_end": "under fp16 only the device knows whether there was an update"
    }

    @checked_options
    def __init__(
        self,
        decay: Annotated[float, Ge(0), Lt(1)] = 0.999,
        warmup: bool = True,
        evaluate_with_average: bool = True,
        keep_average: bool = False,
    ) -> None:
        self.decay = decay
        self.warmup = warmup
        self.evaluate_with_average = evaluate_with_average
        self.keep_average = keep_average
        #: Parameter name -> average, on the model's device.
        self.average: dict[str, Tensor] = {}
        #: Updates in the average.
        self.num_updates = 0

    def on_setup(self, trainer: Trainer) -> None:
        """Begin with the weights as they are.

        Raises:
            ConfigError: ``keep_average``, beside a plugin that puts back the best.
        """
        self._look_at_neighbours(trainer)
        self.num_updates, self.average = 0, {}
        self._model, self._strategy = trainer.model, trainer.strategy
        self._averaged()

    @torch.no_grad()
    def on_step_end(self, trainer: Trainer, applied: bool) -> None:
        """Move the average towards the new weights."""
        if not applied:
            return
        self.num_updates += 1
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.num_updates) / (10 + self.num_updates))
        weights = self._averaged()
        averages = [self.average[name] for name in weights]
        # Those of one type are themselves, not copies.
        now = [w.to(a.dtype) for w, a in zip(weights.values(), averages, strict=True)]
        torch._foreach_lerp_(averages, now, 1 - decay)

    @hookimpl(wrapper=True)
    def evaluate(self, trainer: Trainer) -> Iterator[None]:
        """Put the average in place while others measure."""
        if not self.evaluate_with_average:
            yield
            return
        with self.swapped_in(trainer):
            yield

    @contextmanager
    def swapped_in(self, trainer: Trainer) -> Iterator[None]:
        """Give the model the average inside; its own weights are back after."""
        before = {name: w.detach().clone() for name, w in self._averaged().items()}
        was = trainer.weights_are
        self._put(self.average)
        trainer.weights_are = "ema"
        try:
            yield
        finally:
            self._put(before)
            trainer.weights_are = was

    def on_train_end(self, trainer: Trainer) -> None:
        """Leave the average in the model, if asked to."""
        if self.keep_average:
            self._put(self.average)
            trainer.weights_are = "ema"

    def state_dict(self) -> dict[str, Any]:
        """Return the average and the number of updates in it."""
        return {"average": dict(self.average), "num_updates": self.num_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the average of a checkpoint; it is copied to the device."""
        self.num_updates = int(state["num_updates"])
        # Not only what is trained: what the saved run had thawed is frozen still.
        like = {
            name: _begun(weight)
            for name, weight in self._model.named_parameters()
            if name in state["average"]
        }
        # Saved whole; where weights are sharded, this process keeps its part.
        average = self._strategy.own(dict(state["average"]), like)
        self.average |= {name: mine.copy_(average[name]) for name, mine in like.items()}

    def _look_at_neighbours(self, trainer: Trainer) -> None:
        own = trainer.bus.name_of(self) or self.name
        for name, plugin in trainer.plugins.items():
            ranking = getattr(plugin, "ranking", None)  # as checkpointing has one
            is_ranked = getattr(ranking, "keep", 0) != 0
            by = getattr(ranking, "monitor", None) or "train_loss"
            if self.evaluate_with_average and is_ranked and by != "train_loss":
                log.warning(
                    "%s: %s ranks its files by measuring the average (%s), but the "
                    "weights in them are the trained ones, whose %s is another; turn "
                    "off %s.evaluate_with_average to rank by what is saved, or take "
                    "the average out of a file, where it is plugins.%s.average",
                    *(own, name, by, by, own, own),
                )
            if getattr(plugin, "restore_best_weights", False) is not True:
                continue
            if self.keep_average:
                raise ConfigError(
                    f"{own}.keep_average and {name}.restore_best_weights both put "
                    "weights in the model at the end, one over the other; turn one off"
                )
            is_evaluated = getattr(plugin, "monitor", None) != "train_loss"
            if self.evaluate_with_average and is_evaluated:
                log.warning(
                    "%s: %s finds the best step by measuring the average, but restores "
                    "that step's trained weights, whose loss is another; turn off "
                    "%s.evaluate_with_average to measure what is restored, or "
                    "%s.restore_best_weights and turn on %s.keep_average",
                    *(own, name, own, name, own),
                )

    def _averaged(self) -> dict[str, Tensor]:
        """Return weights by name: all of the average, in which new ones begin."""
        weights: dict[str, Tensor] = {
            name: weight
            for name, weight in self._model.named_parameters()
            if name in self.average or weight.requires_grad
        }
        for name in weights:
            if name not in self.average:
                self.average[name] = _begun(weights[name])
        return weights

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self._averaged().items():
            weight.copy_(values[name])


def _begun(weight: Tensor) -> Tensor:
    """Return an average that begins at ``weight``, in float32 at least."""
    kind = torch.promote_types(weight.dtype, torch.float32)
    return weight.detach().to(kind, copy=True)
