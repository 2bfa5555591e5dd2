"""Checks of what a plugin is and keeps: signatures, state, resume, clean-up."""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from training.bus.bus import Bus
from training.bus.callback import Callback
from training.bus.declared import api_mistake
from training.checkpoint.compare import entries_of_each
from training.checkpoint.storable import OF_STATE, describe_foreign, foreign_value
from training.checkpoint_io import read_checkpoint
from training.discovery.signature import signature_mistakes
from training.hardware.rng import rng_state
from training.loop.requests import Abandoned
from training.messages.error_texts import add_note, notes_of, repr_of
from training.testing.case import Case
from training.testing.equality import difference, run_difference, state_of, without
from training.trainer import Trainer

#: Events at which a neighbour raises, one run each.
RAISING = (
    *("on_setup", "on_train_begin", "on_epoch_begin", "on_batch_begin"),
    *("on_batch_end", "on_before_step", "on_step_end", "evaluate", "on_metrics"),
    *("on_epoch_end", "on_checkpoint", "on_train_end"),
)

#: What there is to say of a plugin that any release will take.
NO_API = 'hook_api is not declared; write hook_api = ">=1.0,<2"'
#: What there is to say of an error of who hears metrics.
INSIDE = (
    "an evaluation may be asked for inside an epoch, as after its first step here, and "
    "has no train_loss"
)


def check_signatures(case: Case) -> list[str]:
    """Whether the bus takes it, and this release has the hook API it is written for.

    What the bus warns of, such as a method that is never called, is remarked on.
    """
    plugin = case.make()
    with _keeping_warnings(case.remarks):
        Bus().register(plugin)  # raises what is wrong
    problems = []
    if getattr(plugin, "hook_api", None) is None:
        case.remarks.append(NO_API)
    elif complaint := api_mistake(plugin.hook_api):
        problems.append(complaint)
    return problems + signature_mistakes(type(plugin))


