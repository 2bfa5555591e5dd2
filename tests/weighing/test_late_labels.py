"""A label that the loss leaves out, and that no batch has before the last one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainbus_evaluation import EvaluationCallback, Evaluator
from training import Callback, NonFiniteError, Trainer
from training.weighing.later_looks import LaterLooks

LEFT_OUT = 0
Batch = tuple[Tensor, Tensor]


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 7)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(inputs)
        return logits.flatten(0, 1)


def own_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels.flatten(), ignore_index=LEFT_OUT)


class FlatLoss(nn.CrossEntropyLoss):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().forward(logits, labels.flatten())


def num_left(batch: Batch) -> float:
    return float((batch[1] != LEFT_OUT).sum())


def own_step(model: nn.Module, batch: Batch) -> Mapping[str, Any]:
    loss = own_loss(model(batch[0]), batch[1])
    return {"loss": loss, "weight": num_left(batch)}


SAID: dict[str, Callable[[], dict[str, Any]]] = {
    "the index by torch's own loss": lambda: {
        "loss_fn": FlatLoss(ignore_index=LEFT_OUT)
    },
    "the number by loss_per": lambda: {"loss_fn": own_loss, "loss_per": num_left},
    "the number by step_fn": lambda: {"step_fn": own_step},
}


def off_by(make: Callable[[], dict[str, Any]]) -> float:
    """Return how far four batches a window move the weights off one large batch."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(16, 6, 4, generator=generator)
    labels = torch.randint(1, 7, (16, 6), generator=generator)
    labels[12:, 2:] = LEFT_OUT
    model = Tagger()

    def update(size: int) -> Tensor:
        mine = copy.deepcopy(model)
        pairs = zip(inputs.split(size), labels.split(size), strict=True)
        Trainer(
            mine,
            list(pairs),
            optimizer=torch.optim.SGD(mine.parameters(), lr=0.1),
            gradient_accumulation_steps=len(inputs) // size,
            device="cpu",
            **make(),
        ).train()
        return (mine.head.weight - model.head.weight).detach()

    whole = update(len(inputs))
    return float((update(4) - whole).norm() / whole.norm())


@pytest.mark.parametrize("way", SAID)
def test_a_label_that_only_late_batches_have_is_left_out_where_that_is_said(
    way: str,
) -> None:
    assert off_by(SAID[way]) < 1e-5


def test_a_label_that_only_late_batches_have_is_counted_where_nobody_says() -> None:
    assert off_by(lambda: {"loss_fn": own_loss}) > 0.1


IGNORED = -100


