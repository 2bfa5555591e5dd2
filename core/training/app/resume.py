"""Go on from a checkpoint: find the newest valid one, and say what has changed."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from training.checkpoint.compare import first_difference
from training.checkpoint_io import UnreadableError
from training.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from training.checkpoint.resume import Receipt
    from training.trainer import Trainer

__all__ = ["AUTO", "resume"]

log = logging.getLogger(__name__)

AUTO = "auto"


def resume(trainer: Trainer, choice: str, allowed: Collection[str] = ()) -> str:
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
        return _receipt(trainer, trainer.load_checkpoint(choice, False, allowed))
    failures: list[str] = []
    # The main process looks: each would find others where files come into sight late.
    for path, problem in trainer.strategy.on_main(lambda: [*_candidates(trainer)]):
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
            + "\ngive another file with --resume FILE, or leave --resume out to start"
        )
    return f"no checkpoint below {trainer.save_dir} yet: starting afresh"


def _candidates(trainer: Trainer) -> Iterator[tuple[Path, str | None]]:
    if not trainer.bus.listeners("resume_candidates"):
        raise ConfigError(
            "--resume auto finds nothing without a plugin that keeps checkpoints; "
            "enable checkpointing, or name a file: --resume FILE"
        )
    for _, found in trainer.bus.collect("resume_candidates", trainer=trainer):
        yield from found or ()


def _receipt(trainer: Trainer, receipt: Receipt | None) -> str:
    """Return the receipt, with every changed line of the configuration."""
    assert receipt is not None, "all state was asked for"
    lines = [str(receipt)]
    was = dict(_leaves(receipt.metadata.get("config", {})))
    now = dict(_leaves(trainer.metadata.get("config", {})))
    for name in sorted({*was, *now} if was else ()):
        if first_difference(was.get(name), now.get(name)) is not None:
            lines.append(f"  config {name} was {was.get(name)!r}, is {now.get(name)!r}")
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