@contextmanager
def _keeping_warnings(kept: list[str]) -> Iterator[None]:
    """Add to ``kept`` what the bus logs: nobody sees the log of tests that pass."""
    handler = _Keeper(kept)
    logger = logging.getLogger("training.bus")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Keeper(logging.Handler):
    """Adds to ``kept`` what is warned of."""

    def __init__(self, kept: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        """Keep its message."""
        self._kept.append(record.getMessage())


def check_state(case: Case) -> list[str]:
    """Whether the state is a mapping that a checkpoint can carry unchanged."""
    plugin = case.make()
    if not hasattr(plugin, "state_dict"):
        return []
    trainer = case.trainer("run", plugin)
    trainer.train()
    state = plugin.state_dict()
    if not isinstance(state, Mapping):
        return [f"state_dict returned {type(state).__name__}; return a mapping"]
    # First: what no checkpoint can hold may be of a kind that cannot be compared.
    if (foreign := foreign_value(dict(state), depth=OF_STATE)) is not None:
        return [f"in what state_dict returns {describe_foreign(*foreign)}"]
    problems, again = [], dict(plugin.state_dict())
    if found := case.compared(
        lambda own: difference(without(state, own), without(again, own))
    ):
        problems.append(f"asking for the state changes it: {found}")
    file = io.BytesIO()
    torch.save(dict(state), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    if found := difference(dict(state), loaded):
        problems.append(f"a checkpoint changes the state: {found}")
    return problems


def check_resume(case: Case) -> list[str]:
    """Whether a run resumed at any boundary ends like the one that went through.

    Its batches are shuffled: a plugin may keep some, or read them in its own order. One
    that ``max_steps`` ends inside an epoch goes on like it, too. An id that is the same
    from the boundary on is that of the checkpoint; what moves with a clock is free.
    """
    case = case.shuffled()
    plugin = case.make()
    saver = BoundarySaver(case.folder / "boundaries", case.name_of(plugin))
    whole = case.trainer("whole", plugin, saver)
    try:
        whole.train()
    except Exception as error:
        if "in on_metrics at step" in "".join(notes_of(error)):
            add_note(error, INSIDE)
        raise

    def difference_of(
        run: Trainer, begun: int, file: Path, own: Collection[str]
    ) -> str:
        name, moving = saver.watched, own
        if own:  # an id that has stayed is that of the checkpoint
            saved = read_checkpoint(file)["plugins"][name]
            moving = {*own} & entries_of_each(saved, state_of(whole, name))
        return run_difference(run, whole, name, begun=begun, own=moving)

    problems = []
    for boundary in saver.saved:
        file = boundary / "checkpoint.pt"
        fresh = case.make()
        again = BoundarySaver(case.folder / "resumed", saver.watched, keep=False)
        run = case.trainer(f"boundaries/{boundary.name}/run", fresh, again)
        run.load_checkpoint(file)
        begun = run.step
        run.train()
        if found := case.compared(partial(difference_of, run, begun, file)):
            problems.append(f"after a resume at {boundary.name}, {found}")
    if problems:
        problems[0] += (
            "; what it carries from one call to the next must be in what state_dict "
            "returns, and load_state_dict take it over"
        )
    return problems[:3] or _cut_short(case, whole, saver.watched)


def _cut_short(case: Case, whole: Trainer, name: str) -> list[str]:
    """Return how a run differs from ``whole`` that had an end inside its last epoch.

    Where nobody asked for metrics, and where the saver does: that is no extra one.
    """
    length = whole.steps_per_epoch
    first = whole.step - (whole.step - 1) % (length or 1)
    for cut in sorted({whole.step - 1, first}, reverse=True):
        if not length or cut < 1 or cut % length == 0 or cut == whole.step:
            continue
        ends = BoundarySaver(case.folder / f"ends_{cut}", name, cut=cut)
        case.trainer(f"cut_{cut}", case.make(), ends).train()
        again = BoundarySaver(case.folder / "again", name, keep=False)
        place = ends.saved[-1]
        run = case.trainer(f"ends_{cut}/{place.name}/run", case.make(), again)
        run.load_checkpoint(place / "checkpoint.pt")
        run.train()
        # The row of the part stays in the history, and may be the best in a state.
        part = ("history", "state", "requests")
        if found := run_difference(run, whole, name, ignored=part):
            says = f"after an end by max_steps inside an epoch, {found}; there "
            way = "on_epoch_end fires, too: ask trainer.is_extra_evaluation in it"
            return [says + way]
    return []


def check_second_run(case: Case) -> list[str]:
    """Whether an instance that has trained trains like a fresh one."""
    used, fresh = case.make(), case.make()
    name = case.name_of(used)
    case.trainer("first", used).train()
    second, reference = case.trainer("second", used), case.trainer("fresh", fresh)
    second.train()
    reference.train()
    found = case.compared(lambda own: run_difference(second, reference, name, own=own))
    second.train()  # the same trainer once more
    return [f"in a second run of one instance, {found}"] if found else []


def check_neighbours(case: Case) -> list[str]:
    """Whether it closes without an error when another plugin raises.

    And whether it has put back by then what it had changed for an evaluation.

    Raises:
        Exception: of the plugin, by itself: no neighbour had a part in it.
    """
    problems = []
    for kind in (RuntimeError, KeyboardInterrupt):
        for hook in RAISING:
            plugin, error = case.make(), kind(f"a neighbour raises in {hook}")
            neighbour = type("Neighbour", (Callback,), {hook: _raising(error)})()
            trainer = case.trainer(f"{kind.__name__}_{hook}", plugin, neighbour)
            try:
                trainer.train()
            except BaseException as raised:
                if error.__traceback__ is None:
                    raise  # by itself: it hides nothing, and other checks say it
                if raised is not error:
                    problems.append(f"{repr_of(raised)} hides {error!r}")
                problems += [
                    f"when a neighbour raises in {hook}: {note}"
                    for note in notes_of(raised)
                    if note.startswith("then ")
                ]
    return problems[:3] or _left_changed(case)


def _left_changed(case: Case) -> list[str]:
    """Return what differs where an evaluation is left, as for a signal, and saved."""
    plugin = case.make()
    name = case.name_of(plugin)
    leaves = LeavesEvaluation(name, case.folder / "left.pt")
    case.trainer("left", plugin, leaves).train()
    problems = [
        f"an evaluation that is left, as for a signal, leaves other {what}, and the "
        "run is saved: put back in `finally` around the `yield` what was changed for it"
        for what, value in leaves.saved.items()
        if difference(leaves.found[what], value)
    ]
    if problems or not leaves.saved:
        return problems
    run, whole = case.trainer("left", case.make()), case.trainer("stayed", case.make())
    run.load_checkpoint(leaves.file)
    begun = run.step
    run.train()
    whole.train()
    # What was swapped in an earlier hook of the step was found so, too.
    found = case.compared(
        lambda own: run_difference(run, whole, name, begun=begun, own=own)
    )
    says = "after an evaluation that is left, as for a signal, and a resume, "
    way = (
        "; change nothing for an evaluation before `evaluate`, put it back there, and "
        "count in on_metrics or on_epoch_end: one that is left is made again"
    )
    return [says + found + way] if found else []


def _raising(error: BaseException) -> Any:
    def raise_it(self: Any) -> None:
        raise error

    return raise_it


class LeavesEvaluation(Callback):
    """Leaves the first evaluation after a step, and compares what is saved then.

    Args:
        watched: name of the plugin under test; this one is called after it.
        file: receives a checkpoint of what is saved then.
    """

    name = "kit_leaves"

    def __init__(self, watched: str, file: Path) -> None:
        self.after = (watched,)  # type: ignore[misc]
        self.file = file
        self.found: dict[str, Any] = {}
        self.saved: dict[str, Any] = {}

    def on_step_end(self, trainer: Trainer) -> None:
        """Note what an evaluation finds."""
        self.found = _seen(trainer)

    def evaluate(self, trainer: Trainer) -> None:
        """Leave it, and the run."""
        if self.found:
            trainer.request_stop("as a signal does")
            raise Abandoned

    def on_checkpoint(self, trainer: Trainer, reason: str) -> None:
        """Note what is saved."""
        if reason == "stop":
            self.saved = _seen(trainer)
            trainer.save_checkpoint(self.file)


def _seen(trainer: Trainer) -> dict[str, Any]:
    model = trainer.model
    return {
        "weights": {k: v.detach().clone() for k, v in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "requires_grad": [each.requires_grad for each in model.parameters()],
        "random numbers": rng_state(trainer.device),
        "weights_are": trainer.weights_are,
    }


class BoundarySaver(Callback):
    """Asks for a boundary after each step, and saves the run at every one.

    After the first step of an epoch it asks for an evaluation, too.

    Args:
        folder: receives a folder for each boundary: a checkpoint, and a copy of what
            the run had written by then.
        watched: name of the plugin under test; saving comes after it.
        keep: False asks for the same boundaries and saves nothing.
        cut: the step after which ``max_steps`` ends the run, whatever was planned.
    """

    name = "kit_saver"

    def __init__(
        self, folder: Path, watched: str, keep: bool = True, cut: int | None = None
    ) -> None:
        self.folder = folder
        self.watched = watched
        self.after = (watched,)  # type: ignore[misc]
        self.keep = keep
        self.cut = cut
        self.saved: list[Path] = []

    def on_step_end(self, trainer: Any) -> None:
        """Ask for a boundary."""
        if trainer.step == self.cut:
            trainer.max_steps = self.cut
        trainer.request_checkpoint("every step")
        if trainer.step % (trainer.steps_per_epoch or 4) == 1:
            trainer.request_evaluation("inside an epoch")

    def on_checkpoint(self, trainer: Any, reason: str) -> None:
        """Save."""
        if not self.keep:
            return
        title = reason.replace(" ", "_")
        place = self.folder / f"epoch_{trainer.epoch}_step_{trainer.step}_{title}"
        trainer.save_checkpoint(place / "checkpoint.pt")
        if trainer.save_dir.is_dir():
            shutil.copytree(trainer.save_dir, place / "run")
        self.saved.append(place)
