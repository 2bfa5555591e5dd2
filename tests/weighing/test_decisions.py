"""What is said about weights, refused or warned of, and that each way out works."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from processes import printed_by
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from toy import Regression, make_trainer, regression_batches
from weighing.zoo import (
    Kind,
    Perceptron,
    contrastive,
    difference,
    kinds,
    numbers,
    row_means,
    stacked,
)
from weighing.zoo import of_step as step_of

from training import Trainer
from training.errors import ConfigError, DataError

KINDS = kinds()
SPLIT = (2, 3, 3)


def mean_of_labels(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy of (B, T, C) and (B, T)."""
    return F.cross_entropy(outputs.transpose(1, 2), targets)


def said(caplog: Any) -> str:
    """Return what the package has logged about weights."""
    own = [each for each in caplog.records if each.name == "training.weighing"]
    return "\n".join(each.getMessage() for each in own)


def test_one_line_says_what_was_found(caplog: Any) -> None:
    caplog.set_level(logging.INFO, "training.weighing")
    KINDS["labels of -100"][0].trainer((8,)).train()
    assert said(caplog).startswith("loss: a mean over labels, measured on 8 samples (")
    assert "; by samples 0.375 and 0.625)" in said(caplog)
    assert "\n" not in said(caplog)


def test_units_that_weigh_alike_so_far_are_all_named(caplog: Any) -> None:
    caplog.set_level(logging.INFO, "training.weighing")
    KINDS["mean of squares"][0].trainer((8,)).train()
    both = "samples or elements of the labels, which weigh alike so far"
    assert said(caplog).startswith(f"loss: a mean over {both}, measured on 8 samples (")


def test_w6_what_cannot_be_counted_is_refused_with_the_ways_out() -> None:
    odd = [{"x": [torch.zeros(2), torch.zeros(3)], "y": torch.ones(4)}] * 4

    def step(model: nn.Module, batch: Any) -> Tensor:
        return model(torch.ones(2, 6)).square().mean()  # type: ignore[no-any-return]

    kind = Kind(Perceptron, [], lambda rows: rows, {"step_fn": step})
    model = kind.make()
    trainer = Trainer(
        model,
        odd,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        step_fn=step,
        gradient_accumulation_steps=4,
        device="cpu",
    )
    with pytest.raises(ConfigError) as caught:
        trainer.train()
    told = str(caught.value)
    assert told.startswith("gradient_accumulation_steps is 4, but what the loss is a")
    assert "how many samples a dict holds cannot be told" in told
    assert told.endswith("or say with loss_per what it is a mean over")
    assert caught.value.exit_code == 2
    assert trainer.step == 0


def test_where_each_batch_is_a_step_the_same_is_a_warning(caplog: Any) -> None:
    Kind(Perceptron, numbers(), stacked, {"loss_fn": contrastive}).trainer((8,)).train()
    assert "64 % of a batch's gradient belongs to neither part" in said(caplog)
    assert "so training is right; train_loss and val_loss count samples" in said(caplog)


def test_a_step_function_is_called_once_a_batch_where_its_unit_does_not_matter() -> (
    None
):
    """It may do more than compute a loss, such as train a second model."""
    calls = []

    def step(model: nn.Module, batch: Any) -> Tensor:
        calls.append(len(batch[0]))
        return F.mse_loss(model(batch[0]), batch[1])

    kind = Kind(Perceptron, numbers(), stacked, {"step_fn": step})
    kind.trainer((3, 3, 2), gradient_accumulation_steps=1).train()
    assert calls == [3, 3, 2]
    calls.clear()
    kind.trainer((3, 3, 2)).train()
    assert len(calls) > 3  # the control: in one window it does


INFO_NCE = Kind(Perceptron, numbers(), stacked, step_of(contrastive))


def weighed_step(model: nn.Module, batch: Any) -> dict[str, Any]:
    """Return the loss and what it weighs."""
    loss = contrastive(model(batch[0]), batch[1])
    return {"loss": loss, "weight": len(batch[0])}


def summed_step(model: nn.Module, batch: Any) -> dict[str, Any]:
    """Return the sum and what it weighs."""
    result = weighed_step(model, batch)
    return {"loss_sum": result["loss"] * result["weight"], "weight": result["weight"]}


@pytest.mark.parametrize(
    "way",
    [
        pytest.param({"loss_per": "samples"}, id="loss_per, a name"),
        pytest.param({"loss_per": lambda batch: len(batch[0])}, id="a function"),
        pytest.param({"step_fn": weighed_step}, id="weight"),
        pytest.param({"step_fn": summed_step}, id="loss_sum"),
    ],
)
def test_each_way_out_works_and_comes_to_the_same(way: dict[str, Any]) -> None:
    expected = INFO_NCE.update(SPLIT, step_fn=weighed_step)
    assert difference(INFO_NCE.update(SPLIT, **way), expected) < 1e-6
    INFO_NCE.update((8,))  # the last one: one batch a window