def halves(*ignored: int) -> list[Batch]:
    """Return six batches of four rows; the labels in those places do not count."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(24, 6, generator=generator)
    labels = torch.randint(0, 4, (24,), generator=generator)
    labels[list(ignored)] = IGNORED
    return list(zip(inputs.split(4), labels.split(4), strict=True))


def step(model: nn.Module, batch: Batch) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1])


def stepping(batches: list[Batch], held_out: list[Batch], **options: Any) -> Trainer:
    """Return a run of a ``step_fn``, a batch a step."""
    torch.manual_seed(1)
    model = nn.Linear(6, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    given = {"step_fn": step, "device": "cpu", "seed": 0, **options}
    return Trainer(
        *(model, batches), val_dataloader=held_out, optimizer=optimizer, **given
    )


def loss_of(model: nn.Module, batches: list[Batch]) -> float:
    """Return the loss of all batches as one."""
    inputs, labels = zip(*batches, strict=True)
    with torch.no_grad():
        return float(step(model, (torch.cat(inputs), torch.cat(labels))))


#: The second batch has one label, which tells nothing by itself.
ONE_LABEL = halves(1, 5, 6, 7, 8, 9)
#: There it is the first.
ONE_LABEL_FIRST = ONE_LABEL[1:] + ONE_LABEL[:1]
NO_LABEL = halves(4, 5, 6, 7)


@pytest.mark.parametrize("sanity", [0, 1])
@pytest.mark.parametrize("held_out", [ONE_LABEL, NO_LABEL, NO_LABEL[1:]])
def test_evaluated_batches_that_tell_nothing_count_as_the_others_do(
    held_out: list[Batch], sanity: int, caplog: pytest.LogCaptureFixture
) -> None:
    evaluation = EvaluationCallback(sanity_batches=sanity)
    trainer = stepping(halves(), held_out, callbacks=[evaluation], num_epochs=2)
    trainer.train()
    expected = loss_of(trainer.model, held_out)
    assert trainer.history[-1]["val_loss"] == pytest.approx(expected, rel=1e-6)
    assert "evaluation counts" not in caplog.text


def test_what_no_evaluated_batch_has_told_counts_by_one_unit_and_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = stepping(halves(), ONE_LABEL_FIRST, num_epochs=3)
    trainer.train()
    means = [loss_of(trainer.model, [each]) for each in ONE_LABEL_FIRST]
    by_samples = sum(means) / len(means)
    assert trainer.history[-1]["val_loss"] == pytest.approx(by_samples, rel=1e-6)
    told = [
        each.getMessage() for each in caplog.records if "count" in each.getMessage()
    ]
    assert len(told) == 1
    assert told[0].startswith(
        "evaluation counts by samples: whether the loss is a mean"
    )


def test_before_training_a_batch_that_tells_nothing_counts_as_that_before_it() -> None:
    trainer = stepping(halves(), halves())
    for held_out in (ONE_LABEL, NO_LABEL, NO_LABEL[1:]):
        evaluator = Evaluator(trainer.model, compute_loss=trainer.compute_loss)
        expected = pytest.approx(loss_of(trainer.model, held_out), rel=1e-6)
        assert evaluator.evaluate(held_out)["loss"] == expected


def test_two_units_in_one_mean_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """Before training nothing can be known of batches to come."""
    trainer = stepping(halves(), halves())
    for batch in ONE_LABEL_FIRST:
        trainer.compute_loss(batch)
    assert "this batch tells labels, and batches before it were counted" in caplog.text


@pytest.mark.parametrize("num_left", [2, 4])
def test_a_batch_without_a_label_weighs_nothing_where_no_unit_was_told(
    num_left: int,
) -> None:
    """Not even the second, of two rows, tells whether it is labels or samples."""
    inputs, labels = (torch.cat(each) for each in zip(*halves(1), strict=True))
    batches = [(inputs[:4], labels[:4])]
    batches += [(inputs[at : at + 2], labels[at : at + 2]) for at in range(4, 24, 2)]
    for batch in batches[3:12:num_left]:
        batch[1][:] = IGNORED
    ends, losses = [], []
    for said in (None, "labels"):
        trainer = stepping(batches, batches, loss_per=said, num_epochs=2)
        trainer.train()
        ends.append(trainer.model.weight.detach())
        losses.append(trainer.history[-1]["val_loss"])
    assert torch.equal(*ends)
    assert losses[0] == pytest.approx(losses[1], rel=0.05)  # by samples: it is said


def clamped(model: nn.Module, batch: Batch) -> Tensor:
    """Return a mean over all rows, labelled or not."""
    return cross_entropy(model(batch[0]), batch[1].clamp(min=0))


def test_but_one_that_has_a_gradient_weighs_and_is_looked_at_once() -> None:
    looked = []

    def counted(model: nn.Module, batch: Batch) -> Tensor:
        looked.append(batch)
        return clamped(model, batch)

    inputs, labels = (torch.cat(each) for each in zip(*halves(1), strict=True))
    batches = [(inputs[:4], labels[:4])]
    batches += [(inputs[at : at + 2], labels[at : at + 2]) for at in range(4, 24, 2)]
    for batch in batches[3:]:
        batch[1][:] = IGNORED
    trainer = stepping(batches, None, step_fn=counted)  # type: ignore[arg-type]
    trainer.train()
    assert trainer.update == len(batches)
    first = len(looked)
    stepping(batches[:4], None, step_fn=counted).train()  # type: ignore[arg-type]
    assert len(looked) - first == first - len(batches[4:])


class SavesAt(Callback):
    """Saves a checkpoint at a step of a run that goes on."""

    name = "saves_at"

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            trainer.request_checkpoint("asked")

    def on_checkpoint(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("held_out", [ONE_LABEL, ONE_LABEL_FIRST])
@pytest.mark.parametrize("at", [4, 8])
def test_a_resumed_run_evaluates_by_what_evaluations_had_told(
    held_out: list[Batch], at: int, tmp_path: Path
) -> None:
    """Its look before training, where that is the first evaluation, tells nothing."""
    saves = SavesAt(at, tmp_path / "one.pt")
    straight = stepping(halves(), held_out, callbacks=[saves], num_epochs=3)
    straight.train()
    goes_on = stepping(halves(), held_out, callbacks=[saves], num_epochs=3)
    goes_on.train(resume=saves.path)
    assert goes_on.history[-1]["val_loss"] == straight.history[-1]["val_loss"]
    assert goes_on.state.weigher.settings() == straight.state.weigher.settings()


def in_a_function(outputs: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(outputs, labels)


@pytest.mark.parametrize("how", [{}, {"step_fn": None, "loss_fn": in_a_function}])
def test_an_evaluation_decides_nothing_for_the_batches_that_are_trained_on(
    how: dict[str, Any],
) -> None:
    """Neither while the unit is sought nor where several are left in the end."""
    told = []
    for held_out in (None, ONE_LABEL, ONE_LABEL_FIRST, NO_LABEL):
        trainer = stepping(halves(), held_out, num_epochs=2, **how)  # type: ignore[arg-type]
        trainer.train()
        told.append(trainer.state.weigher.settings() | {"aside": None})
    assert told[1:] == told[:1] * 3


class Contrasts(nn.Module):
    """Pulls pairs together, up to a margin: a mean over no samples or positions."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, padding_mask: Tensor) -> dict[str, Tensor]:
        z = self.head((x * ~padding_mask[..., None]).sum(1))
        apart = torch.cdist(z, z)
        return {"loss": torch.relu(apart - apart.T.roll(1, 0) + x.mean() * 9).mean()}


