"""A label that is no class is told with what the loss knows, not with an index."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from training import DataError, Trainer

X = torch.randn(16, 3)
FOUR = torch.ones(4)


def rows(label: int | None = None, shape: tuple[int, ...] = ()) -> TensorDataset:
    """Return rows of which number 9 has ``label``."""
    labels = torch.zeros(16, *shape, dtype=torch.int64)
    if label is not None:
        labels[9] = label
    return TensorDataset(X, labels)


class Told(nn.Linear):
    """Tells 4 classes for each row, or for each of 2 places in it."""

    def __init__(self, places: int) -> None:
        super().__init__(3, 4 * places)
        self.places = places

    def forward(self, x: Tensor) -> Tensor:
        told = super().forward(x)
        return told.view(len(x), 4, self.places) if self.places > 1 else told


def train(data: Any, loss_fn: Any, places: int = 1, **options: Any) -> Trainer:
    model = Told(places)
    trainer = Trainer(
        model,
        DataLoader(data, batch_size=4) if isinstance(data, TensorDataset) else data,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=loss_fn,
        num_epochs=1,
        device="cpu",
        plugins=["no:progress", "no:run_record"],
        **options,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("label", [255, 4, -1])
@pytest.mark.parametrize("places", [1, 2])
def test_a_label_without_a_class_weight_is_named_with_its_samples(
    label: int, accumulation: int, places: int
) -> None:
    data = rows(label, (places,) if places > 1 else ())
    loss = nn.CrossEntropyLoss(FOUR, ignore_index=-7)
    with pytest.raises(DataError) as caught:
        train(data, loss, places, gradient_accumulation_steps=accumulation)
    text = str(caught.value)
    assert f"rows 1 of a batch (samples 9) have the labels {label}, which" in text
    assert "4 class weights, for labels from 0 to 3" in text
    assert "ignore_index -7 alone" in text


@pytest.mark.parametrize("label", [255, -1])
def test_a_label_of_the_first_batch_or_of_a_plain_list_is_named_too(label: int) -> None:
    labels = torch.tensor([0, label, 2, label])
    with pytest.raises(
        DataError, match=f"rows 1, 3 of a batch have the labels {label}"
    ):
        train([(X[:4], labels)], functools.partial(
            nn.functional.cross_entropy, weight=FOUR
        ))  # fmt: skip


def test_what_is_ignored_needs_no_class_weight() -> None:
    train(rows(255), nn.CrossEntropyLoss(FOUR, ignore_index=255))


def test_a_loss_of_ones_own_may_take_labels_in_its_own_way() -> None:
    class LastIsMinusOne(nn.CrossEntropyLoss):
        def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
            return super().forward(outputs, labels % 4)

    train(rows(-1), LastIsMinusOne(FOUR), gradient_accumulation_steps=2)
    with pytest.raises(
        DataError, match=r"class weights .* cannot be told; .* loss_per"
    ):
        train(rows(7), LastIsMinusOne(FOUR), gradient_accumulation_steps=2)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch.compile
@pytest.mark.parametrize("label", [255, -1])
def test_without_class_weights_the_label_and_ignore_index_are_told(label: int) -> None:
    found = f"has the label {label}, which is no class of the outputs"
    with pytest.raises(DataError, match=f"{found}.* ignore_index -100 alone"):
        train(rows(label), nn.CrossEntropyLoss())
    nine = nn.CrossEntropyLoss(ignore_index=9)
    for given in (
        functools.partial(nn.functional.cross_entropy, ignore_index=9),
        functools.partial(nine),
        nine.forward,
        torch.compile(nine, backend="eager"),
    ):
        with pytest.raises(DataError, match=f"{found}.* ignore_index 9 alone"):
            train(rows(label), given, loss_per="labels")


def test_a_loss_of_ones_own_keeps_torchs_words() -> None:
    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, labels)

    with pytest.raises(IndexError, match="Target 255 is out of bounds"):
        train(rows(255), loss)


@pytest.mark.parametrize("weight", [FOUR, None])
def test_in_validation_no_way_is_told_that_only_puts_it_off(
    weight: Tensor | None,
) -> None:
    with pytest.raises(DataError) as caught:
        train(
            rows(),
            nn.CrossEntropyLoss(weight),
            val_dataloader=DataLoader(rows(255), batch_size=16),
        )
    notes = "".join(caught.value.__notes__)
    assert "this was the first of the validation data" in notes
    assert "sanity_batches" not in notes
