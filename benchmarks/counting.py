"""Count what a step costs: kernels on a device without data, calls of Python on a CPU.

Neither figure knows noise: each is the same number on any machine, so a test can hold
it as a limit. ``counts.py`` prints them.

The meta device stands for a GPU: shapes and types are real there and numbers do not
exist, so a step that reads one raises. ``as_on_a_gpu`` lets clipping and optimizers
take the kernels there that CUDA takes.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from workload import Workload

from training import Trainer
from training.hardware.readback import Readback

#: Steps before those that are counted, and these: optimizer state stands then, and
#: units are measured, which asks for many a loss. Without data a step takes long, and
#: each is like the others.
OF_CALLS, OF_LOSSES, OF_KERNELS = (10, 8), (70, 20), (2, 2)
#: What operations begin with that launch nothing, beside views.
NO_KERNEL = ("empty", "_record_function", "detach", "lift_fresh")


class Enough(Exception):
    """All steps are counted; what would come after reads numbers."""


@dataclass(frozen=True)
class Settings:
    """What a step consists of.

    Attributes:
        accumulation: batches of a step.
        max_norm: 2-norm to clip to, or None.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
    """

    accumulation: int = 1
    max_norm: float | None = None
    precision: str = "fp32"


class Counted:
    """Batches that count from the end of one step to the end of a later one.

    Args:
        batch: yielded again and again.
        counting: entered for the steps that are counted.
        steps: before those, and these.
        accumulation: batches of a step.
        ends: raise ``Enough`` after the last one.
    """

    def __init__(
        self,
        batch: Any,
        counting: AbstractContextManager[Any],
        steps: tuple[int, int],
        accumulation: int = 1,
        ends: bool = False,
    ) -> None:
        self._batch, self._counting, self._ends = batch, counting, ends
        self._first = steps[0] * accumulation
        self._end = self._first + steps[1] * accumulation

    def __len__(self) -> int:
        return self._end + 1

    def __iter__(self) -> Iterator[Any]:
        for number in range(len(self)):
            if number == self._first:
                self._counting.__enter__()
            if number == self._end:
                self._counting.__exit__(None, None, None)
                if self._ends:
                    raise Enough
            yield self._batch


class Kernels(TorchDispatchMode):
    """Counts operations that launch a kernel; one over a list counts once."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter[str]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name.partition("::")[2]
        if not (func.is_view or name.startswith(NO_KERNEL)):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class Calls:
    """Counts calls of functions written in Python; a generator that goes on is one."""

    def __init__(self) -> None:
        self.counts = Counter[str]()

    def __enter__(self) -> None:
        self._collects = gc.isenabled()
        gc.disable()  # what others left behind is no part of a step
        self._before = sys.getprofile()
        sys.setprofile(self._note)

    def __exit__(self, *error: object) -> None:
        sys.setprofile(self._before)
        if self._collects:
            gc.enable()

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename != __file__:
            self.counts[f"{code.co_filename}:{code.co_qualname}"] += 1


def bare_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Any,
    batches: Any,
    settings: Settings,
) -> None:
    """Train as plainly as can be, and keep the mean loss; nothing is checked."""
    accumulation, max_norm = settings.accumulation, settings.max_norm
    parameters = list(model.parameters())
    total = torch.zeros((), device=parameters[0].device)
    scaler = None
    if settings.precision == "fp16":
        scaler = torch.amp.GradScaler(total.device.type)
    for number, (inputs, targets) in enumerate(batches, start=1):
        loss = loss_fn(model(inputs), targets)
        share = loss / accumulation if accumulation > 1 else loss
        (share if scaler is None else scaler.scale(share)).backward()
        total += loss.detach()
        if number % accumulation:
            continue
        if max_norm is not None:
            if scaler is not None:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, max_norm)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad(set_to_none=True)


def our_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Any,
    batches: Any,
    settings: Settings,
    **options: Any,
) -> None:
    """Train the same with a ``Trainer``."""
    Trainer(
        model=model,
        train_dataloader=batches,
        optimizer=optimizer,
        loss_fn=loss_fn,
        gradient_accumulation_steps=settings.accumulation,
        max_grad_norm=settings.max_norm,
        precision=settings.precision,
        **options,
    ).train()


