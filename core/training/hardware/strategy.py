"""Where and by how many processes one run is computed: here by this one alone.

All that the kernel knows of several processes is in this file. What happens between the
processes inside a window is up to that window: see the hook ``make_window``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from training.errors import ConfigError
from training.hardware.device import move
from training.hardware.launch import number_started

T = TypeVar("T")

#: What runs a module in several places at once keeps it under the name ``module``.
PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


class BegunSave(Protocol):
    """A checkpoint that several processes write, which is visible once complete.

    Raises:
        CheckpointError: by all but ``abandon``, if it could not be written.
    """

    def write(self) -> Any:
        """Write what this process has, which waits for no other: in any thread."""

    def complete(self, written: Any) -> Path:
        """Make it visible; called by all, with what ``write`` returned to each."""

    def abandon(self) -> None:
        """Remove what there is of it; waits for no other process."""


class Asking(Protocol):
    """What the processes of a run may ask at the end of a window.

    Attributes:
        may_come: whether any of them may; a window sets it to what the sum of all
            ``may_request`` says.
    """

    may_come: bool

    @property
    def may_request(self) -> bool:
        """Whether this process may; to be read where a window's gradients are whole."""


class Strategy:
    """Answers for one process; a plugin's ``make_strategy`` returns a subclass.

    A run on N processes is that of one process, divided: every process builds the same
    trainer and makes the same calls, and each method below is called by all of them, in
    one order, so it may wait for the others. Alone none is called once a batch or a
    step.
    """

    #: What of the data a process trains on: ``"all"``: all that its loader yields, as
    #: if it were alone; ``"split"``: its share of each batch of the loader, which is
    #: the same one everywhere; ``"own"``: what its loader yields, which is its share.
    data: str = "all"
    #: Whether a pass of the model waits for that of each other process.
    passes_together: bool = False
    #: Kinds of tensors of which a process has its part, as ``full`` makes them whole.
    parts: tuple[type, ...] = ()
    #: Whether a checkpoint is a folder into which each process writes its parts.
    saves_parts: bool = False
    #: Of this class the window of a run must be, which knows of the others; None: any.
    window: type[Any] | None = None
    #: Of the run under way, set by the kernel. A window that sums something anyway may
    #: tell it, too; its boundary then costs no sum of its own where nobody may ask.
    asking: Asking | None = None

    @property
    def rank(self) -> int:
        """Which process this is, from 0."""
        return 0

    @property
    def size(self) -> int:
        """How many processes compute the run, itself included."""
        return 1

    @property
    def is_divided(self) -> bool:
        """Whether the data are divided among several processes."""
        return self.size > 1 and self.data != "all"

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and speaks for all."""
        return self.rank == 0

    def choose_device(self, wanted: torch.device) -> torch.device:
        """Return the device of this process.

        Args:
            wanted: what the trainer was asked for, or has chosen.
        """
        return wanted

    def place(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> nn.Module:
        """Put the weights where they are trained; return ``model`` itself.

        It stays the module that ``trainer.model`` is: it is moved, or sharded in place.
        What is called in its stead is the matter of ``wrap_model``.

        Args:
            model: raw, where its owner left it.
            optimizer: over its parameters, without state; who replaces parameters puts
                the new ones into its groups.
            device: what ``choose_device`` returned.
        Raises:
            ConfigError: one of its tensors has no numbers.
        """
        move(model, device, "model")
        return model

    def wrap_forward(
        self, module: nn.Module, forward: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Return what computes the loss of a training batch, once a run.

        Args:
            module: what ``forward`` will be called with: the model in its wrappers.
            forward: ``(module, batch, weight) -> (0-d mean loss, weight, parts)``.
        """
        return forward

    def gradients(
        self, loss: Tensor, parameters: Sequence[nn.Parameter]
    ) -> Sequence[Tensor | None]:
        """Return the whole gradient of each parameter; their ``.grad`` stays as it is.

        Args:
            loss: 0-d, of the raw model and of one batch, the same on all processes.
            parameters: as the model has them between its passes.
        """
        return torch.autograd.grad(loss, parameters, allow_unused=True)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums of ``values`` over all processes, the same bits on each.

        Args:
            values: in float64, so that counts are exact; as many on each.
        """
        return [float(value) for value in values]

    def gather(self, value: T) -> list[T]:
        """Return each process's ``value``, in the order of ranks, on each.

        Args:
            value: plain; small, since it is sent as an object.
        """
        return [value]

    def full(self, state: T) -> T:
        """Return ``state`` with sharded tensors whole, on the host of the main process.

        Args:
            state: nested mappings and lists of tensors and plain values; tensors that
                are not sharded stay as they are.
        """
        return state

    def own(self, state: T, like: Any) -> T:
        """Return ``state``, whole tensors, with this process's part of each.

        Args:
            state: as ``full`` returned it.
            like: the same structure, whose tensors are sharded as wanted.
        """
        return state

    def begin_save(
        self,
        path: Path,
        state: dict[str, Any],
        copy: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> BegunSave:
        """Begin a checkpoint that is a folder; called where ``saves_parts``.

        Args:
            path: of the folder, of which the others see what one writes.
            state: of this process, with its own parts of tensors.
            copy: of a mapping of what is written, if training goes on meanwhile.
        Raises:
            CheckpointError: it could not be begun, on any of them.
        """
        raise NotImplementedError

    def save(self, path: Path, state: dict[str, Any]) -> Path:
        """Write a checkpoint that is a folder, and wait for it.

        Args:
            path: of the folder.
            state: as ``begin_save`` takes it.
        Raises:
            CheckpointError: it could not be written, on any of them, and is not there.
        """
        begun = self.begin_save(path, state)
        try:
            return begun.complete(self.on_each(begun.write))
        except BaseException:
            begun.abandon()
            raise

    def on_main(self, work: Callable[[], T]) -> T:
        """Let the main process do ``work``; its result, or error, is everybody's."""
        return work()

    def on_each(self, work: Callable[[], T]) -> T:
        """Let each process do ``work``; an error of any is everybody's.

        Args:
            work: waits for no other process.
        Returns: what it returned here.
        """
        return work()

    def report(self, error: BaseException) -> BaseException:
        """Tell the others what ends the run here; return what is to be raised for it.

        That is ``error``, or what another process failed of where this one has only
        lost it. Called before plugins are closed, or for what they raise in closing;
        nobody waits for the others.
        """
        return error

    def close(self, error: BaseException | None) -> None:
        """Take leave of the others: at each end of ``train``, or if building fails.

        Args:
            error: what ends it; None: all went well. Plugins have been closed.
        """


def require_alone() -> None:
    """Refuse a run that nobody divides where it is not that of this process alone.

    Raises:
        ConfigError: others were started with it, or torch has joined it with them.
    """
    number, group = number_started(), torch.distributed
    if group.is_available() and group.is_initialized():
        number = max(number, group.get_world_size())
    if number > 1:
        raise ConfigError(
            f"{number} processes were started (WORLD_SIZE) and no plugin divides the "
            "run among them, so each would train all of it and write the same files; "
            "enable the plugin 'distributed', or start one process"
        )


def record_failure(error: BaseException) -> None:
    """Write ``error`` where torchrun reads what a process failed of, unless one is."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not file or os.path.exists(file):
        return
    # Late, as it takes time and is needed for few runs.
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    raised = error.__traceback__
    try:
        raise error  # what is written is what is being handled
    except BaseException:
        try:
            get_error_handler().record_exception(error)
        except OSError:  # no space: torchrun would read half a report, and fail itself
            with contextlib.suppress(OSError):
                os.unlink(file)
    finally:
        error.__traceback__ = raised