def test_a_weight_that_step_fn_says_wrongly_is_compared_and_kept(caplog: Any) -> None:
    def by_rows(model: nn.Module, batch: Any) -> dict[str, Any]:
        outputs = model(batch[0]).transpose(1, 2)
        return {"loss": F.cross_entropy(outputs, batch[1]), "weight": len(batch[1])}

    kind, _ = KINDS["labels of -100"]
    other = {"step_fn": by_rows, "loss_fn": None}
    split = kind.update(SPLIT, **other)
    assert "have 0.500 and 0.500, but their gradients weigh" in said(caplog)
    samples = kind.update(SPLIT, loss_per="samples")
    assert difference(split, samples) < 1e-6


def test_a_weight_that_step_fn_says_rightly_is_no_matter(caplog: Any) -> None:
    def by_labels(model: nn.Module, batch: Any) -> dict[str, Any]:
        outputs, weight = model(batch[0]).transpose(1, 2), (batch[1] >= 0).sum()
        return {"loss": F.cross_entropy(outputs, batch[1]), "weight": weight}

    kind, _ = KINDS["labels of -100"]
    other = {"step_fn": by_labels, "loss_fn": None}
    assert difference(kind.update(SPLIT, **other), kind.update((8,))) < 1e-5
    assert said(caplog) == ""


@pytest.mark.parametrize(
    ("loss_per", "told"),
    [
        pytest.param("sample", r"did you mean 'samples'\?", id="a near name"),
        pytest.param(3, "pass the name of a unit", id="a number"),
    ],
)
def test_a_unit_that_there_is_not_is_refused(loss_per: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make_trainer(loss_per=loss_per)


def test_what_a_batch_does_not_tell_is_refused() -> None:
    with pytest.raises(DataError, match="counts by labels, and how many"):
        make_trainer(loss_per="labels").train()


def test_a_sum_is_added_up_and_reported_by_samples() -> None:
    kind, _ = KINDS["reduction='sum'"]
    trainer, mean = kind.trainer((3, 5)), KINDS["cross entropy"][0].trainer((3, 5))
    trainer.train()
    mean.train()
    sums, means = trainer.history[0]["train_loss"], mean.history[0]["train_loss"]
    assert sums == pytest.approx(means, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "unit"),
    [
        pytest.param(mean_of_labels, "labels", id="a mean over labels"),
        pytest.param(row_means, "samples", id="a mean over means of rows"),
    ],
)
def test_w4_the_first_batch_that_differs_is_measured_before_it_is_used(
    loss: Any, unit: str
) -> None:
    """Four batches alike; the fifth has labels that do not count."""
    x = torch.randn(20, 9, 6, generator=torch.Generator().manual_seed(0))
    y = torch.randint(0, 5, (20, 9), generator=torch.Generator().manual_seed(1))
    y[17, 2:] = -100
    ends = []
    for loss_per in (None, unit):
        model = Perceptron()
        trainer = Trainer(
            model,
            DataLoader(TensorDataset(x, y), batch_size=4),
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            step_fn=lambda m, b: loss(m(b[0]), b[1]),
            gradient_accumulation_steps=5,
            loss_per=loss_per,
            device="cpu",
        )
        trainer.train()
        ends.append((trainer.history[0]["train_loss"], model.layers[0].weight.detach()))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-6)
    assert torch.allclose(ends[0][1], ends[1][1], rtol=0, atol=1e-7)


def test_an_evaluation_before_training_decides_nothing() -> None:
    """Its only row tells nothing, and the run goes on to measure for itself."""
    kind, unit = KINDS["labels of -100"]
    trainer = kind.trainer(SPLIT)
    one_row = tuple(column[:1] for column in kind.batches((8,))[0])
    assert trainer.compute_loss(one_row)[1] > 0
    assert trainer.compute_loss(kind.batches((8,))[0])[1] > 8
    trainer.train()
    assert trainer.state.weigher.settings()["unit"] == unit