@pytest.mark.parametrize("shift", [-100.0, float("nan")])
def test_a_mask_without_ones_makes_no_batch_a_mean_over_nothing(shift: float) -> None:
    """Of padding it is all zeros where nothing is padded."""

    def made(is_padded: bool, shift: float = 0.0) -> dict[str, Tensor]:
        mask = torch.zeros(8, 5, dtype=torch.bool)
        mask[::2, 3:] = is_padded
        return {"x": torch.randn(8, 5, 4) + shift, "padding_mask": mask}

    torch.manual_seed(0)
    model = Contrasts()
    trainer = Trainer(
        model,
        [made(True), *(made(False, shift) for _ in range(3))],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        device="cpu",
    )
    if shift == shift:
        trainer.train()
        assert trainer.update == 4
    else:
        with pytest.raises(NonFiniteError):
            trainer.train()


def mixing_where_a_label_lacks(outputs: Tensor, labels: Tensor) -> Tensor:
    loss = cross_entropy(outputs, labels)
    return loss + outputs.std() if (labels == IGNORED).any() else loss


def test_a_resumed_run_counts_samples_where_a_batch_tells_that_there_is_no_unit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    how: Any = {"step_fn": None, "loss_fn": mixing_where_a_label_lacks}
    saves = SavesAt(2, tmp_path / "two.pt")
    stepping(halves(), halves()[:1], callbacks=[saves], num_epochs=1, **how).train()
    caplog.clear()
    goes_on = stepping(halves(12), halves()[:1], num_epochs=1, **how)
    goes_on.train(resume=saves.path)
    assert "train_loss and val_loss count samples" in caplog.text


class Tagged(NamedTuple):
    ids: Tensor
    meta: Any


class Rows(list[Any]):
    """Counts how often it is gone through."""

    num_looks = 0

    def __iter__(self) -> Iterator[Any]:
        self.num_looks += 1
        return super().__iter__()


@pytest.mark.parametrize(
    "pack",
    [
        pytest.param(lambda ids, rows: {"ids": ids, "rows": rows}, id="an entry"),
        pytest.param(
            lambda ids, rows: ({"ids": ids, "rows": rows}, torch.ones(2)),
            id="in a mapping in a tuple",
        ),
        pytest.param(lambda ids, rows: (ids, [rows, rows]), id="in a list in a tuple"),
        pytest.param(
            lambda ids, rows: [{"ids": ids, "rows": rows}, {"ids": ids, "rows": rows}],
            id="in each of a list",
        ),
        pytest.param(lambda ids, rows: Tagged(ids, {"rows": rows}), id="in a field"),
    ],
)
def test_only_where_a_batch_may_ignore_a_label_are_later_ones_looked_into(
    pack: Callable[[Tensor, Any], Any],
) -> None:
    looks, rows = LaterLooks(0), Rows(["a", "b"])
    looks.is_due(pack(torch.tensor([1, 2]), rows))
    before = rows.num_looks
    assert before
    looks.is_due(pack(torch.tensor([1, 2]), rows))
    assert rows.num_looks == before
    looks.is_due(pack(torch.tensor([1, IGNORED]), rows))
    assert looks.num_ignoring == 1


def test_a_later_batch_may_ignore_a_label_in_more_rows_than_the_first_has() -> None:
    looks, kept = LaterLooks(0), {"cls": torch.tensor([1])}
    looks.is_due([kept])
    looks.is_due([kept, {"cls": torch.tensor([IGNORED])}])
    assert looks.num_ignoring == 1
