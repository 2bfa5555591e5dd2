"""What every plugin must pass, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from training.testing.answers import check_answers
from training.testing.behaviour import (
    check_neighbours,
    check_resume,
    check_second_run,
    check_signatures,
    check_state,
)
from training.testing.case import Case
from training.testing.checking import assert_passes
from training.testing.influence import check_cost, check_mutation, check_reads
from training.testing.many_processes import check_processes

#: Name -> check, in the order they run.
CHECKS: Mapping[str, Callable[[Case], list[str]]] = {
    "signatures": check_signatures,
    "state": check_state,
    "answers": check_answers,
    "resume": check_resume,
    "second run": check_second_run,
    "neighbours": check_neighbours,
    "mutation": check_mutation,
    "device reads": check_reads,
    "cost": check_cost,
    "processes": check_processes,
}


def assert_plugin_conforms(
    make: Callable[[], Any],
    *,
    folder: str | Path,
    skip: Collection[str] = (),
    max_seconds: float = 1e-3,
    **options: Any,
) -> None:
    """Run a plugin through every check; fail with all that is wrong with it.

    Signatures fit this hook API; that no range of it is declared is a remark, told
    beside what is wrong, else as a warning. State is small talk between a checkpoint
    and the plugin: a mapping that survives ``weights_only``. What it answers when it is
    asked is of the kind that the hook says.
    A resume at every boundary ends like the uninterrupted run, and a second run of the
    same instance like one of a fresh instance. When a neighbour raises at any event,
    the plugin cleans up without an error of its own. Its hooks change what ``mutates``
    declares and nothing else; per-batch hooks read the device seldom, or say so in
    ``reads_device``; and they take little time. On two processes, where the plugin
    ``distributed`` is installed, both decide alike, none waits for the other alone,
    and each file is written by one.

    Args:
        make: returns a fresh instance, always configured the same way.
        folder: where the runs write.
        skip: names of checks to leave out, as in ``CHECKS``.
        max_seconds: median time that a call of a per-batch hook may take.
        options: as for ``tiny_trainer``: what the runs need for the plugin to work.
    Raises:
        AssertionError: one line for each thing that is wrong.
    """
    remarks: list[str] = []

    def case_of(name: str) -> Case:
        own = Path(folder, name.replace(" ", "_"))
        return Case(make, own, options, max_seconds, remarks)

    assert_passes("the plugin", CHECKS, case_of, skip, "signatures", remarks)
