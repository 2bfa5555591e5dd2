"""Whether a plugin makes the CPU wait for a GPU, told without one."""

from __future__ import annotations

import inspect
import tempfile
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from torch import nn

from training.bus.callback import Callback
from training.bus.meter import Meter
from training.loop.deferred_window import NotedWindow
from training.loop.loop import Loop
from training.messages.error_texts import add_note
from training.testing.meta_device import META, OnMeta, meta_device_as_cuda
from training.testing.runs import tiny_trainer
from training.testing.toys import TinyModel, tiny_batches
from training.view import TrainerView

#: Steps that are looked at: from behind the second one on, which may set things up, and
#: fewer than the host may be ahead of the device before it waits on purpose.
FIRST, LAST = 2, 8

# Whose lines say little of who waited.
_TORCH = Path(torch.__file__).parent
_KIT = Path(__file__).parent
_KERNEL = _KIT.parent


@dataclass(frozen=True, slots=True)
class Wait:
    """One time that the CPU waited for the device.

    Attributes:
        plugin: whose hook was running, ``""`` where it was the trainer itself.
        hook: its name; that of ``on_before_step`` where the trainer looks at gradients
            for somebody who listens to it; else ``""``.
        step: ``trainer.step`` when it happened.
        what: the operation that waited.
        stack: where, outermost first.
    """

    plugin: str
    hook: str
    step: int
    what: str
    stack: traceback.StackSummary = field(repr=False)

    def __str__(self) -> str:
        return f"{self.owner} waits for the device ({self.what}) at {self.place}"

    @property
    def owner(self) -> str:
        """Who waited: a plugin in its hook, the model or its loss, or the trainer."""
        if self.plugin:
            return f"{self.plugin}.{self.hook}"
        if self.hook:
            return f"the trainer, for a listener to {self.hook},"
        return "the trainer" if _is_in(self._frame.filename, _KERNEL) else "the model"

    @property
    def place(self) -> str:
        """The line that waited: the plugin's own, if one of its lines is on the way."""
        frame = self._frame
        return f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}"

    @property
    def _frame(self) -> traceback.FrameSummary:
        frames = [each for each in self.stack if not _is_in(each.filename, _TORCH)]
        kit = [i for i, each in enumerate(frames) if each.name == "calls_a_hook"]
        if self.plugin:
            frames = frames[kit[-1] :]
        frames = [each for each in frames if not _is_in(each.filename, _KIT)]
        own = [each for each in frames if not _is_in(each.filename, _KERNEL)]
        # A hook may be nothing but a function of torch, or of this kit.
        return ((self.plugin and own) or frames or self.stack)[-1]


class _Enough(Exception):  # nothing is wrong
    """Ends a run before the end of its epoch, which may read."""


class _Ends(Callback):
    name = "kit_ends"

    def __init__(self, last: int) -> None:
        self.last = last

    def on_step_end(self, trainer: TrainerView) -> None:
        if trainer.step == self.last:
            raise _Enough


@dataclass(slots=True)
class _Listens(Meter):
    """Knows whose hook is running, and keeps what is told of meanwhile."""

    trainer: Any = None
    last: int = LAST
    found: list[Wait] = field(default_factory=list)
    last_wait: Wait | None = None
    _calls: list[tuple[str, str]] = field(default_factory=lambda: [("", "")])

    def for_call(self, plugin: str, hook: str) -> Callable[..., Any]:
        """Return a call of ``(function, *arguments)`` that notes who runs."""

        def calls_a_hook(function: Callable[..., Any], *arguments: Any) -> Any:
            self._calls.append((plugin, hook))
            try:
                return function(*arguments)
            finally:
                self._calls.pop()

        return calls_a_hook

    def note(self, what: str) -> None:
        """Keep a wait, if it is between the steps that are looked at."""
        step = -1 if self.trainer is None else self.trainer.step
        plugin, hook = self._calls[-1]
        if not plugin and self._looks_for_a_listener():
            hook = "on_before_step"
        self.last_wait = Wait(plugin, hook, step, what, traceback.extract_stack())
        if FIRST <= step < self.last and self._is_between_steps():
            self.found.append(self.last_wait)

    def _looks_for_a_listener(self) -> bool:
        """Whether scaled gradients are looked at before a plugin is shown them."""
        if self.trainer is None or self.trainer.bus.on_before_step is None:
            return False
        return NotedWindow._scaled_step.__code__ in _running()

    def _is_between_steps(self) -> bool:
        """Whether nothing is going on that may read: no epoch's end, no evaluation."""
        running = _running()
        if Loop._evaluate.__code__ in running:
            return False
        # Who measures needs the true counters, for which the trainer waits before.
        is_served = Loop._serve_requests.__code__ in running
        if is_served and "evaluation" in self.trainer.pending:
            return False
        return Loop._run_batches.__code__ in running


