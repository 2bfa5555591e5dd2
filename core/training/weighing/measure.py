"""Find out what a loss is a mean over, from the gradients of a batch and its parts.

Losses hardly tell: while parts have nearly equal ones, any weights explain the whole.
A gradient has many numbers, and what no weights explain of it shows as well: how much
of a batch's gradient depends on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.feed.structure import CannotCutError, TooFewError
from training.hardware.float32_precision import using_tf32
from training.hardware.rng import is_generator
from training.messages.error_texts import error_text
from training.weighing.collated import (
    Collated,
    collates_by_itself,
    holds_samples_second,
)
from training.weighing.counts import Contents, labels_of
from training.weighing.cut import (
    ALONE,
    Cut,
    Masks,
    Outputs,
    Rows,
    Way,
    first_half,
    has_licence,
)
from training.weighing.fit import LIMIT, Fit, confirmed, fit, fitting
from training.weighing.passes import Passes
from training.weighing.subject import Aim, Look, Subject
from training.weighing.untouched import Kept, untouched

#: ``LIMIT`` in half precision.
LIMIT_HALF = 2e-2


def look(subject: Subject, batch: Contents, aim: Aim) -> Look:
    """Return what ``batch`` tells; nothing is moved or trained.

    All of its rows, or as many as there is room for, although a few cost less: those
    may be unlike the others, and a loss may depend on how many rows there are.

    Args:
        subject: what is measured.
        batch: shares nothing with what is computed on.
        aim: what is to be told.
    """
    computing = subject.model, *subject.beside, subject.loss_fn
    modules = [each for each in computing if isinstance(each, nn.Module)]
    optimizers = [each for each in subject.beside if isinstance(each, Optimizer)]
    drawn = [each for each in subject.beside if is_generator(each)]
    with (
        untouched(
            modules, subject.loader, optimizers=optimizers, generators=drawn
        ) as kept,
        torch.inference_mode(False),
        using_tf32(False),
    ):
        batch = replace(batch, is_second=holds_samples_second(batch, subject.loader))
        rows: Contents | None = batch
        while rows is not None:
            found = Measurement(subject, kept, rows, aim).run()
            rows = first_half(rows) if found.has_no_room else None
        if found.has_no_room:  # rounding blurs it, but it may have room
            aim = replace(aim, in_full=False)
            found = Measurement(subject, kept, batch, aim).run()
        return found


class Measurement:
    """Measures one batch, or rows of one, inside ``untouched``.

    Args:
        subject: what is measured.
        kept: puts back what the passes move.
        batch: what it is measured on.
        aim: what is to be told.
    """

    def __init__(self, subject: Subject, kept: Kept, batch: Contents, aim: Aim) -> None:
        self._subject, self._batch, self._aim = subject, batch, aim
        self._found = found = Look()
        self._passes = Passes(subject, kept, batch.batch, found, aim)

    def run(self) -> Look:
        """Return what the batch tells."""
        found = self._found
        try:
            whole = self._passes.whole()
        except Exception as error:
            if error is self._passes.theirs and not self._passes.by_losses:
                raise  # in train mode, on a whole batch: training would meet it, too
            found.reasons.append(f"the model raised {error_text(error)}")
            found.has_no_room = isinstance(error, torch.OutOfMemoryError)
            return found
        if found.said is not None:
            # By losses those of a loss without a unit would tell anything.
            if not self._passes.by_losses:
                with self._noting_errors():
                    self._compare_said(whole)
            return found
        found.is_final = bool(whole.isfinite().all()) and bool(whole.any())
        found.is_empty = not found.is_final
        for way in self._ways():
            with self._noting_errors():
                self._try(way(), whole)
            if found.num_cuts:
                break
        if self._aim.is_known:  # a confirmed one need not be told from others
            return found
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

    def _ways(self) -> Iterator[Callable[[], Way]]:
        allowed = self._may_mask()
        yield lambda: Rows(self._batch)
        yield lambda: Masks(self._batch, allowed)
        yield lambda: Collated(self._batch, self._subject.loader)
        if self._subject.loss_fn is not None:
            yield lambda: Outputs(self._batch)

    def _may_mask(self) -> bool:
        model = self._subject.model if self._subject.has_own_loss else nn.Module()
        return has_licence(self._batch.batch, model, self._batch.counts)

    def _try(self, way: Way, whole: Tensor) -> None:
        """Cut in one way, and compare every turn with the candidates."""
        found, aim = self._found, self._aim
        if way.whole is not self._batch.batch:
            whole = self._passes.gradient(way.whole)
        left = way.amounts if aim.units is None else aim.units
        units = [unit for unit in way.amounts if unit in left]
        # Half precision and losses tell shares too vaguely for one cut to do.
        if aim.is_known and not (found.is_half or found.by_losses):
            cut, found.num_cuts = way.cut(ALONE), 1
            parts = list(map(self._passes.gradient, cut.parts))
            found.units = confirmed(units, cut.shares, whole, parts)
            return
        adds_up = isinstance(way, (Masks, Outputs)) and "sum" not in units
        units, num_cuts, is_mixed = units + ["sum"] * adds_up, 0, False
        for turn in range(min(aim.num_cuts, way.num_cuts)):
            cut = way.cut(turn)
            told = self._fit(whole, cut)
            if told is None:
                continue
            right = fitting(units, cut.shares, told)
            if found.by_losses and right != fitting(units, cut.shares, told, 10.0):
                continue  # one of them is neither right nor clearly wrong
            num_cuts += 1
            is_mixed = self._is_mixed(told)
            if found.fit is None or is_mixed or all(":" in unit for unit in right):
                found.fit, found.shares, found.sizes = told, cut.shares, cut.sizes
            units = units if is_mixed else right
            if is_mixed or not units:
                break
        why = ""
        if not num_cuts:
            why = "gradients that tell nothing"
        elif adds_up and units == ["sum"]:
            why = "parts that add up to the whole"
        elif is_mixed and isinstance(way, Collated):
            why = "parts of another batch"
        elif found.by_losses and not units:
            why = "losses that no unit explains"
        if why:
            found.fit = None
            raise CannotCutError(f"{way.title} leaves {why}")
        found.num_cuts = num_cuts
        # Entries by name come last.
        found.units = [] if is_mixed else sorted(units, key=lambda unit: ":" in unit)

    def _compare_said(self, whole: Tensor) -> None:
        """Compare what step_fn says of two parts with what their gradients weigh."""
        found, cut = self._found, Rows(self._batch).cut(0)
        gradients, weights = [], []
        for part in cut.parts:
            gradients.append(self._passes.gradient(part))
            weights.append(self._passes.said or 0.0)
        told = fit(whole, gradients[0], gradients[1], found.is_half)
        if told is None or not found.said or told.residual > LIMIT:
            return
        found.fit, found.sizes = told, cut.sizes
        said = weights[0] / found.said, weights[1] / found.said
        found.shares = {**cut.shares, "said": said}
        found.units = fitting(["said"], found.shares, told)

    def _tell_apart(self) -> None:
        """One look more, with labels thinned, where units had equal shares so far."""
        units = {"shifted_labels", "labels", "samples", "elements"}
        tied = units & set(self._found.units)
        has_labels = bool(tied & {"shifted_labels", "labels"})
        if has_labels and len(tied) > 1 and self._may_mask():
            thinned = Masks(self._batch, True).thinned()
            self._narrow(thinned, Rows(replace(self._batch, batch=thinned)).cut(0))

    def _tell_by_width(self) -> None:
        """One cut more, of rows collated again: fewer may be padded to a smaller width.

        Only where units weigh the batch unlike those before: rows of one width have the
        shares of their elements.
        """
        subject, found = self._subject, self._found
        has_width = "samples" in found.units and "elements" in " ".join(found.units)
        # Processes whose rows are of other widths would make other passes.
        is_alone = not subject.strategy.is_divided
        has_parted = self._aim.has_parted
        if not (has_parted and has_width and is_alone) or found.by_losses:
            return
        # Those of an evaluation are no rows of this loader.
        if self._batch.issued is not None and collates_by_itself(subject.loader):
            way = Collated(self._batch, subject.loader)
            for cut in map(way.cut, range(way.num_cuts)):
                if len({cut.shares.get(unit) for unit in found.units}) > 1:
                    self._narrow(way.whole, cut)
                    return

    def _narrow(self, whole: Any, cut: Cut) -> None:
        """Keep the units that have the shares of one cut more, if that tells any."""
        told, found = self._fit(self._passes.gradient(whole), cut), self._found
        if told is None or self._is_mixed(told):
            return
        if right := fitting(found.units, cut.shares, told):
            found.units, found.fit = right, told
            found.shares, found.sizes = cut.shares, cut.sizes

    def _fit(self, whole: Tensor, cut: Cut) -> Fit | None:
        if not (whole.any() and whole.isfinite().all()):
            return None  # whatever the parts have
        one, other = map(self._passes.gradient, cut.parts)
        return fit(whole, one, other, self._found.is_half)

    def _is_mixed(self, told: Fit) -> bool:
        """Whether rows depend on one another."""
        return told.residual > (LIMIT_HALF if self._found.is_half else LIMIT)

    def _look_at_column_0(self) -> None:
        """Where no row has a label in column 0, tell whether one there would count."""
        found, own = self._found, self._batch.batch
        labels = labels_of(own)
        both = {"shifted_labels", "labels"}
        if not both <= set(found.units) or labels is None or labels.ndim != 2:
            return
        other = Masks(self._batch, True).shifted()
        with torch.enable_grad():
            one, two = (float(self._passes.loss(b).detach()) for b in (own, other))
        counts = abs(one - two) > (1e-3 if found.is_half else 1e-7) * abs(one)
        gone = "shifted_labels" if counts else "labels"
        found.units = [unit for unit in found.units if unit != gone]
