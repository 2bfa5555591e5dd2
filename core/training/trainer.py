"""``Trainer``: what a person builds, and how a run begins and ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.arguments import (
    check_savable,
    checked_flag,
    checked_metadata,
    checked_norm,
    checked_optimizer,
    checked_policy,
    checked_seed,
    whole_number,
)
from training.builtin.compiling import compile_options, compiled
from training.builtin.defaults import register_plugins, wrapped_module
from training.checkpoint import state as snapshot
from training.checkpoint.boundary import require_boundary
from training.checkpoint.catch_up import switches
from training.checkpoint.optimizer_state import check_optimizer
from training.checkpoint.plugin_states import restore_states
from training.checkpoint.resume import Receipt, restore
from training.checkpoint_io import write_checkpoint
from training.feed.epoch_loader import EpochLoader, refuse_one_shot
from training.feed.validation_loaders import (
    loaders_by_name,
    named_loaders,
    refuse_several,
    wrapped_loaders,
)
from training.files.named_paths import named_path
from training.hardware.device import choose_device
from training.hardware.tf32 import using_tf32
from training.layout import read_state, read_weights
from training.loop.criterion import Criterion
from training.loop.forward import LossFn, StepFn, make_forward
from training.loop.loop import Loop
from training.loop.make_window import choose_window
from training.loop.metrics import Metrics, known_names
from training.loop.precision import Precision
from training.loop.progress import Progress, Request
from training.loop.rng import seed_everything
from training.loop.train_mode import Modes, keep_frozen
from training.signals.signals import handled, interruption, shielded
from training.teardown import tear_down
from training.weighing.weigher import LossPer, Weigher

log = logging.getLogger(__name__)


class Trainer(Loop):
    """Train ``model`` on one device and announce every stage to plugins.

    Args:
        model: any module; called with a batch unless ``step_fn`` says otherwise. It is
            moved to the device.
        train_dataloader: re-iterable of batches: mappings, tuples or tensors.
        val_dataloader: re-iterable of batches for evaluation. With it, and unless a
            plugin listens to ``evaluate``, the evaluation plugin measures every epoch.
            Several are a mapping of names to loaders, or a list of DataLoaders, named
            ``"0"``, ``"1"``: each is measured, as ``val_loss/<name>`` and so on.
        optimizer: a torch optimizer over the model's parameters; required.
        scheduler: a torch LR scheduler, stepped once an epoch by the LR plugin.
        callbacks: instances with hook methods; they need no entry point.
        evaluator: object with ``evaluate(dataloader) -> mapping``, run every epoch.
        num_epochs: passes over ``train_dataloader`` in all, not in addition.
        fp16: the same as ``precision="fp16"``.
        gradient_accumulation_steps: batches of one optimizer attempt, at least 1.
        max_grad_norm: 2-norm that gradients are clipped to; None or 0: no clipping.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or None: CUDA when there is one.
        precision: ``"fp32"`` (default), ``"bf16"`` or ``"fp16"``.
        seed: seeds python, numpy and torch in ``train``, and orders the data; None
            leaves the generators alone and orders by torch's own seed.
        save_dir: folder that plugins write below.
        loss_fn: ``(outputs, targets) -> 0-d loss``, for models that return no loss. A
            module is moved to the device; what it keeps is saved and resumed.
        step_fn: ``(model, batch) -> loss``, or a mapping with ``loss`` (a mean) or
            ``loss_sum``, and ``weight``: the number of items behind it. Whatever else
            it holds, 0-d tensors or numbers by name, are logged like the loss: at
            ``on_batch_end``, and as means over a window at ``on_step_end``.
        max_steps: optimizer attempts after which training ends; None: no limit.
        plugins: installed plugins to enable, as in a configuration: names, or
            ``{name: {option: value}}``.
        processor: turns text and pictures into inputs and back; carried for plugins.
        metadata: JSON values that every checkpoint carries.
        nonfinite: ``"stop"`` raises on a NaN or infinite loss or gradient, ``"skip"``
            drops that window; the weights stay untouched either way.
        stop_on_sigusr1: SIGUSR1 ends the run as SIGTERM does; else it only saves.
        tf32: whether fp32 products may round their factors to TF32 while ``train``
            runs; None leaves the process's own switches alone.
        compile: compile the forward pass: True, or arguments of ``torch.compile``.
        cuda_graphs: record the work of a step once and replay it, which takes the
            launching of kernels off the CPU. Python in the forward pass then runs only
            while recording, so it must not depend on data. Where it cannot be done
            (see ``window_choice``) a warning says why.
        loss_per: what the loss of a batch is a mean over: ``"samples"``, ``"labels"``,
            ``"shifted_labels"``, ``"sum"``, ... (see ``weighing/units``), or a function
            ``batch -> float``. None: what the batch or ``step_fn`` says, else it is
            measured on the first batch.
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
        num_epochs: int = 1,
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
        metadata: Mapping[str, Any] | None = None,
        nonfinite: str = "stop",
        stop_on_sigusr1: bool = False,
        tf32: bool | None = None,
        compile: bool | Mapping[str, Any] = False,  # noqa: A002  # as torch has it
        cuda_graphs: bool = False,
        loss_per: LossPer | None = None,
    ) -> None:
        fp16 = checked_flag("fp16", fp16)
        optimizer = checked_optimizer(optimizer, Precision.choose(precision, fp16))
        refuse_one_shot(train_dataloader, "train_dataloader")
        refuse_several(train_dataloader)
        self.device = choose_device(device)
        forward = make_forward(loss_fn, step_fn)
        super().__init__(
            Precision(Precision.choose(precision, fp16), self.device),
            forward,
            Weigher(loss_per, forward, loss_fn, loss_fn is None and step_fn is None),
        )
        self.model = model.to(self.device)
        self._weigher.prepare(self.model, self.device)
        self.criterion = Criterion(step_fn if loss_fn is None else loss_fn, self.model)
        self.criterion.to(self.device)
        self._weigher.beside = self.criterion.held_modules()
        self._weigher.autocast = self.autocast
        self.modes = Modes({"model": self.model, **self.criterion.modules()})
        keep_frozen(self.model, optimizer)
        self.train_dataloader = train_dataloader
        self.val_dataloader = self._given_val = named_loaders(val_dataloader)
        self.optimizer = optimizer
        check_optimizer(self)
        self.scheduler = scheduler
        self.processor = processor
        self.num_epochs = whole_number("num_epochs", num_epochs)
        self.max_steps = (
            None if max_steps is None else whole_number("max_steps", max_steps)
        )
        self.gradient_accumulation_steps = whole_number(
            "gradient_accumulation_steps", gradient_accumulation_steps
        )
        self.max_grad_norm = checked_norm(max_grad_norm)
        self.seed = checked_seed(seed)
        self.order_seed = torch.initial_seed() if self.seed is None else self.seed
        self.save_dir = named_path(save_dir)
        self.metadata = checked_metadata(metadata)
        self.nonfinite = checked_policy(nonfinite)
        self.stop_on_sigusr1 = checked_flag("stop_on_sigusr1", stop_on_sigusr1)
        self.tf32 = None if tf32 is None else checked_flag("tf32", tf32)
        self.cuda_graphs = checked_flag("cuda_graphs", cuda_graphs)
        self._compile = compile_options(compile, self.cuda_graphs)
        register_plugins(self, callbacks or (), plugins or (), evaluator)

    def save_checkpoint(self, path: str | Path) -> Path:
        """Write all state durably to ``path``; call it in ``on_checkpoint``.

        Raises:
            CheckpointError: the file could not be written, or a window, an evaluation
                or an event is under way and a run that went on from here would be
                another (see ``boundary``); nothing is lost.
        """
        require_boundary(self, path)
        return write_checkpoint(path, snapshot.capture(self))

    def load_checkpoint(
        self,
        path: str | Path,
        weights_only: bool = False,
        allow_changes: Collection[str] = (),
    ) -> Receipt | None:
        """Take over all state, so that ``train`` goes on where it was saved.

        Args:
            path: a file that ``save_checkpoint`` wrote.
            weights_only: take the model's weights and nothing else.
            allow_changes: names of settings, such as ``"seed"`` or ``"optimizer.lr"``,
                whose new values shall hold; any other change that would make the rest
                another run is an error that lists both values.
        Returns: what was taken over and what differs; None with ``weights_only``.
        Raises:
            CheckpointError: the file is damaged, foreign, or does not fit this run.
        """
        state = read_weights(path) if weights_only else read_state(path)
        if weights_only:
            snapshot.check_model(self, state, str(path))
            snapshot.restore_model(self, state)
            return None
        self._remember_options()
        self.switches_before = switches(self)
        receipt = restore(self, state, str(path), allow_changes)
        self.carried_states = dict(state["plugins"])
        self._resume = state
        self.is_in_window = False
        self.resumed_from = named_path(path)
        return receipt

    def train(self) -> None:
        """Train until the plan is done or a plugin's request ends it.

        Starts afresh from the current weights, or, after ``load_checkpoint``, goes on.
        SIGTERM, SIGHUP and SIGINT end it at the next boundary, after a checkpoint, with
        ``SystemExit(143)``, ``SystemExit(129)`` and ``KeyboardInterrupt``; SIGUSR1 asks
        for one, or with ``stop_on_sigusr1`` ends it, too, with ``SystemExit(138)``.
        """
        failure: BaseException | None = None
        started = time.perf_counter()
        self._is_running = True
        self.bus.begin_run(self)
        save = None if self.stop_on_sigusr1 else self._save_on_signal
        with handled(self._stop_on_signal, save):  # until all are closed
            try:
                with using_tf32(self.tf32):
                    self._run()
                if self._signal is not None:
                    raise interruption(self._signal)
            except BaseException as error:
                failure = error
            self.train_seconds = time.perf_counter() - started
            failure = tear_down(self, failure)
        self._is_running = False
        if failure is not None:
            raise failure

    def _run(self) -> None:
        resume = self._begin()
        self._set_up()
        try:
            evaluated = loaders_by_name(self.val_dataloader).values()
            with shielded(self._order.reading, *evaluated):
                self._train(resume)
        except BaseException:
            if self._order.watched is not None:
                self._order.watched.end()
            raise

    def _train(self, resume: dict[str, Any] | None) -> None:
        if resume is not None:
            snapshot.restore_optimizer(self, resume)
        restore_states(self)
        if self.bus.on_train_begin is not None:
            self.bus.on_train_begin(self, resume is not None)
        if self._plan_is_done():
            log.warning(
                "nothing to train: %d epochs, %d steps were already done; raise "
                "num_epochs or max_steps to go on",
                self.epoch,
                self.step,
            )
        self._run_epochs(resume)
        if self._signal is not None:
            raise interruption(self._signal)
        if self._stop is None:
            done = (
                f"max_steps={self.max_steps} reached"
                if self.epoch < self.num_epochs
                else f"num_epochs={self.num_epochs} reached"
            )
            self._stop = Request("stop", "trainer", done, self.step, self.epoch)
        if self.bus.on_train_end is not None:
            self.bus.on_train_end(self)

    def _begin(self) -> dict[str, Any] | None:
        """Reset what a run counts, unless a checkpoint was just loaded; return that."""
        resume, self._resume = self._resume, None
        self._wrapped_loader = None
        self._stop = self._signal = None
        self.is_in_window = False
        self._asked = dict(resume.get("asked", {})) if resume else {}
        self._unsettled.clear()
        self.weights_are = "live"
        if resume is not None:  # on_setup sees what is configured, not what was saved
            for group, own in zip(
                self.optimizer.param_groups, self.configured_groups or (), strict=False
            ):
                for name in group.keys() - own.keys() - {"params"}:
                    del group[name]  # such as the initial_lr of the saved run
                group.update(own)
        else:
            self.progress = Progress()
            self._history.clear()
            self._requests.clear()
            self.metrics = Metrics()
            self.carried_states = {}
            self.joining_groups = []
            self.resumed_from = self.epoch_state = None
            self.owed = {}
            self._weigher.reset()
        keep_frozen(self.model, self.optimizer)
        self._remember_options()
        if self.seed is not None:
            seed_everything(self.seed)
        return resume

    def _remember_options(self) -> None:
        """Note the optimizer's options as configured, before training moves any."""
        if self.configured_groups is None:
            self.configured_groups = [
                {name: value for name, value in group.items() if name != "params"}
                for group in self.optimizer.param_groups
            ]

    def _set_up(self) -> None:
        """Let plugins wrap and prepare; then learn which metrics will be produced."""
        bus, module = self.bus, wrapped_module(self)
        is_wrapped = module is not self.model
        module = compiled(module, self._compile)
        train = self.train_dataloader
        if bus.wrap_dataloader is not None:
            self._wrapped_loader = bus.wrap_dataloader(self, train, "train")
            if self._wrapped_loader is not None:
                train = self._wrapped_loader
            # Not the wrapped ones of an earlier train.
            self.val_dataloader = wrapped_loaders(self, self._given_val)
        self._order = EpochLoader(train, self.order_seed)
        if bus.on_setup is not None:
            bus.on_setup(self)
        check_optimizer(self, tell_untrained=True)
        make = choose_window(
            self.optimizer,
            self._precision,
            self.nonfinite,
            self.cuda_graphs,
            is_wrapped,
        )
        self._window = make(
            module,
            self.optimizer,
            self._forward,
            self._precision,
            self.gradient_accumulation_steps,
            self.max_grad_norm,
            self.nonfinite,
        )
        self._weigher.prepare(
            self.model,
            self.device,
            self._order.reading,
            min(self.gradient_accumulation_steps, self.batches_per_epoch or 2**31),
            self._window,
        )
        self.metrics.known_names = known_names(
            dict(bus.collect("metric_names", trainer=self)),
            [impl.plugin_name for impl in bus.listeners("evaluate")],
        )
        check_savable(self)
