"""R1, R3, R8: loaders of every kind resume equal, or are named."""

from __future__ import annotations

import logging
import multiprocessing
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults.runs import (
    Augmented,
    SavesEverywhere,
    assert_same_end,
    build,
    end_of,
    loader_of,
    resumed,
)
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    Sampler,
    TensorDataset,
    default_collate,
)
from toy import regression_batches

from training import Callback, Trainer


def test_a_row_draws_other_numbers_in_each_epoch() -> None:
    class Sees(Callback):
        def __init__(self) -> None:
            self.rows: dict[int, list[Any]] = {}

        def on_batch_begin(self, inputs: Any) -> None:
            for number, x in zip(inputs[2].tolist(), inputs[0], strict=True):
                self.rows.setdefault(number, []).append(x)

    sees = Sees()
    build(sees).train()
    assert len(sees.rows) == 11
    assert not any(torch.equal(*both) for both in sees.rows.values())


def test_each_row_is_seen_once_an_epoch_and_in_another_order() -> None:
    trainer = build()
    trainer.train()
    first, second = (
        [i for epoch, *rows in trainer.plugins["ids"].seen if epoch == e for i in rows]
        for e in (0, 1)
    )
    assert sorted(first) == sorted(second) == list(range(11))
    assert first != second


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"workers": 1}, id="1 worker"),
        pytest.param({"workers": 2, "prefetch_factor": 1}, id="prefetch 1"),
        pytest.param({"workers": 2, "prefetch_factor": 4}, id="prefetch 4"),
        pytest.param({"workers": 2, "persistent_workers": True}, id="persistent"),
    ],
)
def test_r3_how_the_data_is_loaded_changes_nothing(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    straight = build(
        SavesEverywhere(tmp_path), loader=loader_of(**options), num_epochs=3
    )
    straight.train()
    plain = build(num_epochs=3)
    plain.train()
    assert_same_end(end_of(straight), end_of(plain), "straight")
    end = resumed(tmp_path / "0-4.pt", loader=loader_of(**options), num_epochs=3)
    assert_same_end(end, end_of(plain), "resumed")


class LateFirst(Augmented):
    """Its first batch is held back until another one has been read."""

    def __init__(self) -> None:
        super().__init__()
        self.is_read = multiprocessing.Event()

    def __getitem__(self, index: int) -> Any:
        if index < 2:
            assert self.is_read.wait(60)
        row = super().__getitem__(index)
        if index == 3:  # the last of the second batch, which the other worker reads
            self.is_read.set()
        return row


def test_r3_batches_that_may_overtake_one_another_are_read_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def loader() -> Any:
        return DataLoader(LateFirst(), batch_size=2, num_workers=2, in_order=False)

    straight = build(loader=loader(), num_epochs=1)
    straight.train()
    seen = [row for _, *rows in straight.plugins["ids"].seen for row in rows]
    assert seen == sorted(seen)
    assert "in_order=False, and is read in order" in caplog.text


def noisy(rows: list[Any]) -> Any:
    """Collate with noise, as an augmentation of whole batches would."""
    x, y = (torch.stack(part) for part in zip(*rows, strict=True))
    return x + torch.rand(4), y, torch.zeros(len(x))


@pytest.mark.parametrize("workers", [0, 2])
def test_r1_a_collate_function_that_draws_resumes_to_the_same_state(
    tmp_path: Path, workers: int
) -> None:
    def loader() -> Any:
        dataset = TensorDataset(*regression_batches(1, 11)[0])
        return DataLoader(dataset, 2, collate_fn=noisy, num_workers=workers)

    straight = build(SavesEverywhere(tmp_path), loader=loader())
    straight.train()
    end = resumed(tmp_path / "0-4.pt", loader=loader(), ambient=7)
    assert_same_end(end, end_of(straight), f"{workers} workers")


class Collates:
    """Makes batches as usual, and has a generator for it."""

    def __init__(self) -> None:
        self.chance = random.Random(0)

    def __call__(self, rows: Any) -> Any:
        return default_collate(rows)


class Private(Sampler[int]):
    """Shuffles with a generator that nobody else sees."""

    def __init__(self) -> None:
        self.chance = random.Random(0)

    def __iter__(self) -> Any:
        return iter(self.chance.sample(range(11), 11))

    def __len__(self) -> int:
        return 11


@pytest.mark.parametrize("name", ["rng", "generator"])
@pytest.mark.parametrize("where", ["data set", "sampler", "collate_fn", "neither"])
def test_r8_a_generator_that_no_checkpoint_holds_is_named_at_the_start(
    caplog: pytest.LogCaptureFixture, where: str, name: str
) -> None:
    dataset = Augmented()
    if where == "data set":
        setattr(dataset, name, np.random.default_rng(0))
    sampler = Private() if where == "sampler" else None
    collate = Collates() if where == "collate_fn" else None
    loader = DataLoader(dataset, 2, sampler=sampler, collate_fn=collate)
    build(loader=loader, num_epochs=1).train()
    said = "keeps a random generator of its own"
    assert (said in caplog.text) == (where != "neither")
    assert (f"({name})" in caplog.text) == (where == "data set")
    assert ("(chance)" in caplog.text) == (where in ("sampler", "collate_fn"))


class Counting(Sampler[int]):
    """Shuffles by a number of its own, and says how far it is."""

    def __init__(self) -> None:
        self.count, self.done = 0, 0

    def __iter__(self) -> Any:
        self.count, self.done = self.count + 1, 0
        for row in random.Random(self.count).sample(range(11), 11):
            self.done += 1
            yield row

    def __len__(self) -> int:
        return 11


class Told(Counting):
    """Is told the number of the epoch."""

    def set_epoch(self, epoch: int) -> None:
        self.count = epoch


class OwnBatches(BatchSampler):
    """A batch sampler that is not known."""


@pytest.mark.parametrize("sampler", [Counting, Told])
@pytest.mark.parametrize("is_inside", [True, False])
def test_r8_a_sampler_that_counts_epochs_by_itself_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sampler: Any, is_inside: bool
) -> None:
    order: dict[str, Any] = {"sampler": sampler(), "batch_size": 2}
    if is_inside:
        order = {"batch_sampler": OwnBatches(sampler(), 2, drop_last=False)}
    loader = DataLoader(Augmented(), **order)
    build(SavesEverywhere(tmp_path), loader=loader, num_epochs=3).train()
    said = [r.message for r in caplog.records if "moves numbers" in r.message]
    named = sum("train_dataloader.Counting.count" in each for each in said)
    assert named == (sampler is Counting)


