"""The unit of every kind of loss, and what a window makes of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, nll_loss
from toy import make_trainer
from weighing.every_kind import FOUND, KINDS, NONE
from weighing.zoo import (
    SPLIT,
    Kind,
    Perceptron,
    difference,
    numbers,
    of_step,
    over_positives,
    stacked,
)

from trainbus_evaluation import Evaluator
from training import Callback, Trainer
from training.errors import CheckpointError, ConfigError
from training.loop.forward import make_forward
from training.weighing.counts import Counts
from training.weighing.weigher import Weigher

#: Their statistics are those of a batch, which no weight mends.
KNOWN_LIMITS = {"BatchNorm", "a centre that moves"}


def measured(kind: Kind) -> Any:
    """Return the weigher of a run in which two batches of eight rows are a window."""
    trainer = kind.trainer((8,), times=2)
    trainer.train()
    return trainer.state.weigher


@pytest.mark.parametrize("name", FOUND)
def test_the_unit_is_found_of(name: str) -> None:
    kind, unit = KINDS[name]
    settings = measured(kind).settings()
    assert settings["unit"] == unit
    assert settings["r"] < 1e-6


@pytest.mark.parametrize("name", NONE)
def test_w6_no_unit_is_found_of(name: str) -> None:
    kind, _ = KINDS[name]
    with pytest.raises(ConfigError, match="the loss is no mean over samples"):
        measured(kind)


#: Labels and samples are the same number there.
ONE_LABEL_EACH = {"cross entropy", "a head of zeros", "with dropout", "BatchNorm"}


@pytest.mark.parametrize("name", [n for n in FOUND if n not in KNOWN_LIMITS])
def test_a_split_window_moves_the_weights_as_one_batch(name: str) -> None:
    kind, unit = KINDS[name]
    whole = kind.update((8,))
    assert difference(kind.update(SPLIT), whole) < 1e-5
    if unit != "samples" and name not in ONE_LABEL_EACH:  # the control: a guess
        assert difference(kind.update(SPLIT, loss_per="samples"), whole) > 1e-2


@pytest.mark.parametrize("name", NONE)
def test_w6_a_loss_without_a_unit_is_refused_before_a_window_ends(name: str) -> None:
    kind, _ = KINDS[name]
    trainer = kind.trainer(SPLIT)
    with pytest.raises(ConfigError, match="gradient_accumulation_steps is 3, but"):
        trainer.train()
    assert trainer.step == 0


def test_w1_an_unknown_unit_that_has_the_shares_of_another_in_one_cut() -> None:
    """The first cut has 6 of 16 positives in 3 of 8 rows."""
    positives = (1, 2, 3, 2, 2, 2, 2, 2)
    rows = [
        (x, y.abs() * torch.where(torch.arange(5) < number, 1, -1))
        for (x, y), number in zip(numbers(), positives, strict=True)
    ]
    kind = Kind(Perceptron, rows, stacked, of_step(over_positives))
    with pytest.raises(ConfigError, match="the loss is no mean over samples"):
        measured(kind)


def test_w2_losses_that_are_all_equal_hide_nothing() -> None:
    kind, unit = KINDS["a head of zeros"]
    assert measured(kind).settings()["unit"] == unit


def test_w3_buffers_are_put_back_before_every_pass() -> None:
    """A centre that the first pass moved would make the others another loss."""
    kind, unit = KINDS["a centre that moves"]
    assert measured(kind).settings()["unit"] == unit


#: Labels of batches, None for one that is left out: unequal numbers in equal rows.
LABELS = ([0, 1, None, 2], [2, 2, 1, 1], [None, 0, None, None])
CLASS_WEIGHTS = torch.tensor([1.0, 4.0, 0.5])


class Classifier(nn.Linear):
    """Three classes from two numbers; counts its passes."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(2, 3)
        self.passes: list[None] = []  # a number would be put back after measuring

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        self.passes.append(None)
        return super().forward(x)


class Mixing(Classifier):
    """Its rows depend on one another: no weight makes a batch of two of its parts."""

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return super().forward(x - 2 * x.mean(0))


class OwnCrossEntropy(nn.CrossEntropyLoss):
    """May be anything."""


def hooked() -> nn.Module:
    """Return a cross entropy that a hook makes another loss."""
    loss = nn.CrossEntropyLoss()
    loss.register_forward_hook(lambda module, given, found: found * len(given[1]))
    return loss


def replaced() -> nn.Module:
    """Return a cross entropy whose instance computes something else."""
    loss = nn.CrossEntropyLoss()
    loss.forward = lambda outputs, labels: outputs.square().mean()  # type: ignore[assignment]
    return loss


def classes(ignored: int = -100) -> list[Any]:
    """Return batches of (inputs (4, 2), classes (4,))."""
    generator = torch.Generator().manual_seed(3)
    labels = [[ignored if y is None else y for y in each] for each in LABELS]
    return [(torch.randn(4, 2, generator=generator), torch.tensor(y)) for y in labels]


