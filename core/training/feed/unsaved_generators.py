"""Name the random generators that a checkpoint does not hold."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from training.feed.loader_parts import INSIDE, parts_of
from training.hardware.rng import is_generator

if TYPE_CHECKING:
    from training.feed.epoch_loader import EpochLoader

log = logging.getLogger(__name__)


def warn_of_generators(order: EpochLoader) -> None:
    """Warn of each generator that a part of a loader keeps and nobody saves.

    Each worker moves a copy of its own, so the main process could not save it either.
    A loader with a state of its own is trusted to save what it keeps, once.
    """
    if order.has_state:
        generator = getattr(order.loader, "generator", None)
        if any(generator is each for each in order.generators):
            log.warning(
                "train_dataloader is a %s with a state of its own and a generator: "
                "both say in which order it goes on, so a resume may not be exact; "
                "leave generator out",
                type(order.loader).__name__,
            )
        return
    managed = [*order.own_generators, *order.generators]
    for part in order.parts():
        names = [
            name
            for name, generator in generators_in(part).items()
            if not any(generator is each for each in managed)
        ]
        if names:
            log.warning(
                "the %s of train_dataloader keeps a random generator of its own (%s), "
                "which no checkpoint holds: a resumed run will draw other numbers; "
                "draw from the global generators of random, numpy or torch instead",
                *(type(part).__name__, ", ".join(names)),
            )


def warn_of_validation(loader: Any) -> None:
    """Warn of each generator of a validation loader that lasting workers draw from.

    What the main process draws is put back after each evaluation, and new workers begin
    with copies of what it has.
    """
    persists = getattr(loader, "persistent_workers", False)
    if not (persists and getattr(loader, "num_workers", 0)):
        return
    for part in parts_of(loader, ("dataset", "collate_fn"))[1:]:
        if names := generators_in(part):
            log.warning(
                "the %s of val_dataloader keeps a random generator of its own (%s), "
                "of which workers that persist draw on in each evaluation, and no "
                "checkpoint holds it: a resumed run will measure other numbers; leave "
                "persistent_workers out",
                *(type(part).__name__, ", ".join(names)),
            )


def warn_of_drawn(generators: Mapping[str, Any], kept: Iterable[Any]) -> None:
    """Warn of the generators that computing a loss draws from and nobody saves.

    Args:
        generators: by place, as ``Criterion`` has found them.
        kept: what is saved, generators or not.
    """
    saved = {id(each) for each in kept}
    if names := [at for at, each in generators.items() if id(each) not in saved]:
        log.warning(
            "the loss or the model keeps a random generator of its own (%s), which no "
            "checkpoint holds: a resumed run will draw its numbers from the beginning; "
            "draw from the global generators of random, numpy or torch instead, or "
            "keep its state in a callback with state_dict() and load_state_dict()",
            ", ".join(names),
        )


def drawn_in(loaders: Iterable[Any]) -> list[Any]:
    """Return the random generators that parts of loaders keep."""
    parts = [part for loader in loaders for part in parts_of(loader, INSIDE)]
    return [each for part in parts for each in generators_in(part).values()]


def generators_in(part: Any) -> dict[str, Any]:
    """Return the random generators that ``part`` keeps, by the attribute's name."""
    # Attributes only: what a closure or a list holds is not looked for.
    values = getattr(part, "__dict__", {})
    return {name: value for name, value in values.items() if is_generator(value)}
