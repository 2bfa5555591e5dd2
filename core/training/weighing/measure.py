"""Find out what a loss is a mean over, from the gradients of a batch and its parts.

Losses hardly tell: while parts have nearly equal ones, any weights explain the whole.
A gradient has many numbers, and what no weights explain of it shows as well: how much
of a batch's gradient depends on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from training.feed.batches import batch_to_device
from training.feed.structure import CannotCutError, TooFewError, deep_copy
from training.messages.error_texts import error_text
from training.weighing.candidates import labels_of
from training.weighing.collated import Collated, collates_by_itself
from training.weighing.cut import (
    Cut,
    Masks,
    Outputs,
    PartOfOutputs,
    Rows,
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
        live: units that earlier batches left; None: all.
        turns: cuts to make.
    """

    def __init__(
        self, subject: Subject, kept: Kept, live: list[str] | None, turns: int
    ) -> None:
        self._subject, self._kept = subject, kept
        self._live, self._turns = live, turns
        self._said: float | None = None  # by step_fn, of the batch computed last
        self._theirs: Exception | None = None  # what step_fn or the model raised last
        self._parameters = [p for p in subject.model.parameters() if p.requires_grad]
        self._is_half = any(p.dtype in _HALF for p in self._parameters)
        self._by_losses = subject.by_losses
        device = subject.device.type
        self._precision: Precision = partial(torch.autocast, device, enabled=False)
        self._under_way = subject.autocast or _surrounding(device)
        if not subject.in_full and self._under_way is not None:
            self._precision, self._is_half = self._under_way, True

    def run(self, batch: Any, issued: Any) -> Look:
        """Return what ``batch``, on the host, tells; ``issued``: as for ``look``."""
        found = Look()
        try:
            is_random = self._prepare(batch, found)
            whole = self._whole(batch, found, is_random)
        except Exception as error:
            if error is self._theirs and not self._by_losses:
                raise  # in train mode, on a whole batch: training would meet it, too
            found.reasons.append(f"the model raised {error_text(error)}")
            found.has_no_room = isinstance(error, torch.OutOfMemoryError)
            return found
        samples = None if issued is None else len(issued)
        if found.said is not None:
            self._compare_said(batch, samples, whole, found)
            return found
        found.is_final = bool(whole.isfinite().all()) and bool(whole.any())
        found.is_empty = not found.is_final
        for way in self._ways(batch, samples, issued):
            try:
                self._try(way, batch, whole, found)
            except CannotCutError as error:
                found.is_final &= not isinstance(error, TooFewError)
                found.reasons.append(str(error))
            except Exception as error:
                found.reasons.append(error_text(error))
            if found.turns:
                break
        self._tell_apart(batch, samples, found)
        if self._subject.has_parted:
            self._tell_by_width(issued, found)
        self._look_at_column_0(batch, found)
        return found

    def _ways(
        self, batch: Any, samples: int | None, issued: Any
    ) -> Iterator[Callable[[], Any]]:
        subject, counts = self._subject, self._subject.counts
        allowed = self._may_mask(batch)
        yield lambda: self._rows(batch, samples)
        yield lambda: Masks(batch, counts, allowed)
        yield lambda: Collated(subject.loader, issued, counts)
        if subject.loss_fn is not None:
            yield lambda: Outputs(batch, samples, counts)

    def _rows(self, batch: Any, samples: int | None) -> Rows:
        return Rows(batch, samples, self._subject.counts, self._subject.is_second)

    def _may_mask(self, batch: Any) -> bool:
        model = self._subject.model if self._subject.has_own_loss else nn.Module()
        return has_licence(batch, model, self._subject.counts)

    def _try(
        self, make: Callable[[], Any], batch: Any, whole: Tensor, found: Look
    ) -> None:
        """Cut in one way, and compare every turn with the candidates."""
        way = make()
        if way.whole is not batch:
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
        found.is_none = not found.live

    def _compare_said(
        self, batch: Any, samples: int | None, whole: Tensor, found: Look
    ) -> None:
        """Compare what step_fn says of two parts with what their gradients weigh."""
        if self._by_losses:  # of a loss without a unit they would tell anything
            return
        try:
            cut = self._rows(batch, samples).cut(0)
            gradients, weights = [], []
            for part in cut.parts:
                gradients.append(self._gradient(part))
                weights.append(self._said or 0.0)
            told = fit(whole, gradients[0], gradients[1], self._is_half)
        except Exception as error:  # nothing to compare with
            found.reasons.append(error_text(error))
            return
        if told is None or not found.said or told.rest > LIMIT:
            return
        found.fit, found.sizes = told, cut.sizes
        said = weights[0] / found.said, weights[1] / found.said
        found.shares = {**cut.shares, "said": said}
        found.live = ["said"] if fits(said, told) else []

    def _tell_apart(self, batch: Any, samples: int | None, found: Look) -> None:
        """One look more, with labels thinned, where units had equal shares so far."""
        tied = {"shifted_labels", "labels", "samples", "elements"} & set(found.live)
        has_labels = bool(tied & {"shifted_labels", "labels"})
        if not has_labels or len(tied) < 2 or not self._may_mask(batch):
            return
        try:
            thinned = Masks(batch, self._subject.counts, True).thinned()
            self._narrow(thinned, self._rows(thinned, samples).cut(0), found)
        except Exception as error:
            found.reasons.append(error_text(error))

    def _tell_by_width(self, issued: Any, found: Look) -> None:
        """One cut more, of rows collated again: fewer may be padded to a smaller width.

        Rows of one width have the shares of their elements.
        """
        subject, has_width = self._subject, any("elements" in u for u in found.live)
        is_told = found.by_losses or "samples" not in found.live
        # Processes whose rows are of other widths would make other passes.
        if is_told or not has_width or subject.strategy.is_divided:
            return
        if not collates_by_itself(subject.loader):
            return
        try:
            way = Collated(subject.loader, issued, subject.counts)
            for cut in map(way.cut, range(way.num_turns)):
                if len({cut.shares.get(unit) for unit in found.live}) > 1:
                    self._narrow(way.whole, cut, found)
                    return
        except Exception as error:
            found.reasons.append(error_text(error))

    def _narrow(self, whole: Any, cut: Cut, found: Look) -> None:
        """Keep the units that have the shares of one cut more, if that tells any."""
        told = self._fit(self._gradient(whole), cut)
        if told is None or self._is_mixed(told):
            return
        if right := fitting(found.live, cut.shares, told):
            found.live, found.fit = right, told
            found.shares, found.sizes = cut.shares, cut.sizes

    def _fit(self, whole: Tensor, cut: Cut) -> Fit | None:
        one, other = map(self._gradient, cut.parts)
        return fit(whole, one, other, self._is_half)

    def _is_mixed(self, told: Fit) -> bool:
        """Whether rows depend on one another."""
        return told.rest > (LIMIT_HALF if self._is_half else LIMIT)

    def _look_at_column_0(self, batch: Any, found: Look) -> None:
        """Where no row has a label in column 0, tell whether one there would count."""
        both = {"shifted_labels", "labels"}
        labels = labels_of(batch)
        if not both <= set(found.live) or labels is None or labels.ndim != 2:
            return
        try:
            other = Masks(batch, self._subject.counts, True).shifted()
            with torch.enable_grad():
                losses = [float(self._loss(b)[0].detach()) for b in (batch, other)]
        except Exception as error:
            found.reasons.append(error_text(error))
            return
        counts = abs(losses[0] - losses[1]) > (1e-3 if self._is_half else 1e-7) * abs(
            losses[0]
        )
        gone = "shifted_labels" if counts else "labels"
        found.live = [unit for unit in found.live if unit != gone]

    def _prepare(self, batch: Any, found: Look) -> bool:
        """Choose precision and mode; return whether the modes have other losses."""
        try:
            is_random = self._choose_mode(batch, found)
        except Exception as error:
            # Out of memory: fewer rows tell more in full precision than all in half.
            if self._under_way is None or isinstance(error, torch.OutOfMemoryError):
                raise
            is_random = None
        if is_random is None:  # here, or its error would be told with the one above
            assert self._under_way is not None
            self._precision, self._is_half = self._under_way, True
            is_random = self._choose_mode(batch, found)
        found.is_half = self._is_half
        return is_random

    def _choose_mode(self, batch: Any, found: Look) -> bool:
        """Eval mode, unless the loss has another form there, or is none."""
        model = self._subject.model
        with torch.enable_grad():  # a step function may differentiate by itself
            self._into_eval()
            before = self._kept.states()
            try:
                quiet = float(self._loss(batch)[0].detach())
            except Exception:
                quiet = None
            found.may_be_random = self._kept.states() != before
            quiet_train_mode(model, self._kept)
            try:
                loss, found.said = self._loss(batch)
                loud = float(loss.detach())
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

    def _whole(self, batch: Any, found: Look, is_random: bool) -> Tensor:
        """Return the gradient of the batch, or its loss where there is none to be had.

        Some layers have one in train mode only, such as cuDNN's recurrent ones.
        """
        model = self._subject.model
        try:
            return self._gradient(batch)
        except NoGradientError as error:
            if not (model.training or is_random):
                quiet_train_mode(model, self._kept)
                try:
                    return self._gradient(batch)
                except NoGradientError:
                    self._into_eval()
            found.reasons.append(str(error))
        if self._is_half:
            raise NoGradientError("the losses of half precision tell nothing")
        self._by_losses = found.by_losses = True
        return self._gradient(batch)

    def _loss(self, batch: Any) -> tuple[Tensor, float | None]:
        """Return the loss, and the weight that step_fn says, on a copy of ``batch``."""
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
        return loss, self._said

    def _gradient(self, batch: Any) -> Tensor:
        """Return the gradient, (P,), or the loss, (1,), float64."""
        if self._by_losses:  # a step that differentiates by itself does in training
            with torch.set_grad_enabled(not self._subject.by_losses):
                return self._loss(batch)[0].detach().double().reshape(1).cpu()
        with torch.enable_grad():
            loss, _ = self._loss(batch)
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
