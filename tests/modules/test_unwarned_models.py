"""Modules of torch and models of transformers move nothing that needs a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from training import Callback, Trainer

X = torch.linspace(-1, 1, 24).view(2, 3, 4)
TOKENS = torch.tensor([[1, 5, 6, 2], [1, 7, 8, 2]])


class Saves(Callback):
    """Measures, and then saves, at each epoch's end."""

    def __init__(self, path: Path, measure: Callable[[], Any]) -> None:
        self.path, self.measure = path, measure

    def evaluate(self) -> dict[str, float]:
        return {"size": self.measure().item()}

    def on_epoch_end(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)


def train(model: nn.Module, step_fn: Any, path: Path, rows: Any = None) -> None:
    Trainer(
        model,
        rows or [X, X.flip(0)],
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01),
        step_fn=step_fn,
        callbacks=[Saves(path, lambda: step_fn(model, X))],
        num_epochs=4,
        device="cpu",
    ).train()


class Attends(nn.MultiheadAttention):
    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        return super().forward(x, x, x)[0]


class Recurs(nn.LSTM):
    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        return super().forward(x)[0]


OF_TORCH: dict[str, Callable[[], nn.Module]] = {
    "running statistics": lambda: nn.BatchNorm1d(3),
    "a running mean": lambda: nn.BatchNorm1d(3, momentum=None),
    "dropout": lambda: nn.Dropout(0.1),
    "flat weights": lambda: Recurs(4, 4),
    "a lazy one": lambda: nn.LazyLinear(4),
    "attention": lambda: Attends(4, 2),
    "an encoder": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2
    ),
    "parametrized weight norm": lambda: nn.utils.parametrizations.weight_norm(
        nn.Linear(4, 4)
    ),
    "parametrized spectral norm": lambda: nn.utils.parametrizations.spectral_norm(
        nn.Linear(4, 4)
    ),
    "spectral norm by a hook": lambda: nn.utils.spectral_norm(nn.Linear(4, 4)),
}


@pytest.mark.parametrize("make", OF_TORCH.values(), ids=OF_TORCH)
def test_r8_what_torchs_own_modules_move_needs_no_word(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.Sequential(make(), nn.Linear(4, 4))
    model(X)
    train(model, lambda model, batch: model(batch).square().mean(), tmp_path / "a.pt")
    assert "moves numbers" not in caplog.text


ROWS = X.reshape(6, 4)


class Caches(Dataset[Tensor]):
    """Keeps each row that was read."""

    def __init__(self) -> None:
        self.rows: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, row: int) -> Tensor:
        return self.rows.setdefault(row, ROWS[row].clone())


def stacked(rows: list[Any]) -> Tensor:
    return torch.stack(rows)


OF_DATA: dict[str, Callable[[], DataLoader[Any]]] = {
    "in order": lambda: DataLoader(ROWS, 2),
    "shuffled": lambda: DataLoader(ROWS, 2, shuffle=True),
    "a set of tensors": lambda: DataLoader(
        TensorDataset(ROWS), 2, collate_fn=lambda rows: default_collate(rows)[0]
    ),
    "by weights": lambda: DataLoader(
        ROWS, 2, sampler=WeightedRandomSampler(torch.arange(6.0), 6)
    ),
    "by indices": lambda: DataLoader(ROWS, 2, sampler=SubsetRandomSampler([3, 4, 5])),
    "in batches": lambda: DataLoader(
        ROWS, batch_sampler=BatchSampler(RandomSampler(ROWS), 2, False)
    ),
    "one process's": lambda: DataLoader(
        ROWS, 2, sampler=DistributedSampler(ROWS, 1, 0)
    ),
    "a collate function": lambda: DataLoader(ROWS, 2, collate_fn=stacked),
    "a cache": lambda: DataLoader(Caches(), 2, shuffle=True),
    "workers": lambda: DataLoader(Caches(), 2, num_workers=1),
}


@pytest.mark.parametrize("make", OF_DATA.values(), ids=OF_DATA)
def test_r8_what_torchs_samplers_and_data_sets_move_needs_no_word(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def step(model: Any, batch: Tensor) -> Tensor:
        return model(batch.view(-1, 4)).square().mean()  # type: ignore[no-any-return]

    train(nn.Linear(4, 4), step, tmp_path / "a.pt", make())
    assert "moves numbers" not in caplog.text


@pytest.mark.parametrize("freezes", [True, False])
def test_r8_a_teacher_is_in_the_checkpoint_and_needs_no_word(
    freezes: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teacher = nn.Linear(4, 4).requires_grad_(not freezes)

    def step(model: Any, batch: Tensor) -> Tensor:
        with torch.no_grad():
            target = teacher(batch)
            if not freezes and model.training:
                teacher.weight.lerp_(model.weight, 0.1)
        return nn.functional.mse_loss(model(batch), target)

    train(nn.Linear(4, 4), step, tmp_path / "a.pt")
    assert "moves numbers" not in caplog.text


SIZES = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 10,
}
TOKEN_IDS = {"bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 2, "pad_token_id": 0}


def bert() -> tuple[nn.Module, dict[str, Any]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(**SIZES, max_position_embeddings=8)
    return transformers.BertForMaskedLM(config), {}


def llama() -> tuple[nn.Module, dict[str, Any]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(**SIZES, max_position_embeddings=8)
    return transformers.LlamaForCausalLM(config), {}


def blip() -> tuple[nn.Module, dict[str, Any]]:
    transformers = pytest.importorskip("transformers")
    text = {**SIZES, **TOKEN_IDS, "encoder_hidden_size": 8, "projection_dim": 8}
    config = transformers.BlipConfig(
        text_config={**text, "max_position_embeddings": 8},
        vision_config={**SIZES, "image_size": 8, "patch_size": 4},
        projection_dim=8,
    )
    pictures = {"pixel_values": torch.ones(2, 3, 8, 8)}
    return transformers.BlipForQuestionAnswering(config), pictures


@pytest.mark.parametrize("make", [bert, llama, blip])
def test_r8_what_models_of_transformers_move_needs_no_word(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, more = make()

    def step(model: Any, batch: Tensor) -> Any:
        return model(input_ids=TOKENS, labels=TOKENS, **more).loss

    train(model, step, tmp_path / "a.pt")
    assert "moves numbers" not in caplog.text
