"""Each process trains on its part of the data, as one process would on all of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.divided import (
    CLOSE,
    KINDS,
    ROWS,
    SIZE,
    Texts,
    are_equal,
    batch_of,
    batches,
    furthest,
    language,
    loader,
    saying,
    trained,
)
from ranks import RankError, Ranks
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from training.feed import share
from training.feed.share import Part, Share, rows_of

pytestmark = pytest.mark.distributed


def trained_with(kind: Any, plugin: Any, settings: Any) -> dict[str, Any]:
    return trained(kind, plugin, **settings)


def as_alone(two: Ranks, kind: str, **settings: Any) -> None:
    """Assert that a kind of run ends on each process as it does in one."""
    alone = trained(kind, **settings)
    first, second = two.run(trained_with, kind, {}, settings)
    assert furthest(alone, first) < CLOSE
    assert are_equal(first, second)
    assert first["unit"] == second["unit"] == alone["unit"]


def refusal(two: Ranks, make: Callable[[], Any], plugin: Any = None) -> str:
    """Return what the run that ``make`` makes is refused with."""
    with pytest.raises(RankError) as caught:
        two.run(trained_with, make, plugin or {}, {"num_epochs": 1})
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_d1_a_batch_is_divided_and_trains_as_a_whole(two: Ranks, kind: str) -> None:
    as_alone(two, kind, gradient_accumulation_steps=2)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("kind", ["causal language model", "sum", "list of batches"])
def test_d1_any_number_of_batches_makes_a_window(
    two: Ranks, kind: str, accumulation: int
) -> None:
    as_alone(two, kind, gradient_accumulation_steps=accumulation)


def test_d5_a_sample_draws_what_it_draws_in_one_process(two: Ranks) -> None:
    as_alone(two, "augmented")


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["causal language model", "batches of 3", "sum"])
def test_d3_processes_without_a_part_stand_in(many: Ranks, kind: str) -> None:
    alone = trained(kind)
    for each in many.run(trained_with, kind, {}, {}):
        assert furthest(alone, each) < CLOSE


@pytest.mark.parametrize("total", range(9))
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_d1_parts_are_contiguous_and_the_first_get_what_is_over(
    total: int, size: int
) -> None:
    parts = [rows_of(total, rank, size) for rank in range(size)]
    assert [row for part in parts for row in part] == list(range(total))
    lengths = [len(part) for part in parts]
    assert lengths == sorted(lengths, reverse=True)
    assert max(lengths) - min(lengths) <= 1


class Counting(Share):
    """Lets the sample that stands in count: what a sampler that pads does."""

    def __iter__(self) -> Iterator[Part]:
        for whole in self.indices:
            part = Part(whole, self.rank, self.size)
            part.stands_in = False
            yield part


def trained_counting_stand_ins() -> dict[str, Any]:
    from training.feed import divided_loader

    divided_loader.Share = Counting
    try:
        return trained("step function")
    finally:
        divided_loader.Share = Share


def trained_with_overlap() -> dict[str, Any]:
    rows = share.rows_of
    share.rows_of = lambda total, rank, size: range(
        min(total, rows(total, 0, size).stop)
    )
    try:
        return trained("step function")
    finally:
        share.rows_of = rows


@pytest.mark.parametrize("wrong", [trained_counting_stand_ins, trained_with_overlap])
def test_d3_samples_that_count_twice_are_seen(two: Ranks, wrong: Any) -> None:
    assert furthest(trained("step function"), two.run(wrong)[0]) > 100 * CLOSE


def seeds_and_orders() -> Any:
    torch.manual_seed(100 + int(os.environ["RANK"]))
    seen: list[Any] = []

    def noted(rows: list[Any]) -> Any:
        seen.append([row["input_ids"].tolist() for row in rows])
        return batch_of(range(len(rows)), rows)  # type: ignore[arg-type]

    ended = trained(lambda: language(loader(collate_fn=noted)), seed=None)
    return ended["weights"], seen


def test_d2_without_a_seed_all_follow_the_order_of_main(two: Ranks) -> None:
    (first, _), (second, _) = two.run(seeds_and_orders)
    assert all(map(torch.equal, first, second))


def with_distributed_sampler() -> dict[str, Any]:
    sampler = DistributedSampler(Texts(), num_replicas=2, rank=0)  # type: ignore[var-annotated]
    return language(DataLoader(Texts(), batch_size=2, sampler=sampler))


def test_d2_a_sampler_that_divides_already_is_refused(two: Ranks) -> None:
    said = refusal(two, with_distributed_sampler)
    assert said.count("train_dataloader has a DistributedSampler") >= 2
    assert "data: own" in said
    two.run(trained_with, with_distributed_sampler, {"data": "own"}, {})


class Unseeded(IterableDataset[Any]):
    """Another order in each process."""

    def __iter__(self) -> Iterator[Any]:
        yield batch_of([int(os.environ["RANK"]), 2])


class Longer(IterableDataset[Any]):
    """More batches in one process than in the other."""

    def __iter__(self) -> Iterator[Any]:
        yield from batches()[: 1 + int(os.environ["RANK"])]


def unseeded() -> dict[str, Any]:
    return language(DataLoader(Unseeded(), batch_size=None))


def longer() -> dict[str, Any]:
    return language(DataLoader(Longer(), batch_size=None))


def unseeded_sampler() -> dict[str, Any]:
    order = [int(os.environ["RANK"]), 1, 2, 3]
    return language(DataLoader(Texts(), batch_size=2, sampler=order))


def unseeded_after_the_first_batch() -> dict[str, Any]:
    """The longest rows first, and then those that a process draws for itself."""
    rest = [[2, 3], [4, 5]] if os.environ["RANK"] == "0" else [[4, 5], [2, 3]]
    return language(DataLoader(Texts(), batch_sampler=[[0, 1], *rest]))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (unseeded, "does not yield the same batches on all"),
        (unseeded_sampler, "does not yield the same batches on all"),
        (unseeded_after_the_first_batch, "does not yield the same batches on all"),
        (longer, "ends on 1 of 2"),
    ],
)
def test_d2_data_that_differ_are_not_divided(two: Ranks, make: Any, says: str) -> None:
    assert says in refusal(two, make)


class Odd:
    """Nobody can tell its rows."""

    def __init__(self) -> None:
        self.long, self.short = torch.zeros(3, 2), torch.zeros(2, 2)


def odd() -> dict[str, Any]:
    return language([Odd(), Odd()], step_fn=lambda model, batch: model.loss(batch))


def told_as_a_whole() -> dict[str, Any]:
    rows = Texts()
    return language([saying([rows[index] for index in range(4)])])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (odd, "a batch of train_dataloader is a Odd that cannot be divided among 2"),
        (
            told_as_a_whole,
            "and those of its parts are",
        ),
    ],
)
def test_d4_a_batch_that_cannot_be_sliced_is_refused(
    two: Ranks, make: Any, says: str
) -> None:
    said = refusal(two, make)
    assert says in said
    assert "data: own" in said


def own_parts() -> list[Any]:
    """Return what is a process's of the batches; the last one has no second part."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    starts = range(0, ROWS, SIZE)
    indices = [list(range(ROWS)[start : start + SIZE]) for start in starts]
    parts = [[each[n] for n in rows_of(len(each), rank, size)] for each in indices]
    return [batch_of(part) for part in parts if part]


