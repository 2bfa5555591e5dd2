"""``trainbus check``: equal gradients in two splits, or the model family is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from toy import Regression, assert_equal_weights, regression_batches, weights_of

from trainbus_models.blip.family import Blip
from training import ConfigError, Trainer
from training.app.prove.gradient_check import compare_splits, require_agreement
from training.recipes.batch import Batch

Command = Callable[..., tuple[int, str, str]]

ANSWERS = ("red", "very dark green", "blue and white and red", "white")


@pytest.fixture
def unequal(workplace: Path) -> Path:
    """Return the working directory with answers of one to five words, twice over."""
    rows = [
        {"image": f"{color}.png", "question": "what color?", "answer": answer}
        for color, answer in zip(
            ("red", "green", "blue", "white"), ANSWERS, strict=True
        )
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows * 2)
    (workplace / "rows/train.jsonl").write_text(text)
    return workplace


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "label"),
    [
        pytest.param(8, 1, "1 x 8", id="one batch"),
        pytest.param(2, 4, "4 x 2", id="four batches"),
        pytest.param(1, 8, "8 x 1", id="eight single rows"),
        pytest.param(3, 3, "3 + 3 + 2", id="a ragged window"),
    ],
)
def test_blip_passes_and_the_table_shows_what_was_compared(
    unequal: Path, command: Command, batch_size: int, accumulation: int, label: str
) -> None:
    sets = [
        f"data.batch_size={batch_size}",
        f"training.gradient_accumulation_steps={accumulation}",
        "model.build.dropout=0.5",
    ]
    code, out, err = command(
        "check", "run.yaml", *(word for each in sets for word in ("--set", each))
    )
    assert (code, err) == (0, "")
    head, titles, *rows = out.splitlines()
    assert head == "first window: 8 rows, in fp32, dropout off"
    assert titles.split() == ["split", "gradient", "norm", "difference"]
    assert rows[0].startswith(f"{label} ")
    assert rows[-1] == "blip: both splits have the same gradient"
    if batch_size > 1:  # one row of one word has no two parts
        assert any(row.startswith("loss: a mean over label tokens") for row in rows)
    if batch_size > 1:  # the comparison would have seen wrong weights
        assert float(rows[2].split()[-1]) > 1e-3
    assert not (unequal / "out").exists()


def test_a_family_whose_weights_are_wrong_is_refused_by_name(
    unequal: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Blip.collate

    def by_rows(self: Blip, processor: Any, rows: Any) -> Batch:
        batch = right(self, processor, rows)
        batch.loss_weight = len(rows)  # the loss is a mean over tokens
        return batch

    monkeypatch.setattr(Blip, "collate", by_rows)
    code, out, err = command("check", "run.yaml", "--set", "data.batch_size=8")
    assert code == 2
    assert "model family 'blip'" in err
    assert "make batch.loss_weight the number" in err
    assert "1 x 8" in out
    assert "same gradient" not in out


def trainer_of(model: nn.Module, **options: Any) -> Trainer:
    x, y = regression_batches(1, 12)[0]
    loader = options.pop("loader", DataLoader(TensorDataset(x, y), batch_size=8))
    return Trainer(
        model,
        loader,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        device="cpu",
        **options,
    )


class InBatch(nn.Module):
    """Its loss compares each row with the others of its batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out = self.layer(x)
        return ((out - out.mean()) - y).square().mean()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_loss_over_the_batch_as_a_whole_does_not_pass(precision: str) -> None:
    comparison = compare_splits(trainer_of(InBatch(), precision=precision))
    assert not comparison.agrees
    with pytest.raises(
        ConfigError, match=r"'pairs'.*3 \+ 5.*no weight mends"
    ) as caught:
        require_agreement(comparison, "pairs")
    assert caught.value.exit_code == 2


class ByColumn(nn.Module):
    """A row that is padded on the left has other positions beside a longer one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.columns = nn.Embedding(8, 4), nn.Embedding(16, 4)
        self.head = nn.Linear(4, 8)

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        columns = self.columns(torch.arange(input_ids.shape[1]))
        logits = self.head(self.tokens(input_ids) + columns)
        return {"loss": F.cross_entropy(logits.transpose(1, 2), labels)}


class ByTag(ByColumn):
    """The same, of targets whose name tells nobody what they are."""

    def forward(self, input_ids: Tensor, tags: Tensor) -> dict[str, Tensor]:
        return super().forward(input_ids, tags)


def tagged(rows: list[list[int]], too_many: int = 0) -> Batch:
    batch = padded_on_the_left(rows)
    tensors = {"input_ids": batch["input_ids"], "tags": batch["labels"]}
    return Batch(tensors, rows, batch.loss_weight + too_many)


def padded_on_the_left(rows: list[list[int]]) -> Batch:
    longest = max(map(len, rows))
    labels = torch.tensor([[-100] * (longest - len(row)) + row for row in rows])
    tensors = {"input_ids": labels.clamp(min=0), "labels": labels}
    return Batch(tensors, rows, int((labels >= 0).sum()))


def test_a_right_weight_is_not_blamed_where_a_row_depends_on_the_others() -> None:
    rows = [[1 + n % 7] * (1 + n * 5 % 9) for n in range(16)]
    loader = DataLoader(rows, batch_size=8, collate_fn=padded_on_the_left)
    comparison = compare_splits(
        trainer_of(ByColumn(), loader=loader, gradient_accumulation_steps=2)
    )
    assert comparison.verdict.startswith("loss: a mean over labels, measured")
    with pytest.raises(ConfigError, match=r"no weight mends.*padding") as caught:
        require_agreement(comparison, "padded")
    assert "loss_weight" not in str(caught.value)


@pytest.mark.parametrize(
    ("too_many", "way"),
    [
        pytest.param(0, "no weight mends it", id="right weights"),
        pytest.param(20, "make batch.loss_weight the number", id="wrong ones"),
    ],
)
def test_a_weight_that_only_the_family_knows_is_blamed_where_it_is_wrong(
    too_many: int, way: str
) -> None:
    rows = [[1 + n % 7] * (1 + n * 5 % 9) for n in range(16)]
    collate = partial(tagged, too_many=too_many)
    loader = DataLoader(rows, batch_size=8, collate_fn=collate)
    comparison = compare_splits(
        trainer_of(ByTag(), loader=loader, gradient_accumulation_steps=2)
    )
    assert comparison.verdict.startswith("the loss is no mean over samples, labels")
    with pytest.raises(ConfigError, match=way):
        require_agreement(comparison, "padded")


def test_a_mean_over_rows_passes_and_nothing_has_moved() -> None:
    model = Regression(dropout=0.5)
    before = weights_of(model)
    trainer = trainer_of(model, gradient_accumulation_steps=2)
    comparison = compare_splits(trainer)
    assert comparison.agrees
    assert comparison.configured.label == "8 + 4"
    assert comparison.num_rows == 12
    assert all(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert (trainer.step, trainer.optimizer.param_groups[0]["lr"]) == (0, 0.1)
    assert_equal_weights(model, before)


@pytest.mark.parametrize(
    ("loader", "told"),
    [
        pytest.param(regression_batches(2), "is a list, whose rows", id="a list"),
        pytest.param(
            DataLoader(TensorDataset(*regression_batches(1, 1)[0])),
            "holds 1 row, which cannot be split",
            id="one row",
        ),
    ],
)
def test_a_window_that_cannot_be_cut_is_refused(loader: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        compare_splits(trainer_of(Regression(), loader=loader))