class Unknown(Readback):
    """A number that nobody has: it stands for one that has arrived and is 0."""

    def __init__(self, value: Tensor | float) -> None:
        super().__init__(0.0 if isinstance(value, Tensor) else value)


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Let the meta device be one to train on, with the kernels that CUDA takes."""
    modules = [
        importlib.import_module(f"torch.{name}")
        for name in ("utils._foreach_utils", "optim.optimizer", "optim.adam")
    ]
    with ExitStack() as stack:

        def put(place: Any, name: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(place, name, value))

        for module in modules:
            for kind in ("fused", "foreach"):
                name = f"_get_{kind}_kernels_supported_devices"
                if hasattr(module, name):
                    put(module, name, lambda: ["cuda", "meta"])
        for name in ("training.loop.deferred_window", "training.logs"):
            put(importlib.import_module(name), "Readback", Unknown)
        put(importlib.import_module("training.trainer"), "choose_device", torch.device)
        # It knows no such device: bf16 runs with the arithmetic of fp32.
        precision = importlib.import_module("training.loop.precision").Precision
        put(precision, "autocast", lambda *_: nullcontext())
        yield


def kernels_of_a_step(
    steps: Any, work: Workload, settings: Settings, **options: Any
) -> Counter[str]:
    """Return operation -> kernels that a step launches.

    Args:
        steps: ``bare_steps`` or ``our_steps``.
        work: its model, loss and first batch.
        settings: of the step.
        options: of the ``Trainer``.
    """
    kernels = Kernels()
    with as_on_a_gpu(), contextlib.suppress(Enough):
        model = work.new_model().to("meta")
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        batch = tuple(each.to("meta") for each in work.train.batches[0])
        batches = Counted(batch, kernels, OF_KERNELS, settings.accumulation, ends=True)
        if steps is our_steps:  # the unit cannot be measured without numbers
            options = {"device": "meta", "loss_per": "elements", **options}
        steps(model, optimizer, work.loss_fn, batches, settings, **options)
    return per_step(kernels.counts, OF_KERNELS)


def calls_of_a_step(
    steps: Any, work: Workload, settings: Settings, **options: Any
) -> Counter[str]:
    """Return function -> calls that a step makes of it on a CPU.

    Args:
        steps: as above.
        work: as above.
        settings: as above.
        options: as above.
    """
    calls, model = Calls(), work.new_model()
    batches = Counted(work.train.batches[0], calls, OF_CALLS, settings.accumulation)
    if steps is our_steps:
        options = {"device": "cpu", **options}
    steps(model, work.new_optimizer(model), work.loss_fn, batches, settings, **options)
    return per_step(calls.counts, OF_CALLS)


class CountedLoss(nn.CrossEntropyLoss):
    """Counts from the loss of one step to that of a later one, whatever asks for it.

    Args:
        counting: entered for the steps that are counted.
        steps: before those, and these.
    """

    def __init__(
        self, counting: AbstractContextManager[Any], steps: tuple[int, int]
    ) -> None:
        super().__init__()
        self._counting, self._first, self._end = counting, steps[0], sum(steps)
        self._number = 0

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss."""
        if self._number == self._first:
            self._counting.__enter__()
        if self._number == self._end:
            self._counting.__exit__(None, None, None)
        self._number += 1
        return super().forward(logits, targets)


def calls_of_a_contestant(contestant: Any, folder: Any) -> Counter[str]:
    """Return function -> calls a step of a whole trainer, as ``overhead.py`` has it.

    Args:
        contestant: a ``Contestant``.
        folder: to write to.
    """
    calls, work = Calls(), Workload.create(1, sum(OF_LOSSES) + 10)
    work = replace(work, loss_fn=CountedLoss(calls, OF_LOSSES))
    _, train = contestant(work, folder)
    train()
    return per_step(calls.counts, OF_LOSSES)


def per_step(counts: Counter[str], steps: tuple[int, int]) -> Counter[str]:
    """Return the counts a step; not whole where not every step is alike."""
    found: Any = {name: number / steps[1] for name, number in counts.items()}
    return Counter(found)
