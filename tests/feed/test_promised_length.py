"""A loader that yields other batches than its length says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from toy import make_trainer, regression_batches

from training import Callback


class Says:
    """Says one number of batches, and yields another."""

    def __init__(self, says: int, gives: int) -> None:
        self.says, self.gives = says, gives

    def __len__(self) -> int:
        return self.says

    def __iter__(self) -> Iterator[Any]:
        return iter(regression_batches(self.gives))


class Lengthens(Callback):
    """Adds a batch in each epoch, as a curriculum may."""

    def on_epoch_begin(self, trainer: Any) -> None:
        trainer.train_dataloader.says += 1
        trainer.train_dataloader.gives += 1


@pytest.mark.parametrize("says", [2, 9])
def test_a_length_that_is_wrong_is_told_once_with_both_numbers(
    says: int, caplog: pytest.LogCaptureFixture
) -> None:
    make_trainer(None, Says(says, 5), num_epochs=3).train()
    assert caplog.text.count(f"said {says} and gave 5; sched") == 1


def test_an_epoch_that_a_plugin_lengthens_is_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_trainer(None, Says(3, 3), Lengthens(), num_epochs=2).train()
    assert caplog.text.count("said 3 and gave 4; schedules") == 1


@pytest.mark.parametrize("options", [{}, {"max_steps": 3}, {"max_steps": 4}], ids=str)
def test_nothing_is_said_where_the_length_is_right_or_max_steps_ends_the_epoch(
    options: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    make_trainer(None, Says(5, 5), num_epochs=2, **options).train()
    assert "batches an epoch" not in caplog.text


def test_nothing_is_said_where_no_length_was_promised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loader = (batch for batch in regression_batches(3))

    class Unsaid:
        def __iter__(self) -> Iterator[Any]:
            return loader

    make_trainer(None, Unsaid()).train()
    assert "batches an epoch" not in caplog.text


def test_a_run_that_goes_on_inside_an_epoch_counts_all_its_batches(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first = make_trainer(None, Says(5, 5), num_epochs=2, max_steps=7)
    first.train()
    first.save_checkpoint(tmp_path / "inside.pt")
    rest = make_trainer(None, Says(5, 5), num_epochs=2)
    rest.load_checkpoint(tmp_path / "inside.pt")
    rest.train()
    assert rest.step == 10
    assert "batches an epoch" not in caplog.text


@pytest.mark.parametrize("max_steps", [1, 2, 3, 5, 7])
def test_a_run_ends_at_max_steps_whatever_a_length_says(max_steps: int) -> None:
    trainer = make_trainer(None, Says(2, 5), num_epochs=9, max_steps=max_steps)
    trainer.train()
    assert (trainer.step, len(trainer.history)) == (max_steps, -(-max_steps // 5))


class Ends(Callback):
    """Notes at which steps an epoch is said to be over."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_step_end(self, trainer: Any) -> None:
        if trainer.ends_epoch:
            self.steps.append(trainer.step)


@pytest.mark.parametrize(
    ("batches", "accumulation", "ends"),
    [(5, 4, [2, 4]), (8, 4, [2, 4]), (3, 4, [1, 2]), (1, 1, [1, 2])],
)
def test_the_last_step_of_an_epoch_is_known_as_it_ends(
    batches: int, accumulation: int, ends: list[int]
) -> None:
    seen = Ends()
    options = {"num_epochs": 2, "gradient_accumulation_steps": accumulation}
    make_trainer(None, Says(batches, batches), seen, **options).train()
    assert seen.steps == ends


def test_the_last_step_is_that_of_an_epoch_as_long_as_it_is_now() -> None:
    seen = Ends()
    trainer = make_trainer(None, Says(2, 2), Lengthens(), seen, num_epochs=3)
    trainer.train()
    assert seen.steps == [row["step"] for row in trainer.history] == [3, 7, 12]


def test_without_a_length_no_step_is_known_to_be_the_last() -> None:
    seen = Ends()

    class Unsized:
        def __iter__(self) -> Iterator[Any]:
            return iter(regression_batches(3))

    make_trainer(None, Unsized(), seen).train()
    assert seen.steps == []
