"""Forward and backward passes over a batch and its parts, which leave no trace."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from training.feed.batches import batch_to_device
from training.feed.structure import deep_copy
from training.messages.error_texts import error_text
from training.weighing.cut import PartOfOutputs
from training.weighing.fit import sampled
from training.weighing.subject import Look, Precision, Question, Subject
from training.weighing.untouched import Kept, quiet_train_mode

#: Modes whose losses differ by this factor have losses of different forms.
OTHER_FORM = 1.5
#: Losses of two modes that differ by less have nothing random in them.
SAME = 1e-6
_HALF = (torch.bfloat16, torch.float16)


class NoGradientError(RuntimeError):
    """A loss whose gradient autograd refuses; the message says why."""


class Passes:
    """Computes losses and gradients of one batch and its parts.

    Args:
        subject: what is measured.
        kept: puts back what the passes move.
        batch: what it is measured on.
        found: what the batch tells; the passes note how it was computed.
        question: what is to be told.
    Attributes:
        said: the weight that step_fn returned for the batch computed last, or None.
        theirs: what step_fn or the model raised last.
    """

    def __init__(
        self, subject: Subject, kept: Kept, batch: Any, found: Look, question: Question
    ) -> None:
        self._subject, self._kept = subject, kept
        self._batch, self._found = batch, found
        self.said: float | None = None
        self.theirs: Exception | None = None
        self._ahead: Tensor | None = None  # the loss of the batch, just computed
        self._as_trained = question.is_known  # in train mode, if that will do
        self._parameters = [p for p in subject.model.parameters() if p.requires_grad]
        found.is_half = any(p.dtype in _HALF for p in self._parameters)
        device = subject.device.type
        self._precision: Precision = partial(torch.autocast, device, enabled=False)
        self._under_way = subject.autocast or _surrounding(device)
        if not question.in_full and self._under_way is not None:
            self._precision, found.is_half = self._under_way, True

    def whole(self) -> Tensor:
        """Return the gradient of the batch, or its loss where there is none to be had.

        Some layers have one in train mode only, such as cuDNN's recurrent ones.
        """
        is_random = self._prepare()
        model, found = self._subject.model, self._found
        try:
            return self.gradient(self._batch)
        except NoGradientError as error:
            if self._as_trained:
                self._as_trained = False
                return self.whole()
            if not (model.training or is_random):
                quiet_train_mode(model, self._kept)
                try:
                    return self.gradient(self._batch)
                except NoGradientError:
                    self._into_eval()
            found.reasons.append(str(error))
        if found.is_half:
            raise NoGradientError("the losses of half precision tell nothing")
        found.by_losses = True
        return self.gradient(self._batch)

    @property
    def by_losses(self) -> bool:
        """Whether losses are compared, not gradients."""
        return self._subject.by_losses or self._found.by_losses

    def _prepare(self) -> bool:
        """Choose precision and mode; return whether the modes have other losses."""
        try:
            return self._choose_mode()
        except Exception as error:
            # Out of memory: fewer rows tell more in full precision than all in half.
            if self._under_way is None or isinstance(error, torch.OutOfMemoryError):
                raise
        # Below ``except``: a second error shall not be chained to the first.
        self._precision, self._found.is_half = self._under_way, True
        return self._choose_mode()

    def _choose_mode(self) -> bool:
        """Eval mode, unless the loss has another form there, or is none.

        To confirm a unit, train mode will do where nothing is drawn in it.
        """
        model, found = self._subject.model, self._found
        with torch.enable_grad():  # a step function may differentiate by itself
            quiet_train_mode(model, self._kept)
            before = self._kept.states()
            loud = self._value()
            found.said = None if loud is None else self.said
            self._as_trained &= loud is not None and self._kept.states() == before
            if self._as_trained:
                return False
            self._into_eval()
            before = self._kept.states()
            quiet = self._value()  # last: it is mostly that whose gradient is wanted
            found.may_be_random = self._kept.states() != before
            if quiet is None or not (loud is None or _is_close(quiet, loud)):
                found.may_be_random |= quiet is not None
                self._ahead = None
                quiet_train_mode(model, self._kept)
                if loud is None:
                    self.loss(self._batch)  # raises, as training would
        if quiet is None or loud is None:
            return quiet is None
        return abs(quiet - loud) > SAME * abs(loud)

    def _value(self) -> float | None:
        """Return the loss of the batch, and keep it ahead; None where that raises."""
        self._ahead = None  # or the graphs of two would take room at once
        try:
            loss = self.loss(self._batch)
            value = float(loss.detach())
        except Exception:
            return None
        self._ahead = loss
        return value

    def _into_eval(self) -> None:
        """Put the model, and modules that the loss has beside it, into eval mode."""
        for module in (self._subject.model, *self._subject.beside):
            if isinstance(module, nn.Module):
                module.eval()

    def loss(self, batch: Any) -> Tensor:
        """Return the loss of a copy of ``batch``; note the weight that step_fn says."""
        self._kept.put_buffers_back()
        subject, unsaid = self._subject, float("nan")
        model: Any = subject.model
        if isinstance(batch, PartOfOutputs):
            model, batch = batch.cutting(model), batch.batch
        moved = batch_to_device(deep_copy(batch), subject.device)
        with self._precision():
            try:
                loss, weight, _ = subject.forward(model, moved, unsaid)
            except Exception as error:
                # Its traceback would keep what the pass has filled the memory with.
                if not isinstance(error, torch.OutOfMemoryError):
                    self.theirs = error
                raise
        self.said = None if weight is unsaid else weight
        return loss

    def _computed(self, batch: Any) -> Tensor:
        """Return the loss of ``batch``, once that which is there ahead."""
        loss, self._ahead = self._ahead, None
        return self.loss(batch) if loss is None else loss

    def gradient(self, batch: Any) -> Tensor:
        """Return the gradient, (P,), or the loss, (1,), float64."""
        if self.by_losses:  # a step that differentiates by itself does in training
            with torch.set_grad_enabled(not self._subject.by_losses):
                return self._computed(batch).detach().double().reshape(1).cpu()
        with torch.enable_grad():
            loss = self._computed(batch)
            try:
                found = self._subject.strategy.gradients(loss, self._parameters)
            except Exception as error:  # whatever a backward of the user's own raises
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                why = f"its gradient could not be had ({error_text(error)})"
                raise NoGradientError(why) from error
            if any(each is None for each in found) and _recomputes(loss):
                raise NoGradientError(
                    "its gradient could not be had (a checkpoint with "
                    "use_reentrant=True hides parameters from autograd.grad)"
                )
        return sampled(found, self._parameters)


def _recomputes(loss: Tensor) -> bool:
    """Whether a reentrant checkpoint is in the graph: autograd sees none of its own.

    ``autograd.grad`` raises where it has to go through one, and is silent elsewhere.
    """
    nodes = [loss.grad_fn]
    seen = set(nodes)
    for node in nodes:  # grows
        if node is not None and "CheckpointFunction" in node.name():
            return True
        inner = [] if node is None else [each for each, _ in node.next_functions]
        nodes += [each for each in dict.fromkeys(inner) if each not in seen]
        seen.update(inner)
    return False


def _surrounding(device: str) -> Precision | None:
    """Return the autocast that is on now, or None."""
    if not torch.is_autocast_enabled(device):
        return None
    return partial(torch.autocast, device, torch.get_autocast_dtype(device))


def _is_close(one: float, other: float) -> bool:
    """Whether two losses, of eval and of train mode, may have one form."""
    low, high = sorted((abs(one), abs(other)))
    return one * other >= 0.0 and high <= OTHER_FORM * low + 1e-12