class Stream(IterableDataset[Any]):
    """Rows one after the other, without a length."""

    def __iter__(self) -> Any:
        dataset = loader_of(noise=False).dataset
        return (dataset[index] for index in range(10))


def test_r8_a_loader_that_cannot_resume_is_named_once_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def loader() -> Any:
        return torch.utils.data.DataLoader(Stream(), batch_size=2)

    straight = build(SavesEverywhere(tmp_path), loader=loader())
    straight.train()
    named = [r for r in caplog.records if "may not be exact" in r.message]
    assert len(named) == 1
    assert named[0].levelno == logging.WARNING
    end = resumed(tmp_path / "0-3.pt", loader=loader())
    assert_same_end(end, end_of(straight), "a stream without randomness")
    assert "reading and dropping the epoch up to batch 3" in caplog.text


class Stateful:
    """A loader that keeps its own position, and counts what it loads."""

    def __init__(self) -> None:
        self.batches = list(loader_of(noise=False, shuffle=False))
        self.position = self.loaded = 0

    def __iter__(self) -> Any:
        start, self.position = self.position, 0
        for index in range(start, len(self.batches)):
            self.position = index + 1
            self.loaded += 1
            yield self.batches[index]
        self.position = 0

    def __len__(self) -> int:
        return len(self.batches)

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


