"""An error that a batch raises says which one it was, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from training import Callback, NonFiniteError, Trainer
from training.feed.bad_values import refusal
from training.feed.workers import KEPT, MOST_INDICES, Issued

NAN, INF = float("nan"), float("inf")


def rows(bad: int | None = None, value: float = NAN) -> tuple[Tensor, Tensor]:
    x, y = torch.ones(12, 3), torch.zeros(12, 1)
    if bad is not None:
        x[bad, 1] = value
    return x, y


def trainer_of(data: Any, **options: Any) -> Trainer:
    """Return a trainer with batches of two rows, in order."""
    model = options.pop("model", None) or nn.Linear(3, 1)
    if (
        "step_fn" not in options
    ):  # the unit is said, for a measurement is no matter here
        options = {"loss_fn": nn.MSELoss(), "loss_per": "samples", **options}
    return Trainer(
        *(model, data),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        num_epochs=1,
        plugins=["no:progress"],
        **options,
    )


def loader(bad: int | None = None, value: float = NAN) -> Any:
    return DataLoader(TensorDataset(*rows(bad, value)), batch_size=2)


def as_list(bad: int | None = None, value: float = NAN) -> Any:
    x, y = rows(bad, value)
    return list(zip(x.split(2), y.split(2), strict=True))


def failure_of(trainer: Trainer, kind: type[Exception]) -> tuple[str, list[str]]:
    """Return the text and the notes of what ends the run."""
    with pytest.raises(kind) as caught:
        trainer.train()
    return str(caught.value), getattr(caught.value, "__notes__", [])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(
    ("make", "samples"), [(loader, ", samples [6, 7]"), (as_list, "")]
)
def test_a_loss_that_is_nan_for_the_data_names_the_batch_and_what_it_holds(
    make: Any, samples: str, accumulation: int, precision: str
) -> None:
    options = {"gradient_accumulation_steps": accumulation, "precision": precision}
    told, notes = failure_of(trainer_of(make(7), **options), NonFiniteError)
    assert told == (
        "the loss is nan, and batch[0] holds 1 NaN (row 1); the trainer's "
        "optimizer left the weights alone: mend the data, or pass nonfinite='skip' to "
        "drop such windows"
    )
    step = 3 // accumulation + 1
    assert notes == [f"in step {step}: batch 3 of the epoch{samples}"]


class Diverges(nn.Module):
    """Its loss is not finite, though the data be."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * INF  # type: ignore[no-any-return]


def test_nothing_is_said_of_an_optimizer_that_step_fn_steps_itself() -> None:
    model, other = nn.Linear(3, 1), nn.Linear(3, 1)
    own = torch.optim.SGD(other.parameters(), lr=0.01)
    before = other.weight.detach().clone()

    def step(model: nn.Module, batch: Any) -> Tensor:
        other(batch[0]).mean().backward()
        own.step()
        return model(batch[0]).mean() * NAN  # type: ignore[no-any-return]

    trainer = trainer_of(loader(), model=model, step_fn=step)
    told, _ = failure_of(trainer, NonFiniteError)
    assert not torch.equal(other.weight, before)
    assert "; the trainer's optimizer left the weights alone: " in told


def test_a_loss_that_diverges_over_good_data_asks_for_a_lower_rate() -> None:
    told, notes = failure_of(trainer_of(loader(), model=Diverges()), NonFiniteError)
    assert "alone: lower the learning rate, set max_grad_norm, or" in told
    assert notes == ["in step 1: batch 0 of the epoch, samples [0, 1]"]


class Row(NamedTuple):
    """A named tuple."""

    left: Any
    right: Any


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ({"x": torch.tensor([1, NAN, NAN])}, "batch['x'] holds 2 NaN (rows 1, 2)"),
        ([{"a": [torch.tensor(NAN)]}], "batch[0]['a'][0] holds 1 NaN;"),
        (Row(1.0, np.array([[0.0], [NAN]])), "batch.right holds 1 NaN (row 1)"),
        (torch.full((9, 2), NAN), "batch holds 18 NaN (rows 0, 1, 2, 3, 4 and 4 more)"),
        ({"y": torch.tensor([NAN, INF])}, "batch['y'] holds 1 infinite value (row 1)"),
        ({"y": torch.tensor([INF, INF])}, "holds 2 infinite values (rows 0, 1)"),
        ([torch.tensor([NAN])] * 7, "batch[4] holds 1 NaN (row 0), more in 2 entries"),
        ({"x": torch.tensor([NAN])}, "alone: mend the data, or pass"),
        ({"m": torch.tensor([-INF])}, "as in a mask, lower the learning rate"),
        ({"x": torch.ones(2), "n": torch.ones(2).int()}, "the loss is nan; the"),
        (None, "see whether the data hold NaN, lower the learning rate"),
    ],
)
def test_what_a_batch_holds_that_is_not_finite_is_told_by_its_place(
    batch: Any, says: str
) -> None:
    assert says in refusal("the loss is nan", batch)