def own_list() -> dict[str, Any]:
    return language(own_parts())


class OwnStream(IterableDataset[Any]):
    """Streams the own part."""

    def __iter__(self) -> Iterator[Any]:
        yield from own_parts()


def own_stream() -> dict[str, Any]:
    return language(DataLoader(OwnStream(), batch_size=None))


@pytest.mark.parametrize("accumulation", [1, 2, 3])
@pytest.mark.parametrize("make", [own_list, own_stream])
def test_d4_who_ends_early_stands_in_until_all_have_ended(
    two: Ranks, make: Any, accumulation: int
) -> None:
    settings = {"gradient_accumulation_steps": accumulation}
    alone = trained("list of batches", **settings)
    first, second = two.run(trained_with, make, {"data": "own"}, settings)
    assert furthest(alone, first) < CLOSE
    assert are_equal(first, second)


class Drawn(IterableDataset[Any]):
    """Draws its rows, and notes them."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        for _ in range(6):
            self.rows.append(int(torch.randint(ROWS, ())))
            yield batch_of(self.rows[-1:])


def rows_drawn() -> list[int]:
    drawn = Drawn()
    trained(lambda: language(DataLoader(drawn, batch_size=None)), {"data": "own"})
    return drawn.rows


def test_d4_own_rows_that_are_drawn_are_others_on_each_process(two: Ranks) -> None:
    first, second = two.run(rows_drawn)
    assert len(first) == len(second) >= 6
    assert first != second


def none_of_its_own() -> dict[str, Any]:
    return language(own_parts() if os.environ["RANK"] == "0" else [])


def test_d4_a_process_without_any_batch_is_refused(two: Ranks) -> None:
    said = refusal(two, none_of_its_own, {"data": "own"})
    assert "train_dataloader yields no batch on 1 of 2" in said


def left_and_resumed(make: Any, plugin: Any, folder: Path) -> Any:
    """Return a run's weights, and those of it left at each boundary and resumed."""
    whole = trained(make, plugin)
    found = []
    for step in range(1, len(whole["losses"])):
        path = folder / f"{step}.ckpt"
        trained(make, plugin, max_steps=step, save_to=path)
        found.append(trained(make, plugin, resume=path)["weights"])
    return whole["weights"], found


@pytest.mark.parametrize(
    ("kind", "plugin"),
    [
        ("causal language model", {}),
        ("list of batches", {}),
        pytest.param("two workers", {}, marks=pytest.mark.exhaustive),
        pytest.param("iterable data", {}, marks=pytest.mark.exhaustive),
        pytest.param(own_list, {"data": "own"}, marks=pytest.mark.slow, id="own list"),
        pytest.param(
            own_stream, {"data": "own"}, marks=pytest.mark.slow, id="own stream"
        ),
    ],
    ids=str,
)
def test_d4_a_run_that_is_left_inside_of_an_epoch_goes_on_with_the_same_parts(
    two: Ranks, kind: Any, plugin: Any, tmp_path: Path
) -> None:
    for whole, found in two.run(left_and_resumed, kind, plugin, tmp_path):
        assert found
        for weights in found:
            assert all(map(torch.equal, whole, weights))