def waits_of(
    *plugins: Any,
    save_dir: str | Path,
    make_optimizer: Callable[[Iterable[Any]], torch.optim.Optimizer] | None = None,
    last: int = LAST,
    **options: Any,
) -> list[Wait]:
    """Train with ``plugins`` on a device without data; return who waits for it.

    Args:
        plugins: instances.
        save_dir: the run's folder.
        make_optimizer: parameters -> optimizer; by default a fused AdamW, the kind that
            lets the trainer itself run without a wait.
        last: ends the run; behind 17 steps that nobody waited for, the trainer does.
        options: of ``tiny_trainer``; ``model`` is moved to the device.
    """
    batches = options.pop("train_dataloader", None) or tiny_batches(4)
    if "model" not in options:
        options.setdefault("loss_per", "samples")  # measured, it would be read
    accumulation = options.get("gradient_accumulation_steps", 1)
    num_batches = (last + 2) * accumulation
    listens = _Listens(last=last)
    with meta_device_as_cuda(listens.note):
        model: nn.Module = (options.pop("model", None) or TinyModel()).to(META)
        make = make_optimizer or _fused_adamw
        ends = _Ends(last)
        trainer = tiny_trainer(
            *plugins,
            OnMeta(),
            ends,
            model=model,
            optimizer=make(model.parameters()),
            train_dataloader=[
                batches[index % len(batches)] for index in range(num_batches)
            ],
            save_dir=save_dir,
            **options,
        )
        listens.trainer = trainer
        trainer.bus.meter = listens
        try:
            trainer.train()
        except _Enough:
            pass
        except Exception as error:
            if listens.last_wait is not None:
                add_note(error, f"its numbers are made up: {listens.last_wait}")
            raise
    return listens.found


def assert_no_waits(plugin: Any, *neighbours: Any, **options: Any) -> None:
    """Fail if a run with ``plugin`` makes the CPU wait for a GPU between two steps.

    No GPU is needed: a run in fp32 and one in fp16 train on a device without data. A
    number that a hook reads there is 0. Without a plugin nothing waits, so whatever
    does is owed to it, also where the trainer waits on its behalf. Hooks that it
    declares in ``reads_device`` may; what comes once an epoch or belongs to an
    evaluation, whoever asks for it, is not looked at.

    Args:
        plugin: the instance under test; it trains twice.
        neighbours: other instances in the run.
        options: of ``tiny_trainer``; ``model`` is moved to the device.
    Raises:
        AssertionError: one line for each line of code that waits.
    """
    found = waits_with(plugin, *neighbours, **options)
    lines = told([wait for wait in found if not is_declared(plugin, wait)])
    if lines:
        raise AssertionError("\n".join(["the run waits for the device", *lines]))


def waits_with(plugin: Any, *neighbours: Any, **options: Any) -> list[Wait]:
    """Return the waits of a run in fp32 and of one in fp16, where more is unknown."""
    precisions = [options.pop("precision")] if "precision" in options else None
    found: list[Wait] = []
    for precision in precisions or ("fp32", "fp16"):
        with tempfile.TemporaryDirectory() as folder:
            given = {"save_dir": folder, "precision": precision, **options}
            found += waits_of(plugin, *neighbours, **given)
    return found


def is_declared(plugin: Any, wait: Wait) -> bool:
    """Whether ``plugin`` says that the hook of ``wait`` reads the device."""
    return wait.hook in getattr(plugin, "reads_device", ())


def told(waits: Sequence[Wait]) -> list[str]:
    """Return a sentence for each line of code that waits, with how often it did."""
    steps: dict[str, set[int]] = {}
    for wait in waits:
        steps.setdefault(str(wait), set()).add(wait.step)
    return [
        f"{each}, in {len(at)} of {LAST - FIRST} steps" for each, at in steps.items()
    ]


def _running() -> set[CodeType]:
    """Return the code of all functions that are being called."""
    frame, running = inspect.currentframe(), set()
    while frame is not None:
        running.add(frame.f_code)
        frame = frame.f_back
    return running


def _fused_adamw(parameters: Iterable[Any]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, fused=True)


def _is_in(path: str, *folders: Path) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)