class Closed:
    """An object that answers nothing."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise OSError("closed")


def test_a_batch_that_cannot_be_looked_into_ends_the_run_as_one_without_nan() -> None:
    assert "lower the learning rate" in refusal("the loss is nan", [Closed()])


@pytest.mark.parametrize("is_here", [True, False], ids=["early", "late"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_bad_loss_that_the_host_learns_of_late_names_its_window(
    accumulation: int, is_here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.hardware.readback.reads_wait", lambda device: True)
    at = "training.hardware.readback.Readback.is_here"
    monkeypatch.setattr(at, property(lambda self: is_here))
    trainer = trainer_of(loader(5), gradient_accumulation_steps=accumulation)
    told, notes = failure_of(trainer, NonFiniteError)
    assert "a loss or gradient is NaN or infinite; the trainer's optimizer left" in told
    assert "see whether the data hold NaN" in told
    window = ["batch 2 of the epoch, samples [4, 5]"]
    if accumulation == 2:
        window.append("batch 3 of the epoch, samples [6, 7]")
    assert notes == [
        f"in step {3 // accumulation + accumulation // 2}: {'; '.join(window)}"
    ]


def fails_at(row: int, error: Exception) -> Any:
    """Return a ``step_fn`` that raises at the batch that begins with ``row``."""

    def step(model: nn.Module, batch: Any) -> Any:
        x, y, numbers = batch
        if int(numbers[0]) == row:
            raise error
        return {"loss": F.mse_loss(model(x), y), "weight": len(x)}

    return step


def numbered() -> Any:
    return DataLoader(TensorDataset(*rows(), torch.arange(12)), batch_size=2)


@pytest.mark.parametrize("number", [0, 3])
def test_an_error_in_a_step_fn_keeps_its_text_and_names_the_batch(number: int) -> None:
    error = IndexError("index out of range in self")
    step = fails_at(2 * number, error)
    trainer = trainer_of(numbered(), step_fn=step, gradient_accumulation_steps=3)
    with pytest.raises(IndexError) as caught:
        trainer.train()
    assert caught.value is error
    assert str(error) == "index out of range in self"
    samples = [2 * number, 2 * number + 1]
    place = f"batch {number} of the epoch, samples {samples}"
    assert error.__notes__ == [f"in step {number // 3 + 1}: {place}"]


def test_an_error_in_forward_in_a_later_epoch_counts_batches_of_that() -> None:
    class Fails(nn.Linear):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += self.training
            if self.calls == 9:
                raise KeyError("a")
            return super().forward(x)

    trainer = trainer_of(as_list(), model=Fails(3, 1))
    trainer.num_epochs = 2
    assert failure_of(trainer, KeyError)[1] == ["in step 9: batch 2 of the epoch"]


def test_too_little_memory_is_explained_once() -> None:
    step = fails_at(2, torch.OutOfMemoryError("no memory"))
    _, (note,) = failure_of(
        trainer_of(numbered(), step_fn=step), torch.OutOfMemoryError
    )
    assert note.startswith("out of memory at step 1")


class Begins(Callback):
    """Raises before a batch is computed."""

    def on_batch_begin(self) -> None:
        raise KeyError("mine")


class Ends(Callback):
    """Raises after a batch was computed."""

    def on_batch_end(self) -> None:
        raise KeyError("mine")


@pytest.mark.parametrize("kind", [Begins, Ends])
def test_an_error_of_a_hook_names_its_plugin_and_no_batch(kind: type[Callback]) -> None:
    _, (note,) = failure_of(trainer_of(loader(), callbacks=[kind()]), KeyError)
    assert kind.__name__ in note
    assert "of the epoch" not in note


class FindsInStep(Callback):
    def on_step_end(self) -> None:
        raise NonFiniteError("mine")


class FindsInEvaluation(Callback):
    def evaluate(self) -> None:
        raise NonFiniteError("mine")


class FindsInEpoch(Callback):
    def on_epoch_end(self) -> None:
        raise NonFiniteError("mine")


@pytest.mark.parametrize("kind", [FindsInStep, FindsInEvaluation, FindsInEpoch])
def test_a_value_that_a_plugin_refuses_between_windows_names_no_batch(
    kind: type[Callback],
) -> None:
    _, notes = failure_of(trainer_of(loader(), callbacks=[kind()]), NonFiniteError)
    assert kind.__name__ in notes[0]
    assert not any("of the epoch" in note for note in notes)


class Spoils(Callback):
    """Makes the gradients of each window NaN from a step on."""

    def __init__(self, step: int = 0) -> None:
        self.step = step

    def on_before_step(self, trainer: Trainer) -> None:
        if trainer.step >= self.step:
            trainer.optimizer.param_groups[0]["params"][0].grad.fill_(NAN)


class Unending:
    """Batches of which nobody says how many there are."""

    def __iter__(self) -> Iterator[Any]:
        return iter(as_list())


def test_the_last_window_of_an_epoch_of_unknown_length_names_what_it_has() -> None:
    options: dict[str, Any] = {"gradient_accumulation_steps": 4}
    trainer = trainer_of(Unending(), callbacks=[Spoils(1)], **options)
    _, notes = failure_of(trainer, NonFiniteError)
    assert notes == ["in step 2: batch 4 of the epoch; batch 5 of the epoch"]


def test_a_window_of_many_batches_is_told_by_its_ends() -> None:
    trainer = trainer_of(loader(), callbacks=[Spoils()], gradient_accumulation_steps=8)
    _, notes = failure_of(trainer, NonFiniteError)
    assert notes == ["in step 1: batches 0 to 5 of the epoch"]


@pytest.mark.parametrize(
    ("size", "num_known"), [(1, KEPT), (MOST_INDICES // 4, 4), (MOST_INDICES + 1, 2)]
)
def test_of_large_batches_the_indices_of_fewer_are_remembered(
    size: int, num_known: int
) -> None:
    issued = Issued([[number] * size for number in range(KEPT)], loader())
    for number, indices in enumerate(issued):
        assert issued.at(number) is indices
    known = [number for number in range(KEPT) if issued.at(number) is not None]
    assert known == list(range(KEPT))[-num_known:]
