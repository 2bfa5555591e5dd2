"""R3: a position that the data does not reach is refused, not taken for the end."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faults.runs import (
    Augmented,
    SavesEverywhere,
    assert_same_end,
    build,
    end_of,
    loader_of,
    resumed,
)
from torch.utils.data import DataLoader, IterableDataset, Sampler, default_collate
from toy import Regression, make_trainer, regression_batches

from training import Callback, CheckpointError, DataError, Trainer


class Rows(IterableDataset[Any]):
    """As many rows as it says, one after another."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __iter__(self) -> Iterator[Any]:
        data = Augmented(noise=False)
        yield from (data[index][:2] for index in range(self.number))


class Batches(Sampler[Any]):
    """Batches of one row, as a sampler that does not tell how many."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([index] for index in range(self.number))


class Stream:
    """Batches of a plain iterable without a length."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __iter__(self) -> Iterator[Any]:
        return iter(regression_batches(self.number))


class Understated(Stream):
    """Says that it has 5 batches, however many it has."""

    def __len__(self) -> int:
        return 5


class Stateful(Stream):
    """As a loader that learned to keep its position after the run was saved."""

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        raise AssertionError("there is none")


class Cuts(Callback):
    """Wraps the loader into one of so many batches."""

    def __init__(self, number: int) -> None:
        self.number = number

    def wrap_dataloader(self, dataloader: Any, stage: str) -> Any:
        return list(dataloader)[: self.number]


class Halves(Callback):
    """Wraps the loader into one of batches of half the size."""

    alters_training = True

    def wrap_dataloader(self, dataloader: Any, stage: str) -> Any:
        return loader_of(batch_size=1)


def without_number(rows: Any) -> Any:
    return default_collate([row[:2] for row in rows])


def stream(number: int) -> Any:
    return DataLoader(Rows(number), batch_size=1)


def unsized(number: int, workers: int = 0) -> Any:
    return DataLoader(
        Augmented(noise=False),
        batch_sampler=Batches(number),
        collate_fn=without_number,
        num_workers=workers,
    )


LOADERS: dict[str, Any] = {
    "rows as they come": stream,
    "a sampler without a length": unsized,
    "a sampler without a length, in workers": lambda n: unsized(n, workers=1),
    "an iterable without a length": Stream,
    "an iterable whose length is too small": Understated,
}


def run(loader: Any, *callbacks: Any) -> Trainer:
    return make_trainer(Regression(), loader, *callbacks, seed=1)


@pytest.fixture
def at_batch_7(tmp_path: Path) -> Any:
    def save(loader: Any, *callbacks: Any) -> Path:
        run(loader, SavesEverywhere(tmp_path), *callbacks).train()
        return tmp_path / "0-7.pt"

    return save


REFUSED = r"saved at batch 7 of its epoch, and train_dataloader has only 5: resume with"


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_r3_a_loader_that_ends_before_the_position_is_refused(
    at_batch_7: Any, make: Any
) -> None:
    trainer = run(make(5))
    trainer.load_checkpoint(at_batch_7(make(9)))
    with pytest.raises(DataError, match=REFUSED):
        trainer.train()
    assert (trainer.step, trainer.epoch, trainer.history) == (7, 0, [])


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("number", [7, 8])
def test_r3_one_that_ends_at_it_or_after_it_is_not(
    at_batch_7: Any, make: Any, number: int
) -> None:
    trainer = run(make(number))
    trainer.load_checkpoint(at_batch_7(make(9)))
    trainer.train()
    assert (trainer.step, trainer.epoch) == (number, 1)


def test_r3_a_position_behind_the_stated_length_is_one(tmp_path: Path) -> None:
    """A plugin makes the batches smaller after the length was read."""
    run = partial(build, Halves(), loader=loader_of(), num_epochs=1)
    straight = run(SavesEverywhere(tmp_path))
    straight.train()
    assert straight.step == 11
    for path in tmp_path.iterdir():
        trainer = run()
        trainer.load_checkpoint(path)
        trainer.train()
        assert_same_end(end_of(trainer), end_of(straight), path.name)


def test_r3_one_that_a_plugin_cuts_is_refused(at_batch_7: Any) -> None:
    trainer = run(regression_batches(9), Cuts(5))
    trainer.load_checkpoint(at_batch_7(regression_batches(9), Cuts(9)))
    with pytest.raises(DataError, match=REFUSED):
        trainer.train()


