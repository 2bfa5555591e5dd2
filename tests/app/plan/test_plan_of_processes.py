"""A plan says which process would compute, write and print what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]

PLAN = ("plan", "run.yaml", "-p", "distributed", "-p", "csv")


def test_it_says_who_gets_what(workplace: Path, command: Command) -> None:
    _, output, _ = command(*PLAN, "--processes", "3", "--set", "data.batch_size=4")
    assert (
        "processes    3, engine ddp; a step is of 1 batch of 4 rows in all\n"
        "               rank 0 gets 2 rows of each batch\n"
        "               ranks 1 to 2 get 1 row of each batch\n"
        "               rank 0 writes and prints: the run record, csv\n"
    ) in output
    assert "conflicts: none found" in output


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--processes", "2"), "ranks 0 to 1 get 1 row of each batch"),
        (("--processes", "3"), "rank 2 gets nothing to compute: batches are too small"),
        (
            ("--processes", "2", "--set", "plugins.distributed.data=own"),
            "each reads what its own loader yields",
        ),
        (
            ("--processes", "2", "--set", "training.gradient_accumulation_steps=2"),
            "a step is of 2 batches of 2 rows in all",
        ),
    ],
)
def test_it_tells_the_parts(
    workplace: Path, command: Command, options: tuple[str, ...], says: str
) -> None:
    assert says in command(*PLAN, *options)[1]


@pytest.mark.parametrize(
    ("options", "ending"),
    [
        (("engine=fsdp2", "checkpoint=sharded"), ".ckpt"),
        (("engine=fsdp2", "checkpoint=full"), ".pt"),
    ],
)
def test_d30_it_names_folders_where_checkpoints_are_some(
    workplace: Path, command: Command, options: tuple[str, ...], ending: str
) -> None:
    sets = [w for o in options for w in ("--set", f"plugins.distributed.{o}")]
    two, one = (command(*PLAN, *sets, "--processes", n)[1] for n in "21")
    assert f"checkpoints/last-epoch{{epoch:03d}}-step{{step}}{ending}" in two
    assert "checkpoints/last-epoch{epoch:03d}-step{step}.pt" in one


def test_it_tells_of_those_that_were_started_on_main(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "processes    2, engine ddp" in command(*PLAN)[1]
    monkeypatch.setenv("RANK", "1")
    assert command(*PLAN) == (0, "", "")


def test_one_process_is_no_matter_to_tell(workplace: Path, command: Command) -> None:
    assert "processes" not in command(*PLAN)[1]


def test_processes_that_nobody_divides_are_a_conflict(
    workplace: Path, command: Command
) -> None:
    _, output, _ = command("plan", "run.yaml", "--processes", "2")
    assert "2 processes are refused: no plugin divides the run" in output


@pytest.mark.parametrize("number", ["0", "-2"])
def test_a_number_that_is_none_is_refused(
    workplace: Path, command: Command, number: str
) -> None:
    code, _, errors = command(*PLAN, "--processes", number)
    assert code == 2
    assert f"--processes is {number}" in errors
