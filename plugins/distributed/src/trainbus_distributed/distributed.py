"""Divides a run over the processes that torchrun started."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Gt

from trainbus_distributed.divisor import Divisor
from trainbus_distributed.group import Group
from training import ConfigError, checked_options, hookimpl
from training.callbacks import Callback
from training.plugin import number_started

if TYPE_CHECKING:
    from torch import nn

    from trainbus_distributed.divided_window import DividedWindow
    from trainbus_distributed.strategy import GroupStrategy
    from training import Trainer
    from training.plugin import Plan, PlannedRun

#: Options by which processes exchange.
SHARED = ("engine", "shard_modules", "checkpoint", "data", "find_unused_parameters")


class DistributedCallback(Callback):
    """Divide the run over the processes that torchrun started; alone, do nothing.

    A run on N processes is the run of one process, divided: the loader's batch is the
    global batch, and each process computes its part of it.

    Args:
        engine: ``"ddp"``: each process has the whole model; ``"fsdp2"``: its part.
        shard_modules: for fsdp2, names of classes that are sharded by themselves; none:
            the model's own ``_no_split_modules``.
        checkpoint: ``"full"``: one file, which any number of processes reads;
            ``"sharded"`` (fsdp2): a folder into which each process writes its part.
        data: ``"split"``: each process takes its part of every batch; ``"own"``: its
            loader yields its own part already.
        find_unused_parameters: whether the forward pass may leave out parameters,
            others in each batch; gradients are then exchanged after every batch.
        sync_batchnorm: normalise over all processes; this release refuses it.
        timeout: seconds that a process waits for the others.
    """

    name = "distributed"
    hook_api = ">=1.1,<2"

    @checked_options
    def __init__(
        self,
        engine: Literal["ddp", "fsdp2"] = "ddp",
        shard_modules: Sequence[str] = (),
        checkpoint: Literal["full", "sharded"] = "full",
        data: Literal["split", "own"] = "split",
        find_unused_parameters: bool = False,
        sync_batchnorm: bool = False,
        timeout: Annotated[float, Gt(0)] = 600.0,
    ) -> None:
        self.engine = engine
        self.shard_modules = tuple(shard_modules)
        self.checkpoint = checkpoint
        self.saves_parts = checkpoint == "sharded"
        self.data = data
        self.find_unused_parameters = find_unused_parameters
        self.sync_batchnorm = sync_batchnorm
        self.timeout = timeout
        self._refuse_contradictions()
        self._strategy: GroupStrategy | None = None
        self._divisor = Divisor()

    def plan(self, run: PlannedRun) -> Plan:
        """Return who would compute and write what."""
        # Late: a run itself need not import it.
        from trainbus_distributed.plan import plan_of

        return plan_of(run, self.engine, self.data)

    def make_strategy(self, trainer: Trainer) -> GroupStrategy | None:
        """Return the engine; None where there is one process.

        Raises:
            ConfigError: the run is to record CUDA graphs.
        """
        if number_started() == 1:
            return None
        if "cuda_graphs" in trainer.plugins:
            raise ConfigError(
                f"cuda_graphs is on and the run is of {number_started()} processes, "
                "whose exchange cannot be recorded; leave cuda_graphs out"
            )
        self._strategy = self._engine(trainer)
        return self._strategy

    def _engine(self, trainer: Trainer) -> GroupStrategy:
        # Late: a run of one process need import none of these.
        from trainbus_distributed.alike import require_same_options

        group = Group(self.timeout)
        require_same_options({name: getattr(self, name) for name in SHARED}, group)
        common = (trainer, group, self.data)
        if self.engine == "fsdp2":
            from trainbus_distributed.fsdp2 import FSDP2Strategy

            return FSDP2Strategy(*common, self.shard_modules, self.saves_parts)
        from trainbus_distributed.ddp import DDPStrategy

        return DDPStrategy(*common, self.find_unused_parameters)

    def _refuse_contradictions(self) -> None:
        is_ddp = self.engine == "ddp"
        for name, is_wrong, needed in (
            ("shard_modules", is_ddp and self.shard_modules, "fsdp2"),
            ("checkpoint", is_ddp and self.checkpoint == "sharded", "fsdp2"),
            (
                "find_unused_parameters",
                not is_ddp and self.find_unused_parameters,
                "ddp",
            ),
        ):
            if is_wrong:
                raise ConfigError(
                    f"distributed.{name} is {getattr(self, name)!r} and engine is "
                    f"{self.engine!r}; use engine {needed!r}, or leave {name} out"
                )
        if self.sync_batchnorm:
            raise ConfigError(
                "distributed.sync_batchnorm is true, which this release does not do "
                "yet: BatchNorm normalises by each process's part of a batch; leave it "
                "out, or use layers that do not look across rows, such as GroupNorm"
            )

    def make_window(
        self, trainer: Trainer, module: nn.Module, default: type[Any]
    ) -> Callable[..., DividedWindow] | None:
        """Return what makes the window of many processes."""
        if self._strategy is None:
            return None
        # Late: see above.
        from trainbus_distributed.divided_window import DividedWindow

        length = trainer.batches_per_epoch

        def is_last(number: int) -> bool:
            if number == trainer.gradient_accumulation_steps:
                return True
            # The counter stands at the batches before this window.
            return length is not None and trainer.batches_seen + number == length

        return partial(
            DividedWindow,
            strategy=self._strategy,
            divisor=self._divisor,
            is_last=is_last,
        )

    @hookimpl(wrapper=True)
    def on_checkpoint(self) -> Iterator[None]:
        """Refuse to save, or to go on, where the processes' weights have parted.

        Around all who write. Also where a signal ends the run: what main would save
        then is no state that all have trained to, and what was saved before it is.

        Raises:
            PluginError: a plugin or a script has changed them on some only.
        """
        if self._strategy is not None:
            self._strategy.require_alike()
        yield

    def state_dict(self) -> Mapping[str, Any]:
        """Return what the next window divides by, where there are many processes."""
        return {} if self._divisor.value is None else {"divisor": self._divisor.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what the next window divides by."""
        self._divisor.value = state.get("divisor")
