"""Find out what a loss is a mean over, from the gradients of a batch and its parts.

Losses hardly tell: while parts have nearly equal ones, any weights explain the whole.
A gradient has many numbers, and what no weights explain of it shows as well: how much
of a batch's gradient depends on what else is in the batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from training.feed.batches import batch_to_device
from training.hardware.tf32 import using_tf32
from training.weighing.candidates import labels_of
from training.weighing.collated import Collated
from training.weighing.cut import Masks, Rows, has_licence
from training.weighing.fit import Fit, fit, sampled
from training.weighing.look import Look, Subject
from training.weighing.structure import CannotCutError, TooFewError
from training.weighing.untouched import Kept, quiet_train_mode, untouched

#: The rest that shares may leave; more means that rows depend on one another.
LIMIT, LIMIT_HALF = 1e-2, 2e-2
#: Numbers of a gradient that are kept.
MOST = 2**20
#: Modes whose losses differ by this factor have losses of different forms.
OTHER_FORM = 1.5
_HALF = (torch.bfloat16, torch.float16)


def look(
    subject: Subject,
    batch: Any,
    issued: Any,
    live: list[str] | None = None,
    turns: int = 3,
) -> Look:
    """Return what ``batch``, on the host, tells; nothing is moved or trained.

    Args:
        subject: what is measured.
        batch: shares nothing with what is computed on.
        issued: the indices of its samples, or None.
        live: units that earlier batches left; None: all.
        turns: cuts to make.
    """
    modules = [subject.model]
    modules += [subject.loss_fn] if isinstance(subject.loss_fn, nn.Module) else []
    modules += subject.beside
    exact = torch.autocast(subject.device.type, enabled=False)
    with (
        untouched(modules) as kept,
        exact,
        torch.inference_mode(False),
        using_tf32(False),
    ):
        return _Measurement(subject, kept, live, turns).run(batch, issued)


class _Measurement:
    def __init__(
        self, subject: Subject, kept: Kept, live: list[str] | None, turns: int
    ) -> None:
        self._subject, self._kept = subject, kept
        self._live, self._turns = live, turns
        self._said: float | None = None  # by step_fn, of the batch computed last
        self._parameters = [p for p in subject.model.parameters() if p.requires_grad]
        self._is_half = any(p.dtype in _HALF for p in self._parameters)

    def run(self, batch: Any, issued: Any) -> Look:
        found = Look(is_half=self._is_half)
        try:
            self._choose_mode(batch, found)
            whole = self._gradient(batch)
        except Exception as error:  # training meets it, too, in its own place
            found.reasons.append(f"the model raised {type(error).__name__}: {error}")
            return found
        samples = None if issued is None else len(issued)
        if found.said is not None:
            self._compare_said(batch, samples, whole, found)
            return found
        found.is_final = bool(whole.isfinite().all()) and bool(whole.any())
        for way in self._ways(batch, samples, issued):
            try:
                self._try(way, batch, whole, found)
            except CannotCutError as error:
                found.is_final &= not isinstance(error, TooFewError)
                found.reasons.append(str(error))
            except Exception as error:
                found.reasons.append(f"{type(error).__name__}: {error}")
            if found.turns:
                break
        self._tell_apart(batch, samples, found)
        self._look_at_column_0(batch, found)
        return found

    def _ways(
        self, batch: Any, samples: int | None, issued: Any
    ) -> Iterator[Callable[[], Any]]:
        subject, counts = self._subject, self._subject.counts
        allowed = self._may_mask(batch)
        yield lambda: Rows(batch, samples, counts)
        yield lambda: Masks(batch, counts, allowed)
        yield lambda: Collated(subject.loader, issued, counts)

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
        is_masking = isinstance(way, Masks)
        live = [u for u in way.amounts if self._live is None or u in self._live]
        if is_masking:
            live += ["sum"]
        mixed: Fit | None = None
        turns = 0
        for turn in range(min(self._turns, way.num_turns)):
            cut = way.cut(turn)
            one, other = (self._gradient(part) for part in cut.parts)
            told = fit(whole, one, other, self._is_half)
            if told is None:
                continue
            turns += 1
            limit = LIMIT_HALF if self._is_half else LIMIT
            shares = {**cut.shares, "sum": (1.0, 1.0)}
            fitting = [u for u in live if u in shares and _fits(shares[u], told)]
            is_mixed = told.rest > limit
            if found.fit is None or is_mixed or not _primary(fitting):
                found.fit, found.shares, found.sizes = told, cut.shares, cut.sizes
            if is_mixed:
                mixed = told
                break
            live = fitting
            if not live:
                break
        if is_masking and live == ["sum"]:
            found.fit = None
            raise CannotCutError("with labels masked, the parts add up to the whole")
        if mixed is not None and isinstance(way, Collated):
            found.fit = None
            raise CannotCutError("collated again, the rows make another batch")
        if not turns:
            raise CannotCutError(f"{way.title} leaves gradients that tell nothing")
        found.turns, found.live = turns, _primary_first(live)
        found.is_none = mixed is not None or not found.live
        if found.is_none:
            found.live = []

    def _compare_said(
        self, batch: Any, samples: int | None, whole: Tensor, found: Look
    ) -> None:
        """Compare what step_fn says of two parts with what their gradients weigh."""
        try:
            cut = Rows(batch, samples, self._subject.counts).cut(0)
            gradients, weights = [], []
            for part in cut.parts:
                gradients.append(self._gradient(part))
                weights.append(self._said or 0.0)
            told = fit(whole, gradients[0], gradients[1], self._is_half)
        except Exception as error:  # nothing to compare with
            found.reasons.append(f"{type(error).__name__}: {error}")
            return
        if told is None or not found.said or told.rest > LIMIT:
            return
        found.fit, found.sizes = told, cut.sizes
        said = weights[0] / found.said, weights[1] / found.said
        found.shares = {**cut.shares, "said": said}
        found.live = ["said"] if _fits(said, told) else []

    def _tell_apart(self, batch: Any, samples: int | None, found: Look) -> None:
        """One look more, with labels thinned, where units had equal shares so far."""
        tied = {"shifted_labels", "labels", "samples", "elements"} & set(found.live)
        if found.is_none or len(tied) < 2 or not self._may_mask(batch):
            return
        if "labels" not in tied and "shifted_labels" not in tied:
            return
        try:
            thinned = Masks(batch, self._subject.counts, True).thinned()
            way = Rows(thinned, samples, self._subject.counts)
            cut = way.cut(0)
            one, other = (self._gradient(part) for part in cut.parts)
            told = fit(self._gradient(thinned), one, other, self._is_half)
        except Exception as error:
            found.reasons.append(f"{type(error).__name__}: {error}")
            return
        if told is None or told.rest > (LIMIT_HALF if self._is_half else LIMIT):
            return
        fitting = [u for u in found.live if _fits(cut.shares.get(u, (0.0, 0.0)), told)]
        if fitting:
            found.live, found.fit = fitting, told
            found.shares, found.sizes = cut.shares, cut.sizes

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
            found.reasons.append(f"{type(error).__name__}: {error}")
            return
        counts = abs(losses[0] - losses[1]) > (1e-3 if self._is_half else 1e-7) * abs(
            losses[0]
        )
        gone = "shifted_labels" if counts else "labels"
        found.live = [unit for unit in found.live if unit != gone]

    def _choose_mode(self, batch: Any, found: Look) -> None:
        """Eval mode, unless the loss has another form there, or is none."""
        model = self._subject.model
        with torch.enable_grad():  # a step function may differentiate by itself
            model.eval()
            try:
                quiet = float(self._loss(batch)[0].detach())
            except Exception:
                quiet = None
            quiet_train_mode(model, self._kept)
            try:
                loss, found.said = self._loss(batch)
                loud = float(loss.detach())
            except Exception:
                if quiet is None:
                    raise
                loud = quiet
        if quiet is not None and _is_close(quiet, loud):
            model.eval()

    def _loss(self, batch: Any) -> tuple[Tensor, float | None]:
        """Return the loss, and the weight that step_fn says, on a copy of ``batch``."""
        self._kept.put_buffers_back()
        subject, unsaid = self._subject, float("nan")
        moved = batch_to_device(copy.deepcopy(batch), subject.device)
        loss, weight, _ = subject.forward(subject.model, moved, unsaid)
        self._said = None if weight is unsaid else weight
        return loss, self._said

    def _gradient(self, batch: Any) -> Tensor:
        """Return the gradient, (P,), or the loss, (1,), float64."""
        if self._subject.by_losses:
            with torch.no_grad():
                return self._loss(batch)[0].detach().double().reshape(1).cpu()
        with torch.enable_grad():
            loss, _ = self._loss(batch)
            gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        sizes = [p.numel() * (2 if p.is_complex() else 1) for p in self._parameters]
        return sampled(list(gradients), sizes, MOST)


def _fits(shares: tuple[float, float], told: Fit) -> bool:
    x, y = shares
    return abs(told.x - x) <= told.near and abs(told.y - y) <= told.near


def _primary_first(units: list[str]) -> list[str]:
    return sorted(units, key=lambda unit: ":" in unit)


def _primary(units: list[str]) -> list[str]:
    """Return ``units`` without entries by name, which come last."""
    return [unit for unit in units if ":" not in unit]


def _is_close(one: float, other: float) -> bool:
    """Whether two losses, of eval and of train mode, may have one form."""
    low, high = sorted((abs(one), abs(other)))
    return one * other >= 0.0 and high <= OTHER_FORM * low + 1e-12
