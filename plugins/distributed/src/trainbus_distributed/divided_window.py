"""One optimizer attempt on many processes: the gradient of the global window.

The window gradient is ``sum n_i grad(m_i) / sum n_i`` over the batches of *all*
processes. Each process scales its batches by ``n_i / c``, the engine averages over the
W processes, and ``W c / N`` corrects, N being the weight of the global window. ``c`` is
a power of two, about N of the window before: to divide by it changes no digit, so it
does not show in the weights which one it was. Under fp16 it is what one process has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from trainbus_distributed.divisor import Divisor
from trainbus_distributed.exchange import fingerprint, follow_main
from training import NonFiniteError
from training.plugin import StandIn, Window, WindowResult

if TYPE_CHECKING:
    from trainbus_distributed.strategy import GroupStrategy

#: Weight, loss, losses that are not finite, names of parts that are new, who asks, who
#: listens before the step, buffers that begin to move.
OWN_SUMS = 7


class Spoilt(Exception):
    """A plugin made a gradient NaN or infinite; all processes know."""


class DividedWindow(Window):
    """As ``Window``, of a global window whose batches are divided.

    What the processes tell one another of a window, its weight, loss and whether a
    loss is bad, is one sum, right behind the exchange of gradients: they have just
    waited for one another there. All then decide alike.

    Args:
        arguments: as those of ``Window``.
        strategy: the engine.
        divisor: kept from window to window, and from run to run.
        is_last: (batches of the window) -> whether no other one follows in its epoch.
    """

    def __init__(
        self,
        *arguments: Any,
        strategy: GroupStrategy,
        divisor: Divisor,
        is_last: Callable[[int], bool],
    ) -> None:
        self._strategy = strategy
        self._group = strategy.group
        self._global_divisor = divisor
        self._ends = is_last
        #: Parts of the loss, as all processes know them.
        self._names: tuple[str, ...] = ()
        self._group.begin_run()
        super().__init__(*arguments)

    def clear(self) -> None:
        """Forget the window in hand and its gradients."""
        super().clear()
        self._bad_value, self._divided_by = 0.0, 1.0
        self._has_exchanged = False

    def _look_at_groups(self) -> None:
        super()._look_at_groups()
        self._check = self._strategy.gradient_check(self._parameters)

    def backward(self, batch: Any, weight: float) -> Tensor:
        """Add one batch's gradients; return the mean loss of the own part.

        A part that weighs nothing, or whose loss is bad, goes forward like any other
        and counts 0: the others wait for its gradients.
        """
        if self.num_batches == 0:
            self._begin()
            self._strategy.begin_window(self._parameters)
        self._group.begin_pass()
        is_stand_in = isinstance(weight, StandIn)
        is_last = self._ends(self.num_batches + 1)
        exchanges = self._strategy.exchanges(is_last)
        with self._strategy.exchanging(exchanges):
            loss, weight, self.parts = self.forward(self.model, batch, weight)
            self.num_batches += 1
            if is_stand_in:
                weight, self.parts = 0.0, {}
            # On CUDA a read, which waits: all processes must know it before they step.
            value = loss.item()
            if weight > 0.0 and not math.isfinite(value):
                self._bad_loss, self._bad_value, weight = True, value, 0.0
            factor = self._factor(weight)
            if weight > 0.0:
                self._add(value, weight)
            scaled = self._scaled(loss, factor, exchanges)
            if scaled is not None:
                scaled.backward()  # type: ignore[no-untyped-call]
        if exchanges:
            self._strategy.require_exchanged()
        self._has_exchanged = exchanges
        return loss

    def step(self, before_step: Callable[[], None] | None = None) -> WindowResult:
        """Try to update the weights once, on all processes or on none.

        Args:
            before_step: called when gradients are those of the global window.
        Raises:
            NonFiniteError: a loss or gradient of any process is not finite and the
                policy is ``"stop"``; on all of them.
        """
        try:
            weight, is_bad, is_heard = self._unite(before_step is not None)
            if is_bad:
                self._refuse(self._who_is_bad())
                return self._result(applied=False, nonfinite=True)
            if weight == 0.0:
                return self._result(applied=False)
            self._exchange_rest()
            listen = partial(self._before_step, before_step) if is_heard else None
            scaler = self.precision.scaler if self._check.has_any() else None
            if scaler is not None:
                return self._scaled_step(scaler, listen)
            return self._plain_step(listen)
        except Spoilt as spoilt:
            if scaler is not None:
                scaler.update()  # it has looked before
            self._refuse(str(spoilt))
            return self._result(applied=False, nonfinite=True)
        finally:
            self.clear()

    def _scaled(self, loss: Tensor, factor: float, exchanges: bool) -> Tensor | None:
        """Return what goes backward."""
        if factor == 0.0:
            empty = self._strategy.empty_loss(loss, exchanges)
            if empty is None:
                return None
            loss = empty
        elif factor != 1.0:
            loss = loss * factor
        scaler = self.precision.scaler
        return loss if scaler is None else scaler.scale(loss)

    def _factor(self, weight: float) -> float:
        """Return n / c of a batch."""
        if self.sums_losses:
            return 1.0 if weight > 0.0 else 0.0
        if self.num_batches == 1:
            self._choose_divisor(weight)
        return weight / self._divided_by

    def _choose_divisor(self, weight: float) -> None:
        """Set c, the same everywhere."""
        known = self._global_divisor
        if self.precision.scaler is None and known.value is not None:
            self._divided_by = known.value
            return
        # One sum more: in the first window of all, and under fp16 in each, where an
        # overflow depends on c: it is the one that one process would have.
        (first,) = self._group.sum([weight], "of a divisor")
        self._divided_by = first * self.accumulation or 1.0
        if self.precision.scaler is None:
            known.follow(self._divided_by)
            self._divided_by = known.value or 1.0

    def _sums_of_parts(self) -> list[float]:
        """Return total and weight of each known part."""
        pairs = (self._part_sums.get(name, (0.0, 0.0)) for name in self._names)
        return [float(number) for pair in pairs for number in pair]

    def _unite(self, listens: bool) -> tuple[float, bool, bool]:
        """Put the global sums in place of the own ones.

        Args:
            listens: whether anybody of this process wants to see gradients.
        Returns: weight, whether a loss is bad, whether anybody of any process listens.
        """
        own = [self._weight_sum, float(self._loss_sum), float(self._bad_loss)]
        own.append(float(not self._part_sums.keys() <= set(self._names)))
        asking, buffers = self._strategy.asking, self._strategy.buffers
        own += float(asking is None or asking.may_request), float(listens)
        own.append(float(buffers.have_news()))
        sums = self._group.sum([*own, *self._sums_of_parts()], "of a window")
        weight, loss, num_bad, num_new, num_asking, num_listening, num_moving = sums[
            :OWN_SUMS
        ]
        of_parts: Sequence[float] = sums[OWN_SUMS:]
        if asking is not None:
            asking.may_come = bool(num_asking)
        if num_new:
            everywhere = self._group.gather(tuple(self._part_sums), "of parts")
            self._names = tuple(sorted({*self._names}.union(*everywhere)))
            of_parts = self._group.sum(self._sums_of_parts(), "of parts")
        self._part_sums = {
            name: (of_parts[2 * i], of_parts[2 * i + 1])
            for i, name in enumerate(self._names)
            if of_parts[2 * i + 1]
        }
        # ``_correction`` divides the one by the other.
        self._loss_sum, self._weight_sum = loss, weight
        self._expected_weight = self._group.size * self._divided_by
        self._global_divisor.follow(weight)
        if num_moving:
            buffers.agree()
        buffers.share()  # before anybody looks
        return weight, bool(num_bad), bool(num_listening)

    def _correction(self) -> float:
        """Return W c / N, or W where losses are sums."""
        size = float(self._group.size)
        return size if self.sums_losses else self._expected_weight / self._weight_sum

    def _who_is_bad(self) -> str:
        """Say on which process the loss is not finite; all of them are here."""
        own = self._bad_value if self._bad_loss else None
        found = self._group.gather(own, "of bad losses")
        bad = (f"{v} on rank {r}" for r, v in enumerate(found) if v is not None)
        return f"the loss is {', '.join(bad)}"

    def _before_step(self, before_step: Callable[[], None] | None) -> None:
        """Let plugins change gradients; then all processes have the same ones again.

        Args:
            before_step: calls those of this process; None: only others have any.
        Raises:
            Spoilt: on all processes: on one a gradient is not finite any more.
        """
        if before_step is not None:
            before_step()
        size, rank = self._group.size, self._group.rank
        own = [0.0] * (2 * size)
        # Each in its own place: all then know whose is what by one sum.
        own[rank] = float(not self._check.finite())
        if self._strategy.replicates:
            own[size + rank] = fingerprint(self._parameters)
        told = self._group.sum(own, "of gradients")
        bad = [str(r) for r, is_bad in enumerate(told[:size]) if is_bad]
        if bad:
            raise Spoilt(
                f"a plugin made a gradient NaN or infinite on rank {', '.join(bad)}"
            )
        if len(set(told[size:])) > 1:
            follow_main(self._parameters, self._group)

    def _refuse(self, what: str, batch: Any = None) -> None:
        """As there; what one process cannot go on after ends all."""
        failure = None
        try:
            super()._refuse(what, batch)
        except NonFiniteError as error:
            failure = str(error)
        found = self._group.gather(failure, "of refusals")
        for rank, told in enumerate(found):
            if told is not None:
                raise NonFiniteError(told if all(found) else f"rank {rank}: {told}")

    def _exchange_rest(self) -> None:
        """Average what the engine has not: a tail without a known end, late joiners."""
        engine = self._strategy.exchanged
        rest = [p for p in self._parameters if not (self._has_exchanged and engine(p))]
        if rest:
            self._strategy.average(rest)
