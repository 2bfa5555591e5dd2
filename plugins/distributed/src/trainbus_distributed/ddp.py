"""The engine DDP: each process has all weights, and gradients are exchanged."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainbus_distributed.group import Group
from trainbus_distributed.strategy import GRADIENT_HOOKS, GroupStrategy
from training import ConfigError

if TYPE_CHECKING:
    from training import Trainer

#: Releases before 2.13 know it as ``broadcast_buffers``.
SYNC_BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)


class DDPStrategy(GroupStrategy):
    """Replicates the model.

    Args:
        trainer: that is being built.
        group: the processes of the run.
        data: as ``Strategy.data``.
        find_unused_parameters: as DDP has it; gradients are then exchanged after every
            batch, since only there it is known which were used.
    """

    replicates = True

    def __init__(
        self,
        trainer: Trainer,
        group: Group,
        data: str,
        find_unused_parameters: bool,
    ) -> None:
        super().__init__(trainer, group, data)
        self._finds_unused = find_unused_parameters
        self._ddp: DistributedDataParallel | None = None
        self._trained: list[nn.Parameter] = []
        self._exchanged: set[int] = set()
        self._sparse: set[int] = set()

    def place(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> nn.Module:
        """Move the model; the weights and buffers of the main process hold."""
        self.check(model)
        placed = super().place(model, optimizer, device)
        self.share_weights(placed, device)
        return placed

    def wrap_forward(
        self, module: nn.Module, forward: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Return the call that computes the loss, with DDP around it."""
        beside = self.trainer.criterion.modules().values()
        step = Step(module, forward, beside, self.trainer.optimizer)
        self.watch_buffers(step)
        # Buffers follow main at the end of a window; DDP would see to it before one.
        options: dict[str, Any] = {SYNC_BUFFERS: False}
        # No device_ids: DDP would move inputs, and the kernel has moved them.
        self._ddp = ddp = DistributedDataParallel(
            step, find_unused_parameters=self._finds_unused, **options
        )
        self._trained = [p for p in step.parameters() if p.requires_grad]
        self._exchanged = set(map(id, self._trained))
        tables = (nn.Embedding, nn.EmbeddingBag)  # by which DDP itself knows them
        layers = [m for m in step.modules() if isinstance(m, tables) and m.sparse]
        self._sparse = {id(layer.weight) for layer in layers}
        if not self._finds_unused:
            self._rehearse(step)
        return lambda _, batch, weight: ddp(batch, weight)

    def _rehearse(self, step: Step) -> None:
        """Exchange gradients of 0: the model alone then decides how DDP lays them out.

        After its first exchange DDP lays its buckets out anew, as gradients came; only
        where it looks for unused ones it does not. From three processes on, where a
        gradient lies decides the order in which its parts are added up: the first step
        after a start would round otherwise than it does in a run that goes through.
        """
        assert self._ddp is not None
        self._ddp(None, None)
        with hooks_aside(self._trained):
            self._zero_of_all(self._trained).backward()  # type: ignore[no-untyped-call]
        step.zero_grad()

    def require_exchanged(self) -> None:
        """Raise ``ConfigError`` where a parameter got no gradient in the pass at hand.

        DDP by itself tells only in the next pass: each process would have stepped on
        gradients of its own before, and saved that.
        """
        assert self._ddp is not None
        try:
            self._ddp.reducer._check_reducer_finalized()
        except RuntimeError as error:
            raise ConfigError(self._unused()) from error

    def _unused(self) -> str:
        """Say what DDP waits for in vain, and the way out."""
        named = self.trainer.model.named_parameters()
        frozen = [n for n, p in named if self.exchanged(p) and not p.requires_grad]
        if frozen:
            return (
                f"{frozen[0]} was frozen after the run had begun, and DDP waits for "
                "its gradient: say distributed.find_unused_parameters: true, or freeze "
                "it before train()"
            )
        return (
            "a parameter that trains got no gradient in this window, and DDP waits for "
            "each: say distributed.find_unused_parameters: true if the "
            "forward pass leaves some out, or freeze them before train()"
        )

    def exchanging(self, exchanges: bool) -> AbstractContextManager[Any]:
        """Let DDP exchange in the last batch of a window only."""
        if exchanges or self._finds_unused or self._ddp is None:
            return super().exchanging(exchanges)
        no_sync: AbstractContextManager[Any] = self._ddp.no_sync()
        return no_sync

    def empty_loss(self, loss: Tensor, exchanges: bool) -> Tensor | None:
        """Return a 0 of what DDP waits for: a mean over nothing has NaN gradients.

        That is each parameter, or each that the pass used where DDP looks for these.
        """
        awaited = self._trained
        if self._finds_unused:
            used = leaves_of(loss)
            awaited = [p for p in awaited if id(p) in used]
            if not awaited:
                return super().empty_loss(loss, exchanges)
        elif not exchanges:
            return None
        return self._zero_of_all(awaited)

    def _zero_of_all(self, parameters: Iterable[nn.Parameter]) -> Tensor:
        return torch.stack([self._zero_of(p) for p in parameters]).sum()

    def _zero_of(self, parameter: nn.Parameter) -> Tensor:
        """Return a 0 whose gradient is as the layer's own: DDP expects a sparse one."""
        values: Tensor = parameter
        if id(parameter) in self._sparse:
            none = torch.empty(0, dtype=torch.long, device=parameter.device)
            values = nn.functional.embedding(none, parameter, sparse=True)
        values = values.real if values.is_complex() else values
        return (values.sum() * 0.0).float()

    def exchanged(self, parameter: nn.Parameter) -> bool:
        """Whether it trained when DDP was set up."""
        return id(parameter) in self._exchanged


@contextmanager
def hooks_aside(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Call none of the hooks that users have put on gradients; DDP has its own way."""
    kept = []
    for parameter in parameters:
        for name in GRADIENT_HOOKS:
            # Emptied, not replaced: autograd holds on to the mapping itself.
            if hooks := getattr(parameter, name, None):
                kept.append((hooks, dict(hooks)))
                hooks.clear()
    try:
        yield
    finally:
        for hooks, own in kept:
            hooks.update(own)


def leaves_of(loss: Tensor) -> set[int]:
    """Return the ids of the leaves whose gradients a backward pass would compute."""
    nodes = {loss.grad_fn}
    waiting = list(nodes)
    leaves = set()
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        following = {n for n, _ in node.next_functions} - nodes
        nodes |= following
        waiting += following
    return leaves


class Step(nn.Module):
    """The call that computes the loss of a batch, as a module: what DDP wraps.

    ``step_fn`` therefore gets the model itself, with its methods and attributes.

    Args:
        module: the model in its wrappers.
        compute: ``(module, batch, weight) -> (loss, weight, parts)``.
        beside: modules of the loss.
        optimizer: what it moves beside all these trains, too.
    """

    def __init__(
        self,
        module: nn.Module,
        compute: Callable[..., Any],
        beside: Iterable[nn.Module],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        super().__init__()
        self.module = module
        self.beside = nn.ModuleList(beside)
        known = {id(p) for p in self.parameters()}
        groups = optimizer.param_groups
        loose = [p for g in groups for p in g["params"] if id(p) not in known]
        self.loose = nn.ParameterList(loose)
        self._compute = compute

    def forward(self, batch: Any, weight: float | None) -> Any:
        """Return (0-d mean loss, weight, parts); nothing for no weight."""
        if weight is None:
            return None
        return self._compute(self.module, batch, weight)
