"""Go on from a checkpoint: find the newest valid one; say what has changed, and how."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from training.builtin.answers import ask_plugins
from training.checkpoint.checkpointable import Checkpointable
from training.checkpoint.compare import first_difference
from training.checkpoint_io import NOWHERE, UnreadableError, peek_state, position_of
from training.errors import CheckpointError, ConfigError, did_you_mean
from training.files.named_paths import from_here, named_path
from training.hardware.launch import job, number_of_restarts
from training.messages.error_texts import add_note, error_text

if TYPE_CHECKING:
    from training.checkpoint.receipt import Receipt

log = logging.getLogger(__name__)

AUTO = "auto"


class Resumable(Checkpointable, Protocol):
    """A trainer that takes over what was saved; ``Trainer`` documents it."""

    resume_command: str | None

    def load_checkpoint(
        self,
        path: str | Path,
        weights_only: bool = False,
        allow_changes: Collection[str] = (),
    ) -> Receipt | None:
        """Take over all state."""


def started_at(
    trainer: Resumable, choice: str | None, allowed: Collection[str] = ()
) -> str:
    """Load what a run is to begin with, if anything; return what to tell the person.

    Processes that torchrun has started anew go on where an earlier life of the job has
    saved last. Where none has, they begin as that did.

    Args:
        trainer: ready to train; takes the state.
        choice: what to resume, as the person chose; None: nothing.
        allowed: settings that may differ, as ``load_checkpoint`` takes them.
    Raises:
        CheckpointError: as ``resume``.
    """
    # An agent that was itself started anew counts from 0: who counts most is right.
    number = max(trainer.strategy.gather(number_of_restarts()))
    if not number:
        return "" if choice is None else resume(trainer, choice, allowed)
    told = f"restart {number}: "
    if trainer.bus.listeners("resume_candidates"):
        own = _found(trainer, lambda path: saved_job_id(path) == job())
        if own:
            return told + _resume_newest(trainer, own, allowed)
    if choice is not None:
        return told + resume(trainer, choice, allowed)
    return f"{told}this job has saved no checkpoint yet: starting afresh"


def saved_job_id(path: Path) -> str | None:
    """Return which job of a launcher wrote the checkpoint; None if it does not tell."""
    metadata = peek_state(path).get("metadata")
    return metadata.get("job") if isinstance(metadata, Mapping) else None


def resume(trainer: Resumable, choice: str, allowed: Collection[str] = ()) -> str:
    """Load the chosen checkpoint and return what to tell the person.

    Args:
        trainer: ready to train; takes the state.
        choice: ``"auto"`` or a file.
        allowed: settings that may differ, as ``load_checkpoint`` takes them.
    Raises:
        CheckpointError: none is valid (with every one and why), or the run differs.
        ConfigError: ``auto``, but no plugin knows where checkpoints are.
    """
    if choice != AUTO:
        try:
            return _receipt(trainer, trainer.load_checkpoint(choice, False, allowed))
        except UnreadableError as error:
            if trainer.bus.listeners("resume_candidates"):
                _note_of_folder(error, named_path(choice), trainer)
            raise
    return _resume_newest(trainer, _found(trainer), allowed)


def _note_of_folder(error: Exception, path: Path, trainer: Resumable) -> None:
    """Note that ``path`` is where this run keeps its checkpoints, if it is."""
    folders = [each.parent.resolve() for each, _ in _candidates(trainer)]
    if path.is_dir() and any(path.resolve() in (at, at.parent) for at in folders):
        add_note(error, f"this run keeps its checkpoints in it; {AUTO!r} is the newest")


def go_on(
    trainer: Resumable, choice: str | Path | None, allowed: Collection[str] = ()
) -> None:
    """Load what ``train(resume=...)`` is given, if anything; tell what was taken over.

    Args:
        trainer: ready to train; takes the state.
        choice: ``"auto"``, a path, or None.
        allowed: settings that may differ, as ``load_checkpoint`` takes them.
    Raises:
        ConfigError: it is neither of these, or there is nothing to allow changes to.
        CheckpointError: there is no such file; and as ``resume``.
    """
    if choice is None:
        if allowed:
            raise ConfigError(
                f"allow_changes is {allowed!r}, of no use without resume; pass the "
                "checkpoint, too, or give it to load_checkpoint"
            )
        return
    if not isinstance(choice, str | os.PathLike):
        raise ConfigError(
            f"resume is {choice!r}, a {type(choice).__name__}; pass 'auto', the path "
            "of a checkpoint, or None to start"
        )
    seen = trainer.strategy.gather(choice == AUTO or named_path(choice).exists())
    if not any(seen):
        raise CheckpointError(
            f"resume is {str(choice)!r}, and there is no such file"
            f"{did_you_mean(str(choice), [AUTO])}"
        )
    if not all(seen):
        blind = ", ".join(str(rank) for rank, sees in enumerate(seen) if not sees)
        raise CheckpointError(
            f"resume is {str(choice)!r}, and there is no such file for rank {blind}; "
            "keep checkpoints where all processes see them"
        )
    told = started_at(trainer, str(choice), allowed)
    if trainer.is_main:
        log.warning("%s", told)  # seen also where nobody has set up logging


def resume_hint(trainer: Resumable) -> str:
    """Return where a signal ended the run, and how to go on from there, if at all."""
    reason = trainer.stop_reason or "stopped"
    at = f"{reason} at epoch {trainer.epoch}, step {trainer.step}"
    try:
        answers = ask_plugins(trainer)
    except Exception as error:  # why the run ended is more than how to go on
        return f"{at}; where its checkpoint is cannot be told: {error_text(error)}"
    for answer in answers.values():
        file = answer.get("paths", {}).get("last_checkpoint")
        if file is not None:
            file = from_here(Path(file))
            told = f"the newest checkpoint is {file}; go on with the same options and"
            command = trainer.resume_command or f"trainer.train(resume={file!r})"
            return f"{at}; {told}: {command}"
    if trainer.resumed_from is not None:
        # May be of another folder, where the command's `auto` would not look.
        file = from_here(trainer.resumed_from)
        return (
            f"{at}; it had gone on from {file} and has saved none since; start it in "
            "the same way to go on from there"
        )
    if trainer.bus.listeners("resume_candidates"):
        return (
            f"{at}; it had saved no checkpoint yet; start it in the same way to begin "
            "again"
        )
    return (
        f"{at}; there is no checkpoint to go on from: it takes a plugin that keeps "
        "some, such as checkpointing"
    )


def _found(
    trainer: Resumable, fits: Callable[[Path], bool] = lambda _: True
) -> list[tuple[Path, str | None]]:
    """Return those of the candidates that the main process finds which fit.

    Each process would find others where files come into sight late.
    """
    return trainer.strategy.on_main(
        lambda: [each for each in _candidates(trainer) if fits(each[0])]
    )


def _resume_newest(
    trainer: Resumable,
    candidates: Iterable[tuple[Path, str | None]],
    allowed: Collection[str],
) -> str:
    """Load the first that is valid."""
    failures: list[str] = []
    for path, problem in candidates:
        if problem is None:
            try:
                receipt = trainer.load_checkpoint(path, False, allowed)
            except UnreadableError as error:
                problem = str(error)
            else:
                if failures:
                    log.warning(
                        "going back to %s: %s", path, "; ".join(failures)
                    )  # one warning, however many there are
                return _receipt(trainer, receipt)
        failures.append(f"{path}: {problem}")
    if failures:
        raise CheckpointError(
            "no checkpoint of this run is valid:\n"
            + "\n".join(failures)
            + "\nname another file to resume, or leave resume out to start"
        )
    return f"no checkpoint below {trainer.save_dir} yet: starting afresh"


def _candidates(trainer: Resumable) -> Iterator[tuple[Path, str | None]]:
    if not trainer.bus.listeners("resume_candidates"):
        raise ConfigError(
            "resume: auto finds nothing without a plugin that keeps checkpoints; "
            "enable checkpointing, or name a file in its place"
        )
    answers = trainer.bus.collect("resume_candidates", trainer=trainer)
    found = [list(each or ()) for _, each in answers]
    if len(found) > 1:  # of equals bus order decides
        found.sort(key=_reached, reverse=True)
    for each in found:
        yield from each


def _reached(candidates: Iterable[tuple[Path, str | None]]) -> tuple[int, int]:
    """Return (epoch, step) of the first of one plugin's files that tells it."""
    sound = (position_of(path) for path, problem in candidates if problem is None)
    return next((position for position in sound if position != NOWHERE), NOWHERE)


def _receipt(trainer: Resumable, receipt: Receipt | None) -> str:
    """Return the receipt, with every changed line of the configuration."""
    assert receipt is not None, "all state was asked for"
    lines = [str(receipt)]
    was = dict(_leaves(receipt.metadata.get("config", {})))
    now = dict(_leaves(trainer.metadata.get("config", {})))
    for name in sorted({*was, *now} if was else ()):
        if first_difference(was.get(name), now.get(name)) is not None:
            # "not set": the value that is set now may be the default of before.
            old, new = (repr(s[name]) if name in s else "not set" for s in (was, now))
            lines.append(f"  config {name} was {old}, is {new}")
    return "\n".join(lines)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value); a plugin in a list goes by its name."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and path == "plugins":
        for item in value:
            named = item if isinstance(item, Mapping) else {str(item): {}}
            for name, options in named.items():
                yield f"{path}.{name}", "on"
                yield from _leaves(options, f"{path}.{name}")
    else:
        yield path, value