def test_r8_a_loader_with_a_state_restores_itself_and_loads_nothing_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    straight = build(SavesEverywhere(tmp_path), loader=Stateful())
    straight.train()
    loader = Stateful()
    end = resumed(tmp_path / "0-4.pt", loader=loader)
    assert_same_end(end, end_of(straight), "stateful")
    assert loader.loaded == 2 + 6
    assert "may not be exact" not in caplog.text


class Counts(Stateful):
    """Shuffles by an epoch number of its own, which its state holds."""

    epoch = 0

    def __iter__(self) -> Any:
        order = random.Random(self.epoch).sample(range(6), 6)
        start, self.position = self.position, 0
        for index in range(start, 6):
            self.position = index + 1
            yield self.batches[order[index]]
        self.position, self.epoch = 0, self.epoch + 1

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position, self.epoch = state["position"], state["epoch"]


class Draws(Stateful):
    """Shuffles with torch's generator; its state at the end of an epoch is the end."""

    order: list[int]
    resumes = False

    def __iter__(self) -> Any:
        if not self.resumes:
            self.order, self.position = torch.randperm(6).tolist(), 0
        self.resumes = False
        for index in range(self.position, 6):
            self.position = index + 1
            yield self.batches[self.order[index]]

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "order": self.order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position, self.order = state["position"], state["order"]
        self.resumes = True


@pytest.mark.parametrize("kind", [Stateful, Counts, Draws])
def test_r8_what_a_loader_keeps_from_epoch_to_epoch_comes_back_at_every_boundary(
    tmp_path: Path, kind: type[Stateful]
) -> None:
    straight = build(SavesEverywhere(tmp_path), loader=kind(), num_epochs=3)
    straight.train()
    for path in sorted(tmp_path.iterdir()):
        end = resumed(path, loader=kind(), num_epochs=3, ambient=7)
        assert_same_end(end, end_of(straight), path.name)


class StopsAtOnce(Callback):
    """Ends the run before its first batch."""

    def on_epoch_begin(self, trainer: Trainer) -> None:
        trainer.request_stop("test")


@pytest.mark.parametrize("kind", [Stateful, Counts, Draws])
def test_r8_a_run_that_stops_before_its_first_batch_keeps_the_loader_s_place(
    tmp_path: Path, kind: type[Stateful]
) -> None:
    again = tmp_path / "again"
    again.mkdir()
    straight = build(SavesEverywhere(tmp_path), loader=kind(), num_epochs=3)
    straight.train()
    for path in sorted(tmp_path.glob("*.pt"))[:-1]:
        saves = SavesEverywhere(again)
        stopped = build(StopsAtOnce(), saves, loader=kind(), num_epochs=3, ambient=5)
        stopped.train(resume=path)
        end = resumed(again / path.name, loader=kind(), num_epochs=3, ambient=7)
        assert_same_end(end, end_of(straight), path.name)


@pytest.mark.parametrize("has_generator", [True, False])
def test_r8_a_loader_with_a_state_and_a_generator_is_named_at_the_start(
    caplog: pytest.LogCaptureFixture, has_generator: bool
) -> None:
    loader = Stateful()
    if has_generator:
        loader.generator = torch.Generator()  # type: ignore[attr-defined]
    build(loader=loader, num_epochs=1).train()
    assert ("both say in which order it goes on" in caplog.text) == has_generator


class Drawn(Sampler[int]):
    """A user's sampler that shuffles with the global generators."""

    def __iter__(self) -> Any:
        order = torch.randperm(11).tolist()
        random.shuffle(order)
        return iter(order)

    def __len__(self) -> int:
        return 11


def test_a_sampler_that_draws_from_the_global_generators_resumes_equal(
    tmp_path: Path,
) -> None:
    def loader() -> Any:
        dataset = loader_of().dataset
        return torch.utils.data.DataLoader(dataset, batch_size=2, sampler=Drawn())

    straight = build(SavesEverywhere(tmp_path), loader=loader())
    straight.train()
    for path in sorted(tmp_path.iterdir()):
        end = resumed(path, loader=loader(), ambient=7)
        assert_same_end(end, end_of(straight), path.name)