def clamped(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a mean over all rows, labelled or not."""
    return F.cross_entropy(outputs, targets.clamp(min=0))


@pytest.mark.parametrize(("loss", "weight"), [(F.cross_entropy, 3), (clamped, 4)])
def test_w4_an_evaluated_batch_that_differs_is_measured(loss: Any, weight: int) -> None:
    """No label of the run is -100; one of the evaluation is."""
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    model = Perceptron()
    trainer = Trainer(
        model,
        [(x, torch.tensor([1, 2, 3, 4]))],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        step_fn=lambda m, b: loss(m(b[0]), b[1]),
        device="cpu",
    )
    trainer.train()
    assert trainer.compute_loss((x, torch.tensor([1, -100, 3, 4])))[1] == weight


def test_a_batch_that_cannot_tell_units_apart_any_more_is_refused() -> None:
    """Rows of one width in each batch, of another in the next, and no licence."""
    draws = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(4, width, 6, generator=draws), torch.ones(4, width).long())
        for width in (9, 9, 5)
    ]
    trainer = Kind(Perceptron, [], list).trainer(
        (0, 0, 0),
        step_fn=lambda m, b: F.cross_entropy(m(b[0]).transpose(1, 2), b[1]),
    )
    trainer.train_dataloader = batches
    with pytest.raises(ConfigError, match=r"is a mean over .* or .* could not be"):
        trainer.train()


def test_nothing_is_imported_to_measure_where_a_weight_is_said() -> None:
    code = (
        "import sys\nfrom toy import make_trainer\n"
        "make_trainer(loss_per='samples').train()\n"
        "print([m for m in sys.modules if 'weighing.measure' in m])"
    )
    assert printed_by(code) == "[]"


def test_a_measurement_costs_ten_passes_at_most() -> None:
    calls = []

    class Counting(Regression):
        def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            calls.append(len(x))
            return super().forward(x, y)

    make_trainer(Counting(), regression_batches(1, 8), loss_per="samples").train()
    trained = len(calls)
    make_trainer(Counting(), regression_batches(1, 8)).train()
    assert len(calls) - 2 * trained <= 9
    assert sum(calls[2 * trained - 1 :]) <= 7 * 8


SHAPES: list[tuple[int, ...]] = [(1,), (1, 1), (1, 2, 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8], ids=str)
@pytest.mark.parametrize("how", ["step_fn", "loss_fn"])
def test_a_batch_without_any_label_after_the_shift_is_trained_on(
    shape: tuple[int, ...], dtype: torch.dtype, how: str
) -> None:
    """Masks of one channel, or one label a row: what is no next token may count."""
    labels = torch.randint(0, 2, (12, *shape)).to(dtype)
    loader = DataLoader(TensorDataset(torch.randn(12, 6), labels), batch_size=4)

    def loss_of(outputs: Tensor, labels: Tensor) -> Tensor:
        wanted = labels.flatten(1).float()
        outputs = outputs[:, :1].expand_as(wanted)
        return F.binary_cross_entropy_with_logits(outputs, wanted)

    def step(model: nn.Module, batch: Any) -> Tensor:
        return loss_of(model(batch[0]), batch[1])

    given: dict[str, Any] = (
        {"step_fn": step} if how == "step_fn" else {"loss_fn": loss_of}
    )
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(
        *(model, loader),
        val_dataloader=loader,
        optimizer=optimizer,
        device="cpu",
        **given,
    )
    trainer.train()
    assert (trainer.step, trainer.update) == (3, 3)
    row = trainer.history[-1]
    with torch.no_grad():
        expected = loss_of(model(loader.dataset.tensors[0]), labels)
    assert row["val_loss"] == pytest.approx(float(expected), rel=1e-5)
    assert 0.0 < row["train_loss"] < 2.0


def test_one_token_a_batch_is_trained_on() -> None:
    rows = [(torch.randn(n, 6), torch.randint(0, 3, (n,))) for n in (1, 1, 3, 1, 2)]
    model = nn.Linear(6, 3)
    trainer = Trainer(
        *(model, DataLoader(rows, batch_size=1)),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        step_fn=lambda model, batch: mean_of_labels(model(batch[0]), batch[1]),
        device="cpu",
    )
    trainer.train()
    assert trainer.update == len(rows)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("width", [None, 3])
@pytest.mark.parametrize("loss_fn", [nn.CrossEntropyLoss(), mean_of_labels])
def test_a_batch_without_a_label_that_counts_weighs_nothing_wherever_it_stands(
    place: int, width: int | None, loss_fn: Any
) -> None:
    size = (4,) if width is None else (4, width)
    batches = [(torch.randn(*size, 6), torch.randint(0, 3, size)) for _ in range(4)]
    batches[place][1][:] = -100
    if width is None and loss_fn is mean_of_labels:
        loss_fn = F.cross_entropy
    elif width is not None:
        loss_fn = mean_of_labels

    def trained(batches: Any, **options: Any) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Linear(6, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        Trainer(
            *(model, batches),
            optimizer=optimizer,
            loss_fn=loss_fn,
            device="cpu",
            **options,
        ).train()
        return model

    whole = tuple(torch.cat(part) for part in zip(*batches, strict=True))
    assert_close(trained([whole]), trained(batches, gradient_accumulation_steps=4))


def assert_close(one: nn.Module, other: nn.Module) -> None:
    """Both have the same parameters, but for rounding."""
    for left, right in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(left, right)


def test_an_epoch_that_trains_nothing_is_told(caplog: Any) -> None:
    labels = torch.full((4,), -100)
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss_fn, batches = nn.CrossEntropyLoss(), [(torch.randn(4, 6), labels)]
    Trainer(
        *(model, batches), optimizer=optimizer, loss_fn=loss_fn, device="cpu"
    ).train()
    assert "epoch 1 trained nothing: no item counted" in caplog.text
