"""What every engine has in common: the group, the device, and main's weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainbus_distributed.alike import require_alike, require_same_model
from trainbus_distributed.buffers import MovingBuffers
from trainbus_distributed.divided_window import DividedWindow
from trainbus_distributed.exchange import average
from trainbus_distributed.farewell import lost_words
from trainbus_distributed.group import Group
from trainbus_distributed.waiting import OutOfStepError, asker, place
from training import ConfigError, PluginError
from training.plugin import (
    GradientCheck,
    Strategy,
    is_second_signal,
    record_failure,
    some,
)

if TYPE_CHECKING:
    from training import Trainer

T = TypeVar("T")

#: Where torch keeps what is called with the gradient of a parameter.
GRADIENT_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")

log = logging.getLogger(__name__)


class GroupStrategy(Strategy):
    """Answers for a process of a group; the engines derive from it.

    Args:
        trainer: that is being built.
        group: the processes of the run.
        data: as ``Strategy.data``.
    """

    window = DividedWindow
    #: Whether each process has the whole of each gradient, which must be the same then.
    replicates = False

    def __init__(self, trainer: Trainer, group: Group, data: str) -> None:
        self.trainer = trainer
        self.group = group
        self.data = data
        self._is_on_main = False
        self._reported: BaseException | None = None
        self.watch_buffers()

    @property
    def rank(self) -> int:
        """Which process this is, from 0."""
        return self.group.rank

    @property
    def size(self) -> int:
        """How many processes compute the run."""
        return self.group.size

    def choose_device(self, wanted: torch.device) -> torch.device:
        """Return the GPU of this process's number, or the CPU where that is wanted.

        Raises:
            ConfigError: it would be that of another process, too.
        """
        if wanted.type != "cuda":
            return wanted
        if ":" in str(wanted):
            raise ConfigError(
                f"device is '{wanted}', one GPU for {self.size} processes, but each "
                "needs its own; say 'cuda', or leave device out"
            )
        number, found = self.group.local_size, torch.cuda.device_count()
        if number > found:
            raise ConfigError(
                f"{number} processes of the run are on this machine, which has {found} "
                "GPUs, but each needs its own; start fewer, or say device: cpu"
            )
        device = torch.device("cuda", self.group.local_rank)
        torch.cuda.set_device(device)
        return device

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all processes."""
        self.require_all("sum")
        with self.telling():
            return self.group.sum(values, asker())

    def gather(self, value: T) -> list[T]:
        """Return each process's value."""
        self.require_all("gather")
        with self.telling():
            return self.group.gather(value, asker())

    def on_main(self, work: Callable[[], T]) -> T:
        """Let the main process do ``work``."""
        self.require_all("on_main")

        def alone() -> T:
            self._is_on_main = True
            try:
                return work()
            finally:
                self._is_on_main = False

        with self.telling():
            return self.group.on_main(alone, asker())

    def require_all(self, method: str) -> None:
        """Refuse a call that waits for all where the main process alone makes it.

        Args:
            method: of this class, which is called.
        Raises:
            PluginError: inside ``on_main``, or in a plugin with ``ranks = "main"``.
        """
        bus = self.trainer.bus
        name = bus.caller() if bus.main_only else ""
        if name in bus.main_only:
            raise PluginError(
                f"plugin {name!r} calls trainer.strategy.{method}, which waits for all "
                "processes, but says ranks = 'main', so the others never call it; say "
                "'all', or leave the call out"
            )
        if self._is_on_main:
            raise PluginError(
                f"trainer.strategy.{method} is called inside of on_main(work), where "
                "the others only wait for its result; call it before or after"
            )

    def report(self, error: BaseException, call: str = "") -> BaseException:
        """Tell the others of ``error``; return it, or what they have failed of.

        Args:
            error: that has ended the run, or the call.
            call: of a script, outside of a run.
        """
        self.group.forget_passes()
        farewell = self.group.farewell
        if farewell is None or self._is_agreed(error):
            return error
        error = farewell.explained(error, call)
        record_failure(error)  # before: the launcher takes the first for the cause
        farewell.part(error)
        self._reported = error
        return error

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Surround a call that waits for all: its error is raised as it is to be told.

        In a run that is itself, which ends it and is reported then. A script that
        calls for itself tells at once that it has lost another process, or left it.
        """
        try:
            yield
        except Exception as error:
            raise self._told(error)  # noqa: B904  # itself, mostly

    def _told(self, error: Exception) -> BaseException:
        is_parted = isinstance(error, OutOfStepError) or lost_words(error) is not None
        if self.trainer.bus.is_in_run or not is_parted:
            return error
        told = self.report(error, place())
        if told is not error:
            told.__cause__ = error
        return told

    def close(self, error: BaseException | None) -> None:
        """Tell the others of an error that was not reported: where building fails."""
        if error is not None and error is not self._reported:
            self.report(error)

    def _is_agreed(self, error: BaseException) -> bool:
        """Whether all processes leave alike, for a signal."""
        is_exit = isinstance(error, (SystemExit, KeyboardInterrupt))
        is_alone = is_second_signal(error)  # the others may be waiting for it
        return is_exit and not is_alone and self.trainer.stop_owner == "signal"

    def on_each(self, work: Callable[[], T]) -> T:
        """Let each process do ``work``."""
        with self.telling():
            return self.group.on_each(work, asker())

    def share_weights(self, model: nn.Module, device: torch.device) -> None:
        """Give ``model`` the weights and buffers of the main process, where it lies."""
        for part in map(Tensor.detach, (*model.parameters(), *model.buffers())):
            # One at a time: the whole of it may not fit the device.
            moved = part.to(device)
            self.group.share_main(moved)
            if moved is not part:  # it lies elsewhere
                part.copy_(moved)

    def check(self, model: nn.Module) -> None:
        """Refuse another model, or loss, than that of another process.

        And say once that BatchNorm makes a run differ from that of one process.

        Raises:
            ConfigError: on all processes.
        """
        modules = {"model": model, **self.trainer.criterion.modules()}
        require_same_model(modules, self.group)
        found = [
            name
            for name, part in model.named_modules()
            if isinstance(part, _BatchNorm) and not isinstance(part, nn.SyncBatchNorm)
        ]
        if found and self.is_main:
            log.warning(
                "BatchNorm (%s) normalises by the rows of each process's part of a "
                "batch, so this run differs from that of one process; running "
                "statistics follow the main process, and torch may refuse a part of "
                "one row",
                some(found, 1),
            )

    def require_alike(self) -> None:
        """Refuse what has come to differ from process to process in the run.

        Raises:
            PluginError: on all processes.
        """
        require_alike(self.trainer, self.group, self.buffers, self.parts)

    def watch_buffers(self, *modules: nn.Module) -> None:
        """Let buffers that passes move follow main, from the first window on."""
        self.buffers = MovingBuffers(modules, self.group)
        self._has_begun = False

    def begin_window(self, parameters: Sequence[nn.Parameter]) -> None:
        """Look at what is there before the passes of a window."""
        self.buffers.begin()
        if not self._has_begun:  # whoever has a hook to put on has done so by now
            self._has_begun = True
            self._tell_of_hooks(parameters)

    def _tell_of_hooks(self, parameters: Sequence[nn.Parameter]) -> None:
        names = {id(p): name for name, p in self.trainer.model.named_parameters()}
        found = [
            names.get(id(p), "a parameter of the loss")
            for p in parameters
            if p.requires_grad
            and any(getattr(p, each, None) for each in GRADIENT_HOOKS)
        ]
        if found and self.is_main:
            log.warning(
                "hooks on gradients (of %s) hear them before they are exchanged: those "
                "of each process's part of a batch, so a run in which they change "
                "gradients differs from that of one process; change them in "
                "on_before_step",
                some(found, 1),
            )

    def exchanges(self, is_last: bool) -> bool:
        """Whether gradients are exchanged in a batch.

        Args:
            is_last: whether it is known to be the last one of its window.
        """
        return is_last

    def exchanging(self, exchanges: bool) -> AbstractContextManager[Any]:
        """Return what a forward and backward pass runs in.

        Args:
            exchanges: whether gradients are to be exchanged in it.
        """
        return nullcontext()

    def empty_loss(self, loss: Tensor, exchanges: bool) -> Tensor | None:
        """Return what goes backward for a batch that weighs nothing; None: nothing.

        Args:
            loss: what its forward pass returned; a mean over nothing is NaN.
            exchanges: whether gradients are to be exchanged.
        """
        return loss * 0.0

    def require_exchanged(self) -> None:
        """Raise ``ConfigError`` where a pass that exchanges has left gradients out."""

    def exchanged(self, parameter: nn.Parameter) -> bool:
        """Whether the engine itself exchanges this parameter's gradient."""
        return False

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average the gradients that the engine has not exchanged."""
        average(parameters, self.group)

    def gradient_check(self, parameters: list[nn.Parameter]) -> GradientCheck:
        """Return what looks at all gradients, with the same answer everywhere."""
        return GradientCheck(parameters)