#: Name -> (loss, the label that it leaves out, what it is a mean over).
OF_TORCH: dict[str, tuple[Any, int, str]] = {
    "cross entropy": (nn.CrossEntropyLoss(), -100, "labels"),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.2), -100, "labels"),
    "weights": (nn.CrossEntropyLoss(CLASS_WEIGHTS), -100, "class_weights"),
    "weights, smoothed": (
        nn.CrossEntropyLoss(CLASS_WEIGHTS, label_smoothing=0.2),
        -100,
        "class_weights",
    ),
    "ignore_index": (nn.CrossEntropyLoss(ignore_index=2), 2, "labels"),
    "likelihood": (nn.NLLLoss(CLASS_WEIGHTS), -100, "class_weights"),
    "a function": (cross_entropy, -100, "labels"),
    "another one": (nll_loss, -100, "labels"),
    "a partial": (
        partial(cross_entropy, weight=CLASS_WEIGHTS, ignore_index=1),
        1,
        "class_weights",
    ),
}
#: What may be no mean over labels, or is none.
OTHERS: dict[str, Any] = {
    "a subclass": OwnCrossEntropy(),
    "a function of the user's": lambda outputs, labels: cross_entropy(outputs, labels),
    "a sum": nn.CrossEntropyLoss(reduction="sum"),
    "a partial sum": partial(cross_entropy, reduction="sum"),
    "an old word": partial(cross_entropy, size_average=False),
    "a hook": hooked(),
    "a method of its own": replaced(),
}


@pytest.mark.parametrize("name", OF_TORCH)
def test_torchs_own_cross_entropy_is_weighed_as_defined_and_not_measured(
    name: str,
) -> None:
    loss_fn, ignored, unit = OF_TORCH[name]
    model, batches = Classifier(), classes(ignored)
    # The weights stay: the mean of the epoch is the loss of all rows in one batch.
    trainer = make_trainer(model, batches, loss_fn=loss_fn, lr=0.0)
    trainer.train()
    assert len(model.passes) == len(batches)
    assert trainer.state.weigher.settings()["unit"] == unit
    inputs, labels = (torch.cat(each) for each in zip(*batches, strict=True))
    whole = float(loss_fn(model(inputs), labels).detach())
    assert trainer.history[0]["train_loss"] == pytest.approx(whole, rel=1e-6)


class SetsWeights(Callback):
    """Gives a loss other weights of classes when an epoch begins."""

    def __init__(self, loss_fn: nn.CrossEntropyLoss) -> None:
        self.loss_fn = loss_fn

    def on_epoch_begin(self) -> None:
        """Set them."""
        self.loss_fn.weight = CLASS_WEIGHTS


def test_class_weights_that_a_plugin_sets_are_used() -> None:
    loss_fn, batches = nn.CrossEntropyLoss(torch.ones(3)), classes()
    trainer = make_trainer(
        Classifier(), batches, SetsWeights(loss_fn), loss_fn=loss_fn, lr=0.0
    )
    trainer.train()
    inputs, labels = (torch.cat(each) for each in zip(*batches, strict=True))
    whole = float(loss_fn(trainer.model(inputs), labels).detach())
    assert trainer.history[0]["train_loss"] == pytest.approx(whole, rel=1e-6)


@pytest.mark.filterwarnings("ignore:size_average and reduce args")
@pytest.mark.parametrize("name", OTHERS)
def test_any_other_loss_is_measured(name: str) -> None:
    model, batches = Classifier(), classes()
    make_trainer(model, batches, loss_fn=OTHERS[name]).train()
    assert len(model.passes) > len(batches)


def test_soft_targets_are_measured() -> None:
    model = Classifier()
    batches = [(x, torch.full((4, 3), 1 / 3)) for x, _ in classes()]
    make_trainer(model, batches, loss_fn=nn.CrossEntropyLoss()).train()
    assert len(model.passes) > len(batches)


def test_in_a_window_of_several_batches_it_is_measured_whether_rows_mix() -> None:
    batches: Any = classes() * 2
    how: dict[str, Any] = {"loss_fn": cross_entropy, "gradient_accumulation_steps": 2}
    make_trainer(Classifier(), batches, **how).train()
    with pytest.raises(ConfigError, match="belongs to neither part"):
        make_trainer(Mixing(), batches, **how).train()


def resumed(
    folder: Path,
    model: type[Classifier],
    loss_fn: Any,
    changes: list[str],
    batches: Any = None,
    **how: Any,
) -> Trainer:
    """Return a run that goes on from one of plain steps with torch's cross entropy."""
    path = folder / f"{model.__name__}.pt"
    batches = batches or classes() * 2
    first = make_trainer(model(), batches, loss_fn=cross_entropy)
    first.train()
    first.save_checkpoint(path)
    other = make_trainer(model(), batches, loss_fn=loss_fn, num_epochs=2, **how)
    other.load_checkpoint(path, allow_changes=changes)
    return other


