"""Find out what a loss is a mean over, from the gradients of a batch and its parts.

Losses hardly tell: while parts have nearly equal ones, any weights explain the whole.
A gradient has many numbers, and what no weights explain of it shows as well: how much
of a batch's gradient depends on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from training.feed.batches import batch_to_device
from training.feed.structure import CannotCutError, TooFewError, deep_copy
from training.messages.error_texts import error_text
from training.weighing.candidates import Contents, labels_of
from training.weighing.collated import Collated, collates_by_itself
from training.weighing.cut import (
    Cut,
    Masks,
    Outputs,
    PartOfOutputs,
    Rows,
    Way,
    has_licence,
)
from training.weighing.fit import Fit, fit, fits, fitting, sampled
from training.weighing.subject import LIMIT, Look, Precision, Subject
from training.weighing.untouched import Kept, quiet_train_mode

#: ``LIMIT`` in half precision.
LIMIT_HALF = 2e-2
#: Modes whose losses differ by this factor have losses of different forms.
OTHER_FORM = 1.5
#: Losses of two modes that differ by less have nothing random in them.
SAME = 1e-6
_HALF = (torch.bfloat16, torch.float16)


class NoGradientError(RuntimeError):
    """A loss whose gradient autograd refuses; the message says why."""


class Measurement:
    """Measures one batch, or rows of one, inside ``untouched``.

    Args:
        subject: what is measured.
        kept: puts back what the passes move.
        batch: what it is measured on.
        live: units that earlier batches left; None: all.
        turns: cuts to make.
    """

    def __init__(
        self,
        subject: Subject,
        kept: Kept,
        batch: Contents,
        live: list[str] | None,
        turns: int,
    ) -> None:
        self._subject, self._kept = subject, kept
        self._batch, self._counts = batch.batch, batch.counts
        self._samples, self._issued = batch.samples, batch.issued
        self._live, self._turns = live, turns
        self._found = found = Look()
        self._said: float | None = None  # by step_fn, of the batch computed last
        self._theirs: Exception | None = None  # what step_fn or the model raised last
        self._parameters = [p for p in subject.model.parameters() if p.requires_grad]
        found.is_half = any(p.dtype in _HALF for p in self._parameters)
        device = subject.device.type
        self._precision: Precision = partial(torch.autocast, device, enabled=False)
        self._under_way = subject.autocast or _surrounding(device)
        if not subject.in_full and self._under_way is not None:
            self._precision, found.is_half = self._under_way, True

    def run(self) -> Look:
        """Return what the batch tells."""
        found = self._found
        try:
            is_random = self._prepare()
            whole = self._whole(is_random)
        except Exception as error:
            if error is self._theirs and not self._by_losses:
                raise  # in train mode, on a whole batch: training would meet it, too
            found.reasons.append(f"the model raised {error_text(error)}")
            found.has_no_room = isinstance(error, torch.OutOfMemoryError)
            return found
        if found.said is not None:
            if not self._by_losses:  # of a loss without a unit they would tell anything
                with self._noting_errors():
                    self._compare_said(whole)
            return found
        found.is_final = bool(whole.isfinite().all()) and bool(whole.any())
        found.is_empty = not found.is_final
        for way in self._ways():
            with self._noting_errors():
                self._try(way(), whole)
            if found.turns:
                break
        for look_on in (self._tell_apart, self._tell_by_width, self._look_at_column_0):
            with self._noting_errors():
                look_on()
        return found

    @contextmanager
    def _noting_errors(self) -> Iterator[None]:
        """Add an error to the reasons why nothing is told, and go on."""
        try:
            yield
        except CannotCutError as error:
            self._found.is_final &= not isinstance(error, TooFewError)
            self._found.reasons.append(str(error))
        except Exception as error:
            self._found.reasons.append(error_text(error))

    @property
    def _by_losses(self) -> bool:
        """Whether losses are compared, not gradients."""
        return self._subject.by_losses or self._found.by_losses

    def _ways(self) -> Iterator[Callable[[], Way]]:
        allowed = self._may_mask()
        yield lambda: self._rows(self._batch)
        yield lambda: Masks(self._batch, self._counts, allowed)
        yield lambda: Collated(self._subject.loader, self._issued, self._counts)
        if self._subject.loss_fn is not None:
            yield lambda: Outputs(self._batch, self._samples, self._counts)

    def _rows(self, batch: Any) -> Rows:
        return Rows(batch, self._samples, self._counts, self._subject.is_second)

    def _may_mask(self) -> bool:
        model = self._subject.model if self._subject.has_own_loss else nn.Module()
        return has_licence(self._batch, model, self._counts)

    def _try(self, way: Way, whole: Tensor) -> None:
        """Cut in one way, and compare every turn with the candidates."""
        found = self._found
        if way.whole is not self._batch:
            whole = self._gradient(way.whole)
        live = [u for u in way.amounts if self._live is None or u in self._live]
        adds_up = isinstance(way, (Masks, Outputs)) and "sum" not in live
        live, turns, is_mixed = live + ["sum"] * adds_up, 0, False
        for turn in range(min(self._turns, way.num_turns)):
            cut = way.cut(turn)
            told = self._fit(whole, cut)
            if told is None:
                continue
            right = fitting(live, cut.shares, told)
            if found.by_losses and right != fitting(live, cut.shares, told, 10.0):
                continue  # one of them is neither right nor clearly wrong
            turns += 1
            is_mixed = self._is_mixed(told)
            if found.fit is None or is_mixed or all(":" in unit for unit in right):
                found.fit, found.shares, found.sizes = told, cut.shares, cut.sizes
            live = live if is_mixed else right
            if is_mixed or not live:
                break
        why = ""
        if not turns:
            why = "gradients that tell nothing"
        elif adds_up and live == ["sum"]:
            why = "parts that add up to the whole"
        elif is_mixed and isinstance(way, Collated):
            why = "parts of another batch"
        elif found.by_losses and not live:
            why = "losses that no unit explains"
        if why:
            found.fit = None
            raise CannotCutError(f"{way.title} leaves {why}")
        found.turns = turns
        # Entries by name come last.
        found.live = [] if is_mixed else sorted(live, key=lambda unit: ":" in unit)

    def _compare_said(self, whole: Tensor) -> None:
        """Compare what step_fn says of two parts with what their gradients weigh."""
        found, cut = self._found, self._rows(self._batch).cut(0)
        gradients, weights = [], []
        for part in cut.parts:
            gradients.append(self._gradient(part))
            weights.append(self._said or 0.0)
        told = fit(whole, gradients[0], gradients[1], found.is_half)
        if told is None or not found.said or told.rest > LIMIT:
            return
        found.fit, found.sizes = told, cut.sizes
        said = weights[0] / found.said, weights[1] / found.said
        found.shares = {**cut.shares, "said": said}
        found.live = ["said"] if fits(said, told) else []

    def _tell_apart(self) -> None:
        """One look more, with labels thinned, where units had equal shares so far."""
        units = {"shifted_labels", "labels", "samples", "elements"}
        tied = units & set(self._found.live)
        has_labels = bool(tied & {"shifted_labels", "labels"})
        if has_labels and len(tied) > 1 and self._may_mask():
            thinned = Masks(self._batch, self._counts, True).thinned()
            self._narrow(thinned, self._rows(thinned).cut(0))

    def _tell_by_width(self) -> None:
        """One cut more, of rows collated again: fewer may be padded to a smaller width.

        Only where units weigh the batch unlike those before: rows of one width have the
        shares of their elements.
        """
        subject, found = self._subject, self._found
        has_width = "samples" in found.live and any("elements" in u for u in found.live)
        # Processes whose rows are of other widths would make other passes.
        is_alone = not subject.strategy.is_divided
        if not (subject.has_parted and has_width and is_alone) or found.by_losses:
            return
        if collates_by_itself(subject.loader):
            way = Collated(subject.loader, self._issued, self._counts)
            for cut in map(way.cut, range(way.num_turns)):
                if len({cut.shares.get(unit) for unit in found.live}) > 1:
                    self._narrow(way.whole, cut)
                    return

    def _narrow(self, whole: Any, cut: Cut) -> None:
        """Keep the units that have the shares of one cut more, if that tells any."""
        told, found = self._fit(self._gradient(whole), cut), self._found
        if told is None or self._is_mixed(told):
            return
        if right := fitting(found.live, cut.shares, told):
            found.live, found.fit = right, told
            found.shares, found.sizes = cut.shares, cut.sizes

    def _fit(self, whole: Tensor, cut: Cut) -> Fit | None:
        one, other = map(self._gradient, cut.parts)
        return fit(whole, one, other, self._found.is_half)

    def _is_mixed(self, told: Fit) -> bool:
        """Whether rows depend on one another."""
        return told.rest > (LIMIT_HALF if self._found.is_half else LIMIT)

    def _look_at_column_0(self) -> None:
        """Where no row has a label in column 0, tell whether one there would count."""
        found, labels = self._found, labels_of(self._batch)
        both = {"shifted_labels", "labels"}
        if not both <= set(found.live) or labels is None or labels.ndim != 2:
            return
        other = Masks(self._batch, self._counts, True).shifted()
        with torch.enable_grad():
            own, theirs = (float(self._loss(b).detach()) for b in (self._batch, other))
        counts = abs(own - theirs) > (1e-3 if found.is_half else 1e-7) * abs(own)
        gone = "shifted_labels" if counts else "labels"
        found.live = [unit for unit in found.live if unit != gone]

    def _prepare(self) -> bool:
        """Choose precision and mode; return whether the modes have other losses."""
        try:
            return self._choose_mode()
        except Exception as error:
            # Out of memory: fewer rows tell more in full precision than all in half.
            if self._under_way is None or isinstance(error, torch.OutOfMemoryError):
                raise
        # Here, or its error would be told with the one above.
        self._precision, self._found.is_half = self._under_way, True
        return self._choose_mode()

    def _choose_mode(self) -> bool:
        """Eval mode, unless the loss has another form there, or is none."""
        model, found = self._subject.model, self._found
        with torch.enable_grad():  # a step function may differentiate by itself
            self._into_eval()
            before = self._kept.states()
            try:
                quiet = float(self._loss(self._batch).detach())
            except Exception:
                quiet = None
            found.may_be_random = self._kept.states() != before
            quiet_train_mode(model, self._kept)
            try:
                loud = float(self._loss(self._batch).detach())
                found.said = self._said
            except Exception:
                if quiet is None:
                    raise
                loud = quiet
        if quiet is not None and _is_close(quiet, loud):
            self._into_eval()
        else:
            found.may_be_random |= quiet is not None
        return quiet is None or abs(quiet - loud) > SAME * abs(loud)

    def _into_eval(self) -> None:
        """Put the model, and modules that the loss has beside it, into eval mode."""
        for module in (self._subject.model, *self._subject.beside):
            if isinstance(module, nn.Module):
                module.eval()

    def _whole(self, is_random: bool) -> Tensor:
        """Return the gradient of the batch, or its loss where there is none to be had.

        Some layers have one in train mode only, such as cuDNN's recurrent ones.
        """
        model, found = self._subject.model, self._found
        try:
            return self._gradient(self._batch)
        except NoGradientError as error:
            if not (model.training or is_random):
                quiet_train_mode(model, self._kept)
                try:
                    return self._gradient(self._batch)
                except NoGradientError:
                    self._into_eval()
            found.reasons.append(str(error))
        if found.is_half:
            raise NoGradientError("the losses of half precision tell nothing")
        found.by_losses = True
        return self._gradient(self._batch)

    def _loss(self, batch: Any) -> Tensor:
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
                # Kept, it would keep what the pass has filled the memory with.
                if not isinstance(error, torch.OutOfMemoryError):
                    self._theirs = error
                raise
        self._said = None if weight is unsaid else weight
        return loss

    def _gradient(self, batch: Any) -> Tensor:
        """Return the gradient, (P,), or the loss, (1,), float64."""
        if self._by_losses:  # a step that differentiates by itself does in training
            with torch.set_grad_enabled(not self._subject.by_losses):
                return self._loss(batch).detach().double().reshape(1).cpu()
        with torch.enable_grad():
            loss = self._loss(batch)
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

    Only where it need not go through one does ``autograd.grad`` leave this unsaid.
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