def test_r3_one_without_a_saved_state_of_its_own_begins_at_the_position(
    at_batch_7: Any,
) -> None:
    trainer = run(Stateful(9))
    trainer.load_checkpoint(at_batch_7(Stream(9)))
    trainer.train()
    assert trainer.step == 9
    short = run(Stateful(5))
    short.load_checkpoint(at_batch_7(Stream(9)))
    with pytest.raises(DataError, match=REFUSED):
        short.train()


class Curriculum(Sampler[int]):
    """More rows in each epoch, and a length that is right in each."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 4 * (self.epoch + 1)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))


class Grown(Augmented):
    """More rows in each epoch."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 4 * (self.epoch + 1)


CURRICULA: dict[str, Any] = {
    "a sampler": lambda: DataLoader(Augmented(12), batch_size=2, sampler=Curriculum()),
    "a data set": lambda: DataLoader(Grown(12), batch_size=2, shuffle=True),
}


@pytest.mark.parametrize("make", CURRICULA.values(), ids=CURRICULA)
def test_r3_a_run_whose_epochs_grow_goes_on_at_every_boundary(
    tmp_path: Path, make: Any
) -> None:
    straight = build(SavesEverywhere(tmp_path), loader=make(), num_epochs=3)
    straight.train()
    assert straight.step == 2 + 4 + 6
    (tmp_path / "3-12.pt").unlink()  # from which nothing is read any more
    for path in tmp_path.iterdir():
        trainer = build(loader=make(), num_epochs=3)
        trainer.load_checkpoint(path)
        trainer.train()
        assert_same_end(end_of(trainer), end_of(straight), path.name)


class ShortensAtSetUp(Callback):
    """Leaves out the second half of the rows."""

    def on_setup(self, trainer: Trainer) -> None:
        rows: Any = trainer.train_dataloader
        rows.dataset.number = 6


class Shortened(Augmented):
    """As many rows as it says."""

    number = 12

    def __len__(self) -> int:
        return self.number


def test_r3_a_run_whose_data_a_hook_shortens_at_set_up_goes_on_at_every_boundary(
    tmp_path: Path,
) -> None:
    def trainer(*others: Any) -> Trainer:
        loader = DataLoader(Shortened(12), batch_size=2, shuffle=True)
        return build(ShortensAtSetUp(), *others, loader=loader, num_epochs=2)

    straight = trainer(SavesEverywhere(tmp_path))
    straight.train()
    assert straight.step == 2 * 3
    (tmp_path / "2-6.pt").unlink()  # from which nothing is read any more
    for path in tmp_path.iterdir():
        rest = trainer()
        rest.load_checkpoint(path)
        rest.train()
        assert_same_end(end_of(rest), end_of(straight), path.name)


@pytest.fixture
def grown(tmp_path: Path) -> Any:
    """Data that have grown once, beside checkpoints of a run over the same ones."""
    build(SavesEverywhere(tmp_path), loader=CURRICULA["a data set"]()).train()
    loader = CURRICULA["a data set"]()
    loader.dataset.epoch = 1
    return loader


def test_r3_data_that_are_as_long_as_they_were_when_it_was_saved_are_taken(
    tmp_path: Path, grown: Any
) -> None:
    trainer = build(loader=grown, num_epochs=2)
    trainer.load_checkpoint(tmp_path / "1-4.pt")
    assert trainer.step == 4


def test_r3_data_that_were_never_as_long_are_refused(
    tmp_path: Path, grown: Any
) -> None:
    """The control: what grew may not have begun longer."""
    with pytest.raises(CheckpointError, match="dataset_length was 4, is 8"):
        build(loader=grown).load_checkpoint(tmp_path / "0-1.pt")


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_batches_is_resumed_without_a_warning_of_batches_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: Any
) -> None:
    batches = kind(loader_of(noise=False, shuffle=False))
    straight = build(SavesEverywhere(tmp_path), loader=batches)
    straight.train()
    end = resumed(tmp_path / "0-3.pt", loader=batches)
    assert_same_end(end, end_of(straight), "a list")
    assert "dropping" not in caplog.text
