"""One call of ``train``: from the first wrapper to the last event."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from training.arguments.epochs import epoch_limit, planned_end
from training.arguments.savable import check_savable
from training.builtin.first_steps import watched
from training.builtin.placing import wrapped_module
from training.builtin.resume import Resumable, resume_hint
from training.builtin.runs_at_once import among_others, seed_run
from training.builtin.unsaved import watch_unsaved
from training.bus.conditions import is_heard
from training.bus.made_parts import noted
from training.checkpoint.settings import require_same, set_before_hooks
from training.checkpoint.trained import Untrained
from training.errors import CheckpointError
from training.feed.divided_loader import epoch_loader
from training.feed.feed import Feed
from training.feed.unsaved_generators import drawn_in
from training.feed.validation_loaders import loaders_by_name, wrapped_loaders
from training.feed.workers import ending
from training.hardware.draws import Draws
from training.loop.loop import Loop
from training.loop.make_window import choose_window, made_window, shared_window
from training.loop.metrics import owners_of
from training.loop.requests import Abandoned
from training.messages.error_texts import tell
from training.messages.tables import count
from training.modules.train_mode import keep_frozen
from training.planned.length import RunLength, num_batches
from training.signals.handlers import handled, interruption
from training.signals.shield import shielded
from training.teardown import note_batches, tear_down
from training.weighing.untouched import undrawn

if TYPE_CHECKING:
    from torch import nn

    from training.checkpoint.resumption import Resumption
    from training.feed.workers import Watched
    from training.loop.forward import Forward
    from training.loop.precision import Precision
    from training.loop.run_state import RunState
    from training.loop.window import Window

log = logging.getLogger(__name__)

#: One loader, several by name, or none.
Validation = Iterable[Any] | Mapping[str, Iterable[Any]] | None


class Runnable(Resumable, Protocol):
    """The settings of a trainer that decide how it runs; ``Trainer`` documents them."""

    stop_on_sigusr1: bool


class Run:
    """Sets up what a trainer was built with, runs it once, and ends it.

    Args:
        trainer: whose settings hold.
        state: of this run, new or loaded.
        val_dataloader: what was passed.
        forward: computes the loss of a batch.
        precision: autocast and loss scaler.
    Attributes:
        resumption: what it goes on from; None: it starts afresh.
        pending_resumption: the same until it begins, which may be refused.
        val_dataloader: what was passed, or what plugins made of it; several by name.
        feed: gives out batches, once it is set up; as are ``window`` and ``loop``.
        is_set_up: whether plugins are set up.
        seconds: spent, once the run has ended.
    """

    def __init__(
        self,
        trainer: Runnable,
        state: RunState,
        val_dataloader: Validation,
        forward: Forward,
        precision: Precision,
    ) -> None:
        self.trainer = trainer
        self.state = state
        self.bus = trainer.bus
        self._forward = forward
        self._precision = precision
        self.resumption: Resumption | None = None
        self.pending_resumption: Resumption | None = None
        self.val_dataloader = val_dataloader
        passed = loaders_by_name(val_dataloader).values()
        self._users = [trainer.train_dataloader, *passed]
        self._train_loader: Iterable[Any] | None = None  # what a plugin made of it
        self.feed: Feed | None = None
        self.window: Window | None = None
        self.loop: Loop | None = None
        self._look_at_thawed: Callable[[], None] = lambda: None
        self.is_set_up = False
        self.seconds = 0.0
        #: Of each process's loader, where these are parts already.
        self._lengths: list[int | None] | None = None
        self._learn_lengths()

    def __call__(self) -> None:
        """Run until the plan is done or a request ends it; then close all plugins."""
        trainer, requests = self.trainer, self.state.requests
        failure: BaseException | None = None
        started = time.perf_counter()
        save = None if trainer.stop_on_sigusr1 else requests.save_on_signal
        # Until all are closed.
        hears = handled(requests.stop_on_signal, save, requests.are_shared)
        with among_others(trainer), hears:
            try:
                self.bus.begin_run(trainer)  # from here on no Ctrl-C raises
                self._run()
                if requests.signal is not None:
                    raise interruption(requests.signal)
            except BaseException as error:
                # First: it looks for the note of a hook, and ``noted`` adds like ones.
                note_batches(error, self.loop, self.watched)
                at = self.state.progress.step
                failure = noted(error, self.bus.made, at, self._users)
            self.seconds = time.perf_counter() - started
            is_kept = requests.failure is not None  # let go of in tearing down
            failure = tear_down(trainer, failure, self.watched)
        if failure is None and requests.heard is not None:
            failure = interruption(requests.heard)  # it came in closing
        if failure is not None:
            if (is_kept or requests.heard is not None) and trainer.is_main:
                tell(failure, resume_hint(trainer))
            raise failure

    def resume_from(self, resumption: Resumption) -> Run:
        """Let this run take over what was loaded, when it begins; return it."""
        self.resumption = self.pending_resumption = resumption
        return self

    def require_begun(self) -> None:
        """Refuse to begin anew after a loaded run that never went on.

        Raises:
            CheckpointError: its weights are in the model, and its place is lost.
        """
        if self.resumption is not None and not self.resumption.has_gone_on:
            raise CheckpointError(
                f"the run that was loaded from {str(self.state.resumed_from)!r} ended "
                "before it went on; load it again, as with train(resume=...), or build "
                "model, optimizer and Trainer anew: these hold what was loaded"
            )

    @property
    def batches_per_epoch(self) -> int | None:
        """Batches of an epoch; None for a loader without a length."""
        if self._lengths is None:
            return num_batches(self._loader)
        known = [each for each in self._lengths if each is not None]
        return max(known) if len(known) == len(self._lengths) else None

    @property
    def _loader(self) -> Iterable[Any]:
        """The batches to train on: what a plugin made of the loader, or that itself."""
        made = self._train_loader
        return self.trainer.train_dataloader if made is None else made

    @property
    def length(self) -> RunLength:
        """How long the run is, as planned from what is known now."""
        return RunLength(
            self.batches_per_epoch,
            epoch_limit(self.trainer),
            self.trainer.gradient_accumulation_steps,
            self.trainer.max_steps,
        )

    @property
    def ends_epoch(self) -> bool:
        """Whether the latest step is the last of its epoch; False if unknown."""
        at, length = self.state.progress, self.batches_per_epoch
        return bool(at.step and length and at.batch in (0, length))

    @property
    def is_stopping(self) -> bool:
        """Whether the boundary at hand is the last one of the run."""
        return self.state.requests.stop is not None or self._is_done()

    @property
    def is_extra_evaluation(self) -> bool:
        """Whether a run with more steps would not measure what is measured here."""
        loop = self.loop  # the run may go on: a plugin may raise max_steps
        return loop is not None and loop.is_extra and loop.row_is_due

    @property
    def watched(self) -> Watched | None:
        """The batches of the epoch under way, where they come from indices."""
        return None if self.feed is None else self.feed.watched

    def abandon(self, together: bool) -> None:
        """End the evaluation under way, if there is one and the run leaves.

        Args:
            together: whether every process calls this here. Otherwise nothing happens
                on several: each may be at another place.
        """
        requests, loop = self.state.requests, self.loop
        if loop is None or not loop.is_evaluating:
            return
        if requests.are_shared and not together:
            return
        requests.agree()
        if requests.signal is not None:
            raise Abandoned

    def _run(self) -> None:
        self.pending_resumption = None
        self.bus.choose_listeners(is_heard)
        self._begin()
        feed, window = self._set_up()
        validation = loaders_by_name(self.val_dataloader).values()
        try:
            # Ended when no shield keeps them at work any more.
            with (
                ending([feed.reading, *validation]),
                shielded(feed.reading, *validation),
            ):
                self._train(feed, window)
        except BaseException:
            feed.end(kills=True)
            raise
        feed.end(kills=False)

    def _begin(self) -> None:
        trainer = self.trainer
        if self.resumption is not None:
            self.resumption.show_configured()
        keep_frozen(trainer.model, trainer.optimizer)
        trainer.modes.begin()
        seed_run(trainer)

    def _set_up(self) -> tuple[Feed, Window]:
        """Let plugins wrap and prepare; then make what trains, and look at it all."""
        trainer, bus = self.trainer, self.bus
        # First: a loaded checkpoint is compared with what no hook has changed yet.
        self.state.begun_with.update(set_before_hooks(trainer))
        module = wrapped_module(trainer)
        self._wrap_loaders()
        self._require_same()
        users, strategy = trainer.train_dataloader, trainer.strategy
        order = epoch_loader(self._loader, trainer.order_seed, strategy, users)
        self.feed = feed = Feed(order, trainer.device, self.batches_per_epoch)
        if bus.on_setup is not None:
            bus.on_setup(trainer)
        self.is_set_up = True
        self._require_same()  # again: a plugin may have frozen a layer on one of them
        self._look_at_thawed = Untrained(trainer).look
        self.window = window = self._make_window(module)
        self._prepare_weigher(feed, window)
        self._learn_metric_names()
        check_savable(trainer)
        watch_unsaved(trainer, self.state, order, self._validation())
        return feed, window

    def _prepare_weigher(self, feed: Feed, window: Window) -> None:
        trainer = self.trainer
        batches_a_window = trainer.gradient_accumulation_steps
        if self.batches_per_epoch:
            batches_a_window = min(batches_a_window, self.batches_per_epoch)
        self.state.weigher.prepare(
            trainer.model, trainer.device, feed.reading, batches_a_window, window
        )

    def _learn_metric_names(self) -> None:
        bus = self.bus
        names = _known_names(
            dict(bus.collect("metric_names", trainer=self.trainer)),
            [impl.plugin_name for impl in bus.listeners("evaluate")],
        )
        # Those of the main process hold for all: it may call more plugins.
        self.state.metrics.known_names = self.trainer.strategy.on_main(lambda: names)

    def _undrawn(self) -> AbstractContextManager[None]:
        """Put back at the end what is drawn from generators of the loaders and loss."""
        trainer = self.trainer
        loaders = [self._users[0], self._loader, *self._validation()]
        kept = trainer.criterion.generators.values()
        return undrawn([*drawn_in(loaders), *kept])

    def _validation(self) -> list[Iterable[Any]]:
        """Return the loaders that were passed, and what plugins made of them."""
        return [*self._users[1:], *loaders_by_name(self.val_dataloader).values()]

    def _require_same(self) -> None:
        if self.trainer.strategy.is_divided:
            require_same(self.trainer, loaders_by_name(self.val_dataloader))

    def _learn_lengths(self) -> None:
        strategy = self.trainer.strategy
        if strategy.is_divided and strategy.data == "own":
            self._lengths = strategy.gather(num_batches(self._loader))

    def _make_window(self, module: nn.Module) -> Window:
        """Let a plugin choose what steps; else it is the kernel's own choice."""
        trainer, strategy = self.trainer, self.trainer.strategy
        optimizer, accumulation = trainer.optimizer, trainer.gradient_accumulation_steps
        policy = trainer.nonfinite
        default = choose_window(optimizer, self._precision, policy, accumulation)
        parts = (
            module,
            optimizer,
            strategy.wrap_forward(module, self._forward),
            self._precision,
            accumulation,
            trainer.max_grad_norm,
            policy,
        )

        def made(name: str, make: Any) -> Window:
            return shared_window(made_window(name, make, *parts), name, strategy)

        window: Window | None = self.bus.first(
            "make_window", made, trainer=trainer, module=module, default=default
        )
        if window is None:
            return watched(shared_window(default(*parts), None, strategy), trainer)
        return window

    def _wrap_loaders(self) -> None:
        """Let plugins replace loaders."""
        trainer, bus = self.trainer, self.bus
        if bus.wrap_dataloader is None:
            return

        def wrap(loader: Iterable[Any], stage: str) -> Any:
            given = {"trainer": trainer, "dataloader": loader, "stage": stage}
            last = bus.chain("wrap_dataloader", "dataloader", lambda *_: None, **given)
            return None if last is loader else last

        self._train_loader = wrap(trainer.train_dataloader, "train")
        self._learn_lengths()
        self.val_dataloader = wrapped_loaders(
            lambda loader: wrap(loader, "validation"), self.val_dataloader
        )

    def _train(self, feed: Feed, window: Window) -> None:
        trainer, state, requests = self.trainer, self.state, self.state.requests
        if self.resumption is not None:
            self.resumption.take_over()
        draws = Draws(trainer.device, self._undrawn)
        self.loop = Loop(
            trainer, state, feed, window, trainer.modes, draws, self._catch_up
        )
        if self.bus.on_train_begin is not None:
            self.bus.on_train_begin(trainer, self.resumption is not None)
        if self._is_done() and not state.has_pending_row(trainer.max_steps):
            log.warning(
                "nothing to train: %s, %s already done; raise num_epochs or max_steps "
                "to go on",
                count(trainer.epoch, "epoch"),
                count(trainer.step, "step"),
            )
        self.loop.run()
        if requests.failure is not None:
            raise requests.failure
        if requests.signal is not None:
            raise interruption(requests.signal)
        requests.finish(planned_end(trainer))
        if self.bus.on_train_end is not None:
            self.bus.on_train_end(trainer)
        requests.agree()

    def _catch_up(self) -> None:
        if self.resumption is not None:
            self.resumption.catch_up()
        self._look_at_thawed()

    def _is_done(self) -> bool:
        progress = self.state.progress
        return self.length.is_over(progress.epoch, progress.step)


def _known_names(
    declared: Mapping[str, Collection[str] | None], producers: Iterable[str]
) -> frozenset[str] | None:
    """Return the metrics a run will produce; None when a producer does not say.

    Raises:
        PluginError: two plugins declared one name.
    """
    owners = owners_of({name: own or () for name, own in declared.items()})
    # One that does not say may yet deliver any name: nothing can be refused.
    if any(declared.get(producer) is None for producer in producers):
        return None
    return frozenset(owners)
