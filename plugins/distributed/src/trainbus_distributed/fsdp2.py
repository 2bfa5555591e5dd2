"""The engine FSDP2: each process has its part of weights, gradients and moments."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.utils import _pytree as pytree

from trainbus_distributed.group import Group
from trainbus_distributed.sharded.checkpoint import ShardedSave
from trainbus_distributed.sharded.gradients import ShardedGradients
from trainbus_distributed.sharded.plan import check_kinds, check_types, modules_to_shard
from trainbus_distributed.sharded.state import gathered, parted
from trainbus_distributed.strategy import GroupStrategy
from training import ConfigError
from training.plugin import GradientCheck, StandIn

if TYPE_CHECKING:
    from training import Trainer

log = logging.getLogger(__name__)


class FSDP2Strategy(GroupStrategy):
    """Shards the model; what the loss holds beside it is replicated.

    Args:
        trainer: that is being built.
        group: the processes of the run.
        data: as ``Strategy.data``.
        shard_modules: names of classes that are gathered by themselves.
        saves_parts: as ``Strategy.saves_parts``.
    """

    passes_together = True
    parts = (DTensor,)

    def __init__(
        self,
        trainer: Trainer,
        group: Group,
        data: str,
        shard_modules: Sequence[str],
        saves_parts: bool = False,
    ) -> None:
        super().__init__(trainer, group, data)
        self.saves_parts = saves_parts
        self._names = tuple(shard_modules)
        self._model: Any = None
        self._exchanges = True
        self._has_length = True
        #: What the model returned for the batch in hand, until its weight is known.
        self._outputs: list[Any] = []
        self._is_called = self._is_training = self._has_gathered = False
        #: Each parameter as it is -> as passes compute with it.
        self._whole: dict[nn.Parameter, nn.Parameter] = {}
        self._lost: Exception | None = None

    def place(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> nn.Module:
        """Shard the model in place; the weights of the main process hold.

        Raises:
            ConfigError: the optimizer has a state already, or moves in one group what
                is sharded and what is not; or the model cannot be sharded.
        """
        self._model = model
        self.check(model)
        if not isinstance(model, FSDPModule):  # by an earlier trainer
            self._shard(model, optimizer, device)
        model.register_forward_pre_hook(self._note_call)
        model.register_forward_hook(self._note_outputs)
        return model

    def wrap_forward(
        self, module: nn.Module, forward: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Return ``forward``, which must call the model: that gathers its weights."""
        self._has_length = self.trainer.batches_per_epoch is not None
        if self._has_gathered:  # gradients that a run which failed may have left
            self._reset()
        # Whoever registers a method knows that the model must be called.
        own = vars(self._model).items()
        registered = {name for name, each in own if isinstance(each, MethodType)}
        is_free = bool(registered - {"generate"})
        self.watch_buffers(self._model, *self.trainer.criterion.modules().values())

        def sharded_forward(module: nn.Module, batch: Any, weight: float) -> Any:
            if self._lost is not None:
                raise ConfigError(
                    "inside of a window the gradient of its loss could not be measured "
                    f"({self._lost}); say with loss_per what the loss is a mean over"
                ) from self._lost
            self._is_called, self._is_training = is_free, True
            try:
                result = forward(module, batch, weight)
            except RuntimeError as error:
                if self._is_called:
                    raise
                raise self._not_called() from error
            finally:
                self._is_training = False
            if not self._is_called:
                raise self._not_called()
            if result[1] > 0.0 and not isinstance(weight, StandIn):
                self._outputs.clear()  # their memory is not kept until the backward
            return result

        return sharded_forward

    def exchanges(self, is_last: bool) -> bool:
        """Whether this batch exchanges: without a length it may be the last one."""
        return is_last or not self._has_length

    def exchanging(self, exchanges: bool) -> AbstractContextManager[Any]:
        """Let the gradients of earlier batches wait, whole, for the last one."""
        if exchanges != self._exchanges:  # it looks at each module of the model
            self._model.set_requires_gradient_sync(exchanges)
            self._exchanges = exchanges
        return super().exchanging(exchanges)

    def empty_loss(self, loss: Tensor, exchanges: bool) -> Tensor | None:
        """Return a 0 of what the model returned, whose gradient is 0 and no 0/0.

        It goes backward in any batch: the others gather weights there, and wait.
        """
        # What a backward pass can start from, as FSDP2 finds it.
        leaves = pytree.tree_leaves(self._outputs)
        outputs = [t for t in leaves if isinstance(t, Tensor) and t.requires_grad]
        self._outputs.clear()
        if not outputs:
            return super().empty_loss(loss, exchanges)
        # In float32 before the 0: fp16 may not hold a loss scale, and 0 * inf is NaN.
        reals = [(t.real if t.is_complex() else t).float() for t in outputs]
        return torch.stack([real.sum() * 0.0 for real in reals]).sum()

    def exchanged(self, parameter: nn.Parameter) -> bool:
        """Whether it is sharded."""
        return isinstance(parameter, DTensor)

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average those that are not sharded.

        Raises:
            ConfigError: the gradients of the others were never exchanged.
        """
        if any(isinstance(parameter, DTensor) for parameter in parameters):
            raise ConfigError(
                "train_dataloader ended before the number of batches that its len() "
                "tells, and fsdp2 has not exchanged the gradients of its last window; "
                "let len() tell the true number, or leave it out"
            )
        super().average(parameters)

    def gradients(
        self, loss: Tensor, parameters: Sequence[nn.Parameter]
    ) -> Sequence[Tensor | None]:
        """Return whole gradients; those that wait for a last batch stay as they are.

        They take as much memory as the whole model does.
        """
        if not self._whole:
            self._whole = whole_parameters(self._model)
        whole = [self._whole.get(parameter, parameter) for parameter in parameters]
        self._model.set_requires_gradient_sync(False)
        try:
            return torch.autograd.grad(loss, whole, allow_unused=True)
        except Exception as error:
            self._lost = None if self._exchanges else error  # gradients that wait
            self._reset()
            raise
        finally:
            self._model.set_requires_gradient_sync(self._exchanges)

    def gradient_check(self, parameters: Sequence[nn.Parameter]) -> GradientCheck:
        """Return what looks at the whole gradient."""
        return ShardedGradients(parameters, self.group)

    def full(self, state: Any) -> Any:
        """Return ``state`` with sharded tensors whole, on the host of main alone."""
        with self.telling():
            return gathered(state, self.group)

    def own(self, state: Any, like: Any) -> Any:
        """Return ``state`` with this process's part where ``like`` is sharded."""
        return parted(state, like)

    def begin_save(
        self,
        path: Path,
        state: dict[str, Any],
        copy: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> ShardedSave:
        """Begin a folder of the parts of all processes."""
        self.require_all("begin_save")
        with self.telling():
            return ShardedSave(path, state, self.group, copy)

    def _reset(self) -> None:
        """Forget a pass that did not come to an end, and gradients that wait."""
        if hasattr(self._model, "reset_iter_state"):  # before 2.13 torch has none
            self._model.reset_iter_state()

    def _shard(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> None:
        if optimizer.state:
            raise ConfigError(
                f"the {type(optimizer).__name__} has a state already, of whole "
                "parameters, and fsdp2 shards them; build a new optimizer, and load a "
                "checkpoint when the trainer is built"
            )
        is_fused = any(group.get("fused") for group in optimizer.param_groups)
        if is_fused and not isinstance(optimizer, torch.optim.Adam):
            raise ConfigError(
                f"torch has no fused {type(optimizer).__name__} of sharded parameters; "
                "build it without fused=True, or use engine ddp"
            )
        check_kinds(model)
        apart = modules_to_shard(model, self._names)
        check_types(model, apart)
        if not apart and self.is_main:
            log.warning(
                "fsdp2 gathers all of %s at once; name classes of its layers in "
                "distributed.shard_modules to gather one at a time",
                type(model).__name__,
            )
        names = [name for name, _ in model.named_parameters()]
        before = dict(model.named_parameters())
        self.share_weights(model, device)
        mesh = init_device_mesh(device.type, (self.size,))
        for module in apart:
            fully_shard(module, mesh=mesh)
        # Also the root lets go of its weights after a forward pass: between steps they
        # are what the optimizer has.
        fully_shard(model, mesh=mesh, reshard_after_forward=True)
        after = dict(model.named_parameters())
        self._point(optimizer, {before[name]: after[name] for name in names})
        if callable(getattr(model, "generate", None)):
            register_fsdp_forward_method(model, "generate")

    def _point(
        self,
        optimizer: torch.optim.Optimizer,
        sharded: dict[nn.Parameter, nn.Parameter],
    ) -> None:
        """Let the optimizer move the sharded parameters in place of those they were."""
        for index, group in enumerate(optimizer.param_groups):
            # In place: some optimizers keep the list itself.
            group["params"][:] = [sharded.get(p, p) for p in group["params"]]
            if len({isinstance(p, DTensor) for p in group["params"]}) > 1:
                raise ConfigError(
                    f"group {index} of the optimizer holds parameters of the model, "
                    "which fsdp2 shards, beside those of the loss, which it does not; "
                    "put those of the loss into a group of their own"
                )
        held = {id(value) for value in self.trainer.criterion.tensors().values()}
        if any(id(parameter) in held for parameter in sharded):
            raise ConfigError(
                "the step or loss function holds a parameter of the model by itself, "
                "which fsdp2 replaces by its part of it; let it read the model's "
                "attribute when it is called"
            )

    def _not_called(self) -> ConfigError:
        kind = type(self._model).__mro__[2].__name__
        return ConfigError(
            f"the step function computes without calling the model ({kind}), whose "
            "weights fsdp2 gathers when it is called: call model(...), or register the "
            "method that is called with torch.distributed.fsdp."
            "register_fsdp_forward_method(trainer.model, NAME) before train()"
        )

    def _note_call(self, module: nn.Module, arguments: Any) -> None:
        self._is_called = self._has_gathered = True

    def _note_outputs(self, module: nn.Module, arguments: Any, outputs: Any) -> None:
        if self._is_training:
            self._outputs.append(outputs)


def whole_parameters(model: nn.Module) -> dict[nn.Parameter, nn.Parameter]:
    """Return for each sharded parameter what it is in a pass; all processes gather."""
    whole: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        if not isinstance(module, FSDPModule):
            continue
        module.reshard()  # where a pass has raised
        before = dict(module.named_parameters())
        module.unshard()
        after = dict(module.named_parameters())
        whole.update((before[n], p) for n, p in after.items() if p is not before[n])
        module.reshard()
    return whole
