"""Forward and backward passes over a batch and its parts, which leave no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from training.feed.batches import batch_to_device
from training.feed.structure import deep_copy
from training.messages.error_texts import error_text
from training.weighing.cut import PartOfOutputs
from training.weighing.fit import sampled
from training.weighing.subject import Aim, Look, Precision, Subject
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
        aim: what is to be told.
    Attributes:
        said: the weight that step_fn returned for the batch computed last, or None.
        theirs: what step_fn or the model raised last.
    """

    def __init__(
        self, subject: Subject, kept: Kept, batch: Any, found: Look, aim: Aim
    ) -> None:
        self._subject, self._kept = subject, kept
        self._batch, self._found = batch, found
        self.said: float | None = None
        self.theirs: Exception | None = None
        self._ahead: Tensor | None = None  # the loss of the batch, just computed
        self._may_train = aim.is_known  # train mode will do
        self._parameters = [p for p in subject.model.parameters() if p.requires_grad]
        found.is_half = any(p.dtype in _HALF for p in self._parameters)
        device = subject.device.type
        self._precision: Precision = partial(torch.autocast, device, enabled=False)
        self._under_way = subject.autocast or _surrounding(device)
        if not aim.in_full and self._under_way is not None:
            self._precision, found.is_half = self._under_way, True

    def whole(self) -> Tensor:
        """Return the gradient of the batch, or its loss where there is none to be had.

        Some layers have one in train mode only, such as cuDNN's recurrent ones.
        """
        for _ in self._modes():
            try:
                return self.gradient(self._batch)
            except NoGradientError as error:
                why = str(error)
        found = self._found
        found.reasons.append(why)
        if found.is_half:
            raise NoGradientError("the losses of half precision tell nothing")
        found.by_losses = True
        return self.gradient(self._batch)

    @property
    def by_losses(self) -> bool:
        """Whether losses are compared, not gradients."""
        return self._subject.by_losses or self._found.by_losses

    def _modes(self) -> Iterator[None]:
        """Go through the modes, in the precision of the run where full one raises."""
        try:
            yield from self._modes_of_a_precision()
            return
        except Exception as error:
            # Out of memory: fewer rows tell more in full precision than all in half.
            if self._under_way is None or isinstance(error, torch.OutOfMemoryError):
                raise
        # Below ``except``: a second error shall not be chained to the first.
        self._precision, self._found.is_half = self._under_way, True
        yield from self._modes_of_a_precision()

    def _modes_of_a_precision(self) -> Iterator[None]:
        """Put the model into one mode after the other that may have the gradient.

        Train mode, to confirm a unit, where nothing is drawn in it. Then eval mode, and
        train mode where that has the same loss; it stays in eval mode, for losses. Or
        train mode alone, where eval mode has a loss of another form, or none.
        """
        found = self._found
        in_train, draws = self._tried(self._into_train)
        found.said = None if in_train is None else self.said
        if self._may_train and in_train is not None and not draws:
            yield
        # After that of train mode: it is mostly this one whose gradient is wanted.
        in_eval, found.may_be_random = self._tried(self._into_eval)
        if in_eval is None or not (in_train is None or _is_close(in_eval, in_train)):
            found.may_be_random |= in_eval is not None
            self._ahead = None
            self._into_train()
            if in_train is None:
                with torch.enable_grad():
                    self.loss(self._batch)  # raises
            yield
            return
        yield
        if in_train is None or abs(in_eval - in_train) <= SAME * abs(in_train):
            self._into_train()
            yield
            self._into_eval()

    def _tried(self, enter: Callable[[], None]) -> tuple[float | None, bool]:
        """Return the loss in a mode, None where that raises; and whether it draws."""
        enter()
        self._ahead = None  # or the graphs of two would take room at once
        before, value = self._kept.states(), None
        try:
            with torch.enable_grad():  # a step function may differentiate by itself
                loss = self.loss(self._batch)
            value, self._ahead = float(loss.detach()), loss
        except Exception:  # raised again where the other mode has no loss, either
            pass
        return value, self._kept.states() != before

    def _into_train(self) -> None:
        quiet_train_mode(self._subject.model, self._kept)

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