def test_a_run_that_goes_on_with_longer_windows_is_measured_then(
    tmp_path: Path,
) -> None:
    how: dict[str, Any] = {"changes": ["gradient_accumulation_steps"]}
    how["gradient_accumulation_steps"] = 2
    longer = resumed(tmp_path, Classifier, cross_entropy, **how)
    longer.train()
    assert longer.step == 6 + 3
    assert longer.state.weigher.settings()["cuts"] > 0
    batches = [(x[:1], y[:1]) for x, y in classes()[1:2]] + classes() * 2
    longer = resumed(tmp_path, Mixing, cross_entropy, batches=batches, **how)
    with pytest.raises(ConfigError, match="belongs to neither part"):
        longer.train()
    assert longer.step <= 8


def test_a_run_that_goes_on_with_another_definition_needs_consent(
    tmp_path: Path,
) -> None:
    weighted = partial(cross_entropy, weight=CLASS_WEIGHTS)
    with pytest.raises(CheckpointError, match="was 'labels', is 'class_weights'"):
        resumed(tmp_path, Classifier, weighted, []).train()
    other = resumed(tmp_path, Classifier, weighted, ["loss_per"])
    other.train()
    assert other.state.weigher.settings()["unit"] == "class_weights"


def test_a_definition_that_takes_over_from_a_measured_unit_is_known_for_one(
    tmp_path: Path,
) -> None:
    first = make_trainer(Classifier(), classes(), loss_fn=OwnCrossEntropy())
    first.train()
    assert not first.state.weigher.settings()["is_defined"]
    first.save_checkpoint(tmp_path / "first.pt")
    weighted = partial(cross_entropy, weight=CLASS_WEIGHTS)
    other = make_trainer(Classifier(), classes(), loss_fn=weighted, num_epochs=2)
    other.load_checkpoint(tmp_path / "first.pt", allow_changes=["loss_per"])
    other.train()
    assert other.state.weigher.settings()["unit"] == "class_weights"
    # Longer windows will measure it.
    assert other.state.weigher.settings()["is_defined"]


def test_a_batch_that_is_evaluated_before_the_first_step_is_not_measured() -> None:
    model = Classifier()
    weigher = Weigher(None, make_forward(cross_entropy, None), cross_entropy, False)
    weigher.prepare(model, torch.device("cpu"), batches_a_window=4)
    assert [weigher.evaluated(batch) for batch in classes()] == [3, 4, 1]
    assert len(model.passes) == 0


class Turned(NamedTuple):
    labels: Tensor
    others: Tensor


def test_labels_by_name_that_the_loss_is_not_given_define_nothing() -> None:
    labels = torch.tensor([0, 1])
    counts = Counts(cross_entropy)
    assert counts.defined(Turned(labels, labels + 1)) is None
    assert counts.defined({"x": labels, "y": labels}) is None
    assert counts.defined(()) is None
    assert counts.defined((labels, labels)) == "labels"


def test_what_an_earlier_batch_told_is_not_forgotten_for_the_definition() -> None:
    soft = [(torch.randn(2, 2), torch.full((2, 3), 1 / 3)) for _ in range(3)]
    hard = [(torch.randn(2, 2), torch.tensor([0, 2]))]
    batches = [soft[0], hard[0], soft[1], hard[0]]
    trainer = make_trainer(Classifier(), batches, loss_fn=nn.CrossEntropyLoss())
    trainer.train()
    assert trainer.state.weigher.settings()["unit"] == "samples"


def test_a_unit_that_was_said_is_not_taken_for_a_definition(tmp_path: Path) -> None:
    how: dict[str, Any] = {"gradient_accumulation_steps": 2, "loss_fn": cross_entropy}
    first = make_trainer(Mixing(), classes() * 2, loss_per="labels", **how)
    first.train()
    first.save_checkpoint(tmp_path / "first.pt")
    other = make_trainer(Mixing(), classes() * 2, num_epochs=2, **how)
    other.load_checkpoint(tmp_path / "first.pt")
    other.train()  # as before: what was said holds until another unit is found
    assert other.state.weigher.settings()["unit"] == "labels"


def test_an_evaluation_by_itself_weighs_as_defined() -> None:
    loss_fn, model, batches = (
        nn.CrossEntropyLoss(CLASS_WEIGHTS),
        Classifier(),
        classes(),
    )
    found = Evaluator(model, "cpu", loss_fn=loss_fn).evaluate(batches)
    assert len(model.passes) == len(batches)
    inputs, labels = (torch.cat(each) for each in zip(*batches, strict=True))
    whole = float(loss_fn(model(inputs), labels).detach())
    assert found["loss"] == pytest.approx(whole, rel=1e-6)
