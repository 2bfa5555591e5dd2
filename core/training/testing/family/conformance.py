"""What every model family must pass, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from training.discovery.fields import filled
from training.messages.tables import count
from training.testing.checking import assert_passes
from training.testing.family.case import FamilyCase
from training.testing.family.checks import FAMILY_CHECKS


def assert_family_conforms(
    family: Any,
    task: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    make: Callable[[], tuple[Any, Any]] | None = None,
    num_steps: int = 60,
    lr: float = 3e-3,
    skip: Collection[str] = (),
    **build: Any,
) -> None:
    """Run a model family through every check; fail with all that is wrong with it.

    Its model comes in float32 and eval mode. A batch is the model's arguments, its
    rows, and the weight of its mean loss: cut in any way, beside rows without a target,
    too, rows have the same loss. Of a row the target alone is learnt. A model that has
    learnt the rows predicts them, whether it sees targets or not, and whatever else is
    in the batch; in doing so it draws no random numbers and changes nothing. Worker
    processes can be given a copy of the family and of the processor, and JSON values
    make both again.

    Args:
        family: an instance; its ``task`` is set here.
        task: an instance.
        rows: at least four, as ``collate`` gets them, with targets of at least two
            lengths: rows that are alike show no mistake.
        make: returns (model, processor); by default ``family.build(rows, **build)``.
        num_steps: optimizer steps, on all rows at once, to learn them.
        lr: of these steps.
        skip: names of checks to leave out, as in ``FAMILY_CHECKS``.
        build: options of ``family.build``.
    Raises:
        AssertionError: one line for each thing that is wrong.
        ValueError: the rows do not do, or no check has a name in ``skip``.
    """
    targets = [str(row[task.target]) for row in rows]
    if len(rows) < 4 or len({len(target) for target in targets}) < 2:
        raise ValueError(
            f"{count(len(rows), 'row')} with the targets {targets[:4]}: too few; give "
            "at least four, with targets of at least two lengths"
        )
    family.task = task
    given = filled(family.build, build)
    make = make or (lambda: family.build(rows, **given))
    case = FamilyCase(family, task, rows, make, num_steps, lr)
    assert_passes("the family", FAMILY_CHECKS, lambda _: case, skip, decisive="batch")
