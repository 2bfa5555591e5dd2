"""``Trainer``: what a person builds, trains with, saves and loads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.arguments.attributes import set_between_runs, shown
from training.arguments.checks import (
    check_settings,
    checked_callbacks,
    checked_flag,
    checked_folder,
    checked_metadata,
    checked_model,
    checked_reason,
)
from training.arguments.epochs import Epochs
from training.builtin.compiling import compile_options, refuse_two_recorders
from training.builtin.defaults import built_in, register_plugins
from training.builtin.placing import chosen_strategy, placed
from training.builtin.resume import go_on
from training.bus.bus import Bus
from training.bus.made_parts import noted
from training.checkpoint import state as snapshot
from training.checkpoint.boundary import require_boundary
from training.checkpoint.optimizer_state import ConfiguredOptions, check_parameters
from training.checkpoint.receipt import Receipt
from training.checkpoint.resume import restore
from training.checkpoint.resumption import Resumption
from training.checkpoint_io import write_checkpoint
from training.errors import CheckpointError, ConfigError
from training.feed.batches import batch_to_device
from training.feed.epoch_loader import refuse_one_shot
from training.feed.feed import Feed
from training.feed.validation_loaders import named_loaders, refuse_several
from training.files.named_paths import named_path
from training.hardware.device import choose_device
from training.hardware.rng import seed_of_state
from training.hardware.strategy import Strategy
from training.layout import read_by_all
from training.loop.criterion import Criterion
from training.loop.forward import LossFn, StepFn, make_forward
from training.loop.loop import Loop
from training.loop.precision import Precision
from training.loop.run_state import RunState
from training.modules.frozen_weights import FrozenWeights
from training.modules.optimizer_checks import checked_optimizer
from training.modules.train_mode import Modes, keep_frozen
from training.planned.length import RunLength
from training.recipes.recipe import Recipe
from training.run import Run, Validation
from training.signals.holding import held
from training.view import MetricValue, Request
from training.weighing.make_weigher import weigher_of
from training.weighing.weigher import LossPer


@set_between_runs
class Trainer:
    """Train ``model`` on one device and announce every stage to plugins.

    ``view.TrainerView`` has what plugins see of it.

    Args:
        model: put on the device; called with batches unless ``step_fn`` says otherwise.
        train_dataloader: re-iterable of batches: mappings, tuples or tensors.
        val_dataloader: re-iterable of batches for evaluation. With it the evaluation
            plugin measures every epoch, unless a plugin that ``reads_validation`` does.
            Several are a mapping of names to loaders, or a list of DataLoaders, named
            ``"0"``, ``"1"``: each is measured, as ``val_loss/<name>`` and so on.
        optimizer: a torch optimizer over the model's parameters; required.
        scheduler: a torch LR scheduler, stepped once an epoch by the LR plugin.
        callbacks: instances with hook methods; they need no entry point.
        evaluator: object with ``evaluate(dataloader) -> mapping``, run every epoch, the
            model in eval mode and without gradients.
        num_epochs: passes over the data in all; None: what ``max_steps`` takes, else 1.
        fp16: the same as ``precision="fp16"``.
        gradient_accumulation_steps: batches of one optimizer attempt, at least 1.
        max_grad_norm: 2-norm that gradients are clipped to; None or 0: no clipping.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or None: CUDA when there is one.
        precision: ``"fp32"`` (default), ``"bf16"`` or ``"fp16"``.
        seed: seeds python, numpy and torch while ``train`` runs, and orders the data;
            None leaves them alone and orders by where torch's generator then stands.
        save_dir: folder that plugins write below.
        loss_fn: ``(outputs, targets) -> 0-d loss``, for models that return no loss. A
            module is moved to the device; what it keeps is saved and resumed.
        step_fn: ``(model, batch) -> loss``, or a mapping with ``loss`` (a mean) or
            ``loss_sum``, and ``weight``: the number of items behind it. Other numbers
            or 0-d tensors in it are logged as the loss is, by name: an epoch's means as
            ``train_<name>`` and ``val_<name>``. Called to measure, too (``loss_per``).
        max_steps: optimizer attempts after which training ends; None: no limit.
        plugins: installed plugins to enable, as in a configuration: names, or
            ``{name: {option: value}}``. ``progress`` and ``run_record`` (in
            ``save_dir``) are on unless ``"no:NAME"`` or another of the name is passed.
        processor: turns what rows hold into inputs and back; carried for plugins.
        recipe: task, family, processor of a configuration; carried for plugins.
        metadata: JSON values that every checkpoint and the run's record carry.
        nonfinite: ``"stop"`` raises on a NaN or infinite loss or gradient, ``"skip"``
            drops that window; the weights stay untouched either way.
        stop_on_sigusr1: SIGUSR1 ends the run as SIGTERM does; else it only saves.
        tf32: whether fp32 products may round their factors to TF32 while ``train``
            runs; None leaves the process's own switches alone.
        compile: compile the forward pass: True, or arguments of ``torch.compile``.
        cuda_graphs: record the work of a step once and replay it, which takes the
            launching of kernels off the CPU. Python in the forward pass then runs only
            while recording, so it must not depend on data. A warning says why not.
        loss_per: what the loss of a batch is a mean over: ``"samples"``, ``"labels"``,
            ``"shifted_labels"``, ``"sum"``, ... (see ``weighing/units``), or a function
            ``batch -> float``, where batch and ``step_fn`` do not say it. None: it is
            measured on the first batch, or defined (torch's own cross entropy).
    Raises:
        ConfigError: an argument does not fit; the message says which and how.
    """

    def __init__(
        self,
        model: nn.Module,
        train_dataloader: Iterable[Any],
        val_dataloader: Iterable[Any] | Mapping[str, Iterable[Any]] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: Any = None,
        callbacks: Sequence[Any] | None = None,
        evaluator: Any = None,
        num_epochs: int | None = None,
        fp16: bool = False,
        gradient_accumulation_steps: int = 1,
        max_grad_norm: float | None = None,
        device: str | torch.device | None = None,
        *,
        precision: str | None = None,
        seed: int | None = None,
        save_dir: str | Path = "runs",
        loss_fn: LossFn | None = None,
        step_fn: StepFn | None = None,
        max_steps: int | None = None,
        plugins: Sequence[str | Mapping[str, Any]] | None = None,
        processor: Any = None,
        recipe: Recipe | None = None,
        metadata: Mapping[str, Any] | None = None,
        nonfinite: str = "stop",
        stop_on_sigusr1: bool = False,
        tf32: bool | None = None,
        compile: bool | Mapping[str, Any] = False,  # noqa: A002  # as torch has it
        cuda_graphs: bool = False,
        loss_per: LossPer | None = None,
    ) -> None:
        precision = Precision.choose(precision, checked_flag("fp16", fp16))
        optimizer = checked_optimizer(optimizer, precision)
        refuse_one_shot(train_dataloader, "train_dataloader")
        refuse_several(train_dataloader)
        self.device = choose_device(device)
        forward = self._forward = make_forward(loss_fn, step_fn, loss_per)
        how = step_fn if loss_fn is None else loss_fn
        self._weigher_of = partial(weigher_of, loss_per, forward, loss_fn, how is None)
        self.model, given = checked_model(model), checked_callbacks(callbacks or ())
        self.criterion = Criterion(how, model, given)
        self.bus, self._configured = Bus(), ConfiguredOptions()
        keep_frozen(model, optimizer)
        self.train_dataloader = train_dataloader
        self._val_dataloader = named_loaders(val_dataloader)
        self.optimizer, self._scheduler = optimizer, scheduler
        self.processor, self.recipe = processor, recipe
        self.num_epochs, self.max_steps = num_epochs, max_steps
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.max_grad_norm, self.nonfinite = max_grad_norm, nonfinite
        self.seed = seed
        self._drawn_seed: int | None = None
        self.save_dir = checked_folder(save_dir)
        self.metadata = checked_metadata(metadata)
        check_settings(self)
        self.stop_on_sigusr1 = checked_flag("stop_on_sigusr1", stop_on_sigusr1)
        self._tf32 = None if tf32 is None else checked_flag("tf32", tf32)
        self._cuda_graphs = checked_flag("cuda_graphs", cuda_graphs)
        options = compile_options(compile)
        check_parameters(self)
        self.bus.register_all((None, each) for each in built_in(self._tf32, options))
        register_plugins(
            *(self.bus, given, plugins or (), scheduler),
            *(self._val_dataloader, evaluator, self._cuda_graphs),
        )
        refuse_two_recorders(options, self.plugins)
        self._place(precision)

    def _place(self, precision: str) -> None:
        """Let a strategy put all that is trained where it runs: plugins are there."""
        self._strategy = strategy = chosen_strategy(self)
        try:
            self.device = placed(strategy, self.model, self.optimizer, self.device)
            self._precision = Precision(precision, self.device)
            self.criterion.to(self.device)
            roots = {"model": self.model, **self.criterion.modules()}
            self.modes = Modes(roots, self.criterion.function)
            self._run = self._new_run()
        except BaseException as error:
            strategy.close(noted(error, self.bus.made))
            raise

    def save_checkpoint(
        self, path: str | Path, frozen: FrozenWeights | None = None
    ) -> Path:
        """Write all state durably to ``path``; call it in ``on_checkpoint``.

        Args:
            path: of the file, which the main process writes; all call this. Where
                ``strategy.saves_parts``, of a folder into which each of them writes.
            frozen: weights to leave out of the file.
        Raises:
            CheckpointError: the file could not be written, or a window, an evaluation
                or an event is under way and a run that went on from here would be
                another (see ``boundary``), or what was set since loading would be
                another run; nothing is lost.
        """
        require_boundary(self, path)
        if self._run.pending_resumption is not None:
            self._run.pending_resumption.check()
        strategy, kept = self.strategy, frozen.leave_out if frozen else dict
        state = snapshot.capture(self, whole=not strategy.saves_parts)
        if strategy.saves_parts:
            return strategy.save(named_path(path), kept(state))
        return strategy.on_main(lambda: write_checkpoint(path, kept(state)))

    def load_checkpoint(
        self,
        path: str | Path,
        weights_only: bool = False,
        allow_changes: Collection[str] = (),
    ) -> Receipt | None:
        """Take over all state, so that ``train`` goes on where it was saved.

        Args:
            path: a file that ``save_checkpoint`` wrote; all processes read it.
            weights_only: take the model's weights and nothing else.
            allow_changes: names of settings, such as ``"seed"`` or ``"optimizer.lr"``,
                whose new values shall hold; any other that matters is an error.
        Returns: what was taken over and what differs; None with ``weights_only``.
        Raises:
            CheckpointError: the file is damaged, foreign, or does not fit this run.
        """
        state = read_by_all(self.strategy, path, weights_only)
        if weights_only:
            snapshot.take_weights(self, state, str(path))
            return None
        if self.bus.is_in_run:
            raise CheckpointError(
                f"{str(path)!r} was not loaded: a run is under way, whose place stays; "
                "load it before train(), or take weights alone (weights_only=True)"
            )
        self._configured.adopt_changes(self.optimizer)
        run = self._new_run(named_path(path))
        receipt, rest = restore(self, run.state, state, str(path), allow_changes)
        self._drawn_seed = state["settings"]["seed"]
        self._run = run.resume_from(rest)
        self._configured.leave(self.optimizer)
        return receipt

    def train(
        self, resume: str | Path | None = None, allow_changes: Collection[str] = ()
    ) -> None:
        """Train until the plan is done or a plugin's request ends it.

        Starts afresh, or goes on after ``load_checkpoint``, or from ``resume``: a
        checkpoint, or with ``"auto"`` the newest valid one of this run, if any;
        ``allow_changes`` then are those of ``load_checkpoint``.
        SIGTERM, SIGHUP and SIGINT end it at the next boundary, after a checkpoint, with
        ``SystemExit(143)``, ``SystemExit(129)`` and ``KeyboardInterrupt``; SIGUSR1 asks
        for one, or with ``stop_on_sigusr1`` ends it, too, with ``SystemExit(138)``.
        """
        if self.bus.is_in_run:
            raise ConfigError(
                "train() was called while a run of this trainer is under way; call it "
                "when that has ended, or build another trainer"
            )
        with held():  # reading a checkpoint lasts
            go_on(self, resume, allow_changes)
            check_settings(self)  # they may be others since
            self.optimizer = checked_optimizer(self.optimizer, self.precision)
            if self._run.pending_resumption is not None:
                self._run.pending_resumption.check()  # settings may be others since
            else:
                self._run.require_begun()
                self._drawn_seed = self._strategy.on_main(seed_of_state)
                self._run = self._new_run()
            with self._configured.moved(self.optimizer):
                self._run()

    num_epochs = Epochs()
    resume_command: str | None = None  #: To type after a signal; None: in Python.
    # What plugins were built from, and with; another one would be without effect.
    scheduler: Any = shown("_scheduler")
    tf32: bool | None = shown("_tf32")
    cuda_graphs: bool = shown("_cuda_graphs")
    strategy: Strategy = shown("_strategy")
    # What the run shows that is on, was last, or waits for train().
    state: RunState = shown("_run.state")
    epoch: int = shown("_run.state.progress.epoch")
    step: int = shown("_run.state.progress.step")
    update: int = shown("_run.state.update")
    batches_seen: int = shown("_run.state.progress.batch")
    history: list[dict[str, Any]] = shown("_run.state.rows")
    metrics: Mapping[str, MetricValue] = shown("_run.state.metrics")
    requests: tuple[Request, ...] = shown("_run.state.requests.noted")
    pending: dict[str, str] = shown("_run.state.requests.pending")
    stop_reason: str | None = shown("_run.state.requests.stop_reason")
    stop_owner: str | None = shown("_run.state.requests.stop_owner")
    resumed_from: Path | None = shown("_run.state.resumed_from")
    group_places: list[int | None] = shown("_run.state.group_places")
    val_dataloader: Validation = shown("_run.val_dataloader")
    batches_per_epoch: int | None = shown("_run.batches_per_epoch")
    length: RunLength = shown("_run.length")
    steps_per_epoch: int | None = shown("_run.length.steps_per_epoch")
    total_steps: int | None = shown("_run.length.total_steps")
    ends_epoch: bool = shown("_run.ends_epoch")
    is_stopping: bool = shown("_run.is_stopping")
    is_extra_evaluation: bool = shown("_run.is_extra_evaluation")
    resumption: Resumption | None = shown("_run.resumption")
    feed: Feed | None = shown("_run.feed")
    loop: Loop | None = shown("_run.loop")
    train_seconds: float = shown("_run.seconds")
    configured_groups: list[dict[str, Any]] | None = shown("_configured.groups")
    precision: str = shown("_precision.name")
    grad_scaler: torch.amp.GradScaler | None = shown("_precision.scaler")
    plugins: Mapping[str, Any] = shown("bus.plugins")
    rank: int = shown("strategy.rank")
    world_size: int = shown("strategy.size")
    is_main: bool = shown("strategy.is_main")

    @property
    def order_seed(self) -> int:
        """The seed that orders the data: as passed, drawn, loaded, or as of now."""
        known = self._drawn_seed if self.seed is None else self.seed
        return seed_of_state() if known is None else known

    @property
    def weights_are(self) -> str:
        """``"live"``, or which weights a plugin put in place: ``"best@120"``."""
        return self.state.weights_are

    @weights_are.setter
    def weights_are(self, label: str) -> None:
        self.state.use_weights(label)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of the run's forward passes; does nothing in fp32."""
        return self._precision.autocast()

    def compute_loss(
        self,
        batch: Any,
        samples: int | None = None,
        moved: Any = None,
        parts: dict[str, Tensor | float] | None = None,
    ) -> tuple[Tensor, float]:
        """Return (0-d mean loss, weight) of one batch, as ``TrainerView`` has it."""
        weigher = self.state.weigher
        weight = weigher.evaluated(batch, samples)
        with self.autocast():
            inputs = batch_to_device(batch, self.device) if moved is None else moved
            loss, weight, beside = self._forward(self.model, inputs, weight)
        if parts is not None:
            parts.update(beside)
        return (loss / weight if weigher.is_sum and weight else loss), weight

    def require_metric(self, name: str, owner: str, mode: str | None = None) -> None:
        """Raise ``MetricError`` with near matches if nobody will produce ``name``."""
        self.state.metrics.require(name, owner, mode)

    def request_stop(self, reason: str) -> None:
        """End training at the next boundary; the first request is the one kept."""
        self.state.requests.ask("stop", checked_reason("stop", reason))

    def request_checkpoint(self, reason: str) -> None:
        """Fire ``on_checkpoint`` at the next boundary, or the one being served."""
        self.state.requests.ask("checkpoint", checked_reason("checkpoint", reason))

    def request_evaluation(self, reason: str) -> None:
        """Fire ``evaluate`` and ``on_metrics`` at the next boundary."""
        self.state.requests.ask("evaluation", checked_reason("evaluation", reason))

    def abandon_if_leaving(self) -> None:
        """End an evaluation that a signal makes pointless; between its batches."""
        self._run.abandon(together=False)

    def abandon_together(self) -> None:
        """As ``abandon_if_leaving``; each process calls it once for each batch."""
        self._run.abandon(together=True)

    def _new_run(self, resumed_from: Path | None = None) -> Run:
        beside, how = self.criterion.begin(self.optimizer), self.autocast
        weigher = self._weigher_of(beside=beside, autocast=how, strategy=self.strategy)
        weigher.prepare(self.model, self.device)
        state = RunState(self.bus, weigher, self.strategy, resumed_from)
        return Run(self, state, self._val_dataloader, self._forward, self._precision)
