"""A window whose device work is recorded once and replayed: CUDA graphs.

Two recordings make a window: one batch (forward and backward) and one attempt (check,
clip, step, empty the gradients). What differs between replays is read from tensors that
stay where they are: the batch, the share of its loss, the correction, the rates. The
windows before the recording, and whatever does not fit it, do the same arithmetic from
the same tensors, so it does not show in the weights where a recording begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn

from trainbus_cuda_graphs.recording import Recorder
from training.plugin import Parts, UnreadWindow, WindowResult, tensors_of

log = logging.getLogger(__name__)

#: Windows that run before recording: optimizer state and libraries' work space stand.
WARM_UP_WINDOWS = 3
#: Recordings after which a run whose settings keep changing goes on without.
MOST_RECORDINGS = 3


@dataclass(slots=True)
class Recording:
    """What the replays of a window read and write.

    Attributes:
        form: structure, shapes and constants of the batch, as ``form_of`` tells them.
        batch: the batch that is read.
        inputs: the tensors in it.
        gradients: those of the parameters that are used.
        baked: all else that is fixed in the recordings.
        loss: mean loss, 0-d; overwritten by the next batch.
        parts: what came beside it, 0-d on the device; overwritten likewise.
        norm: 0-d, before clipping; None when not clipping.
        code: APPLIED or NONFINITE, 0-d.
        play_batch: adds the gradients of ``batch``.
        play_attempt: steps, and empties the gradients.
    """

    form: Any
    batch: Any
    inputs: list[Tensor]
    gradients: list[Tensor]
    baked: Any = None
    loss: Tensor | None = None
    parts: Mapping[str, Any] = field(default_factory=dict)
    norm: Tensor | None = None
    code: Tensor | None = None
    play_batch: Callable[[], None] = field(default=lambda: None)
    play_attempt: Callable[[], None] = field(default=lambda: None)


class GraphedWindow(UnreadWindow):
    """As ``UnreadWindow``, recorded, for what ``make_window`` lets in.

    A batch of another form runs unrecorded, and so does the attempt where a plugin
    listens before the step. What is baked into a recording (options but the rate, which
    parameters train, modules' modes, where tensors lie) is compared before each window;
    a change starts over.

    Args:
        recorder: records on the device of the parameters.
        arguments: as those of ``Window``.
    """

    keeps_casts = False  # a cast must be made anew in each replay
    _recording: Recording | None = None
    _is_given_up = False
    _is_empty = False  # whether the recorded gradients are zero

    def __init__(self, *arguments: Any, recorder: Recorder, **options: Any) -> None:
        self._recorder = recorder
        self._num_recordings = self._num_warm = 0
        self._last_form: Any = None
        self._used: list[Any] = []
        self._said: set[str] = set()
        super().__init__(*arguments, **options)
        self._unheeded, self.forward = self.forward, self._heeded

    def _look_at_groups(self) -> None:
        super()._look_at_groups()
        self._recording, self._num_warm = None, 0
        at = self._parameters[0].device
        # Of float32, which the kernels that read them take, whatever torch's default.
        self._share, self._factor = torch.ones(2, device=at).float().unbind()
        self._rates = torch.zeros(len(self.optimizer.param_groups), device=at).float()
        self._filled: dict[str, float] = {}
        self._modules = list(self.model.modules())

    def backward(self, batch: Any, weight: float) -> Tensor:
        """Add one batch's gradients, by a replay where there is one."""
        # Shapes and types, known on the host: no sync.
        form = None if self._is_given_up else form_of(batch)
        if self.num_batches == 0:
            self._begin()
            is_usual = form is not None and form == self._last_form and weight > 0.0
            if self._num_warm >= WARM_UP_WINDOWS and self._recording is None:
                if is_usual:
                    self._record(batch, weight, form)
                else:
                    self._say("waits for two batches of one form in a row")
        self._last_form = form
        self._is_empty = False
        recording = self._recording
        if recording is None or weight <= 0.0 or form != recording.form:
            if recording is not None and weight > 0.0:
                self._say("runs batches of other forms than the recorded one without")
            with nullcontext() if self._is_given_up else self._recorder.aside():
                return super().backward(batch, weight)
        # One launch; the recording reads its inputs where they lie.
        torch._foreach_copy_(recording.inputs, tensors_of(batch))
        self._fill("share", self._share, self._divisor(weight))
        recording.play_batch()
        assert recording.loss is not None
        # The next replay overwrites it.
        mean = recording.loss.clone()
        self.parts = {name: part.clone() for name, part in recording.parts.items()}
        self.num_batches += 1
        self._add(mean, weight)
        return mean

    def _begin(self) -> None:
        super()._begin()
        # On the host, once a window: the price of noticing at all.
        if self._recording is not None and self._baked() != self._recording.baked:
            self._recording, self._num_warm = None, 0
            self._drop_gradients()
            if self._num_recordings >= MOST_RECORDINGS:
                self._give_up("what is recorded keeps changing between steps")

    def _drop_gradients(self) -> None:
        if self._recording is None:
            super()._drop_gradients()
        elif not self._is_empty:
            torch._foreach_zero_(self._recording.gradients)
        self._is_empty = True

    def _heeded(
        self, model: nn.Module, batch: Any, weight: float
    ) -> tuple[Tensor, float, Parts]:
        """Go forward; what comes back tells whether that can be recorded."""
        loss, counted, parts = self._unheeded(model, batch, weight)
        if counted is not weight:
            self._give_up("step_fn counts the items of a batch by itself")
        for name, part in parts.items():  # a replay would repeat a number of the host
            if not isinstance(part, Tensor) or part.device != loss.device:
                self._give_up(f"step_fn returns {name!r} as a number of the host")
        return loss, counted, parts

    def _share_of(self, loss: Tensor, weight: float) -> Tensor:
        assert self.precision.scaler is None  # fp16 is not recorded
        self._fill("share", self._share, self._divisor(weight))
        return loss / self._share.to(loss.dtype)

    def _plain_step(self, before_step: Callable[[], None] | None) -> WindowResult:
        self._fill("factor", self._factor, self._correction())
        for index, group in enumerate(self.optimizer.param_groups):
            self._fill(f"rate {index}", self._rates[index], float(group["lr"]))
        recording = self._recording
        if recording is None:
            self._num_warm += 1
            self._used = [p for p in self._parameters if p.grad is not None]
        if recording is None or before_step is not None:
            norm = self._guarded_step(self._factor, before_step)
            return self._late_result(norm, self._check.found)
        # Its last part empties the gradients.
        recording.play_attempt()
        self._is_empty = True
        assert recording.code is not None
        norm = None if recording.norm is None else recording.norm.clone()
        return self._late_result(norm, recording.code)

    def _guarded_step(
        self, factor: float | Tensor, before_step: Callable[[], None] | None
    ) -> Tensor | None:
        # The kernel reads a tensor: a number would be recorded, and stay as it is.
        with self._with_option("lr", self._rates.unbind()):
            return super()._guarded_step(factor, before_step)

    @contextmanager
    def _with_option(self, name: str, values: Iterable[Any]) -> Iterator[None]:
        """Set an option of the optimizer's groups that have it; put it back."""
        groups = [group for group in self.optimizer.param_groups if name in group]
        before = [group[name] for group in groups]
        for group, value in zip(groups, values, strict=False):
            group[name] = value
        try:
            yield
        finally:
            for group, value in zip(groups, before, strict=True):
                group[name] = value

    def _record(self, batch: Any, weight: float, form: Any) -> None:
        """Record both parts; nothing is done to weights or gradients meanwhile.

        A model that does what cannot be recorded, such as reading a number off the
        device, runs on unrecorded.
        """
        for parameter in self._used:
            # Outside of the recording, which adds to them where they lie.
            parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in self._used]
        static = copy_of(batch)
        recording = Recording(form, static, tensors_of(static), gradients)

        def one_batch() -> None:
            loss, _, recording.parts = self.forward(self.model, static, weight)
            recording.loss = loss.detach()
            share = loss / self._share.to(loss.dtype)
            self._differentiate(recording.loss, share)

        def one_attempt() -> None:
            # Torch asks for the flag; fused kernels are it without.
            with self._with_option("capturable", repeat(True)):
                recording.norm = self._guarded_step(self._factor, None)
            recording.code = self._check.found
            torch._foreach_zero_(gradients)

        try:
            recording.play_batch = self._recorder.record(one_batch)
            recording.play_attempt = self._recorder.record(one_attempt)
        except Exception as error:
            # Zeros of a recording that there is not.
            for parameter in self._used:
                parameter.grad = None
            reason = str(error).partition("\n")[0]
            self._give_up(f"a step of this model cannot be recorded ({reason})")
            return
        recording.baked = self._baked()
        self._recording = recording
        self._num_recordings += 1

    def _baked(self) -> list[Any]:
        """Return what a recording takes for fixed, to compare it later."""
        optimizer = self.optimizer
        options = [
            # A tensor by identity: reading its value would be a sync.
            (name, id(value) if isinstance(value, Tensor) else value)
            for group in optimizer.param_groups
            for name, value in group.items()
            if name not in ("params", "lr")
        ]
        # Addresses are baked in: weights that moved would be stepped where they were.
        places = [(p.data_ptr(), p.requires_grad, id(p.grad)) for p in self._parameters]
        modes = [module.training for module in self._modules]
        return [options, places, modes, id(optimizer.state), self.max_grad_norm]

    def _fill(self, name: str, tensor: Tensor, value: float) -> None:
        """Write ``value`` where the device reads it, unless it is there."""
        if self._filled.get(name) != value:
            self._filled[name] = value
            tensor.fill_(value)

    def _give_up(self, why: str) -> None:
        self._is_given_up = True
        self._say(f"stays off: {why}")

    def _say(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.warning("cuda_graphs %s", what)


def form_of(value: Any) -> Any:
    """Return what two batches must have in common to share a recording.

    Args:
        value: a batch; what is neither tensor, container nor constant equals nothing.
    """
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device
    if isinstance(value, Mapping):
        return dict, [(name, form_of(item)) for name, item in value.items()]
    if isinstance(value, (tuple, list)):
        return type(value), [form_of(item) for item in value]
    is_constant = value is None or isinstance(value, (bool, int, float, str))
    # An object of its own equals none: such a batch is never recorded.
    return (type(value), value) if is_constant else object()


def copy_of(value: Any) -> Any:
    """Return a batch of the same form, whose tensors are its own.

    A mapping becomes a plain dict: attributes beside its items are not recorded.
    """
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, Mapping):
        return {name: copy_of(item) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(copy_of(item) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(copy_of(item) for item in value)
    return value
