"""A family in plain torch that completes texts letter by letter, and its task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from training import Batch, ModelFamily, Task

PAD, END = 0, 1
FIRST = 2  # the number of the first letter


class Completion(Task):
    """A beginning, and how it goes on."""

    fields: ClassVar = {"start": "text", "rest": "text", "kind": "text?"}
    target = "rest"
    metrics = ("right",)

    def score(self, prediction: Any, row: Mapping[str, Any]) -> dict[str, float]:
        return {"right": float(prediction == row["rest"])}


class Reader(nn.Module):
    """Reads letters one by one; padding (mask 0) leaves its memory as it is."""

    def __init__(self, num_letters: int, width: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(FIRST + num_letters, width)
        self.cell = nn.GRUCell(width, width)
        self.out = nn.Linear(width, FIRST + num_letters)

    def read(self, ids: Tensor, mask: Tensor, memory: Tensor | None = None) -> Any:
        """Return logits (B, T, letters), and the memory (B, width) at the end."""
        if memory is None:
            memory = torch.zeros(len(ids), self.cell.hidden_size)
        logits = []
        for place in range(ids.shape[1]):
            new = self.cell(self.letters(ids[:, place]), memory)
            memory = torch.where(mask[:, place, None] > 0, new, memory)
            logits.append(self.out(memory))
        return torch.stack(logits, dim=1), memory

    def forward(self, ids: Tensor, mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits, _ = self.read(ids, mask)
        flat, targets = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        return {"loss": nn.functional.cross_entropy(flat, targets)}


class Completes(ModelFamily):
    """Learns each row's rest; the processor is the alphabet.

    Args:
        longest: most letters of a prediction.
    """

    tasks = ("completion",)

    def __init__(self, longest: int = 8) -> None:
        self.longest = longest

    def build(
        self, rows: Sequence[Mapping[str, Any]], *, seed: int = 0, width: int = 32
    ) -> tuple[nn.Module, str]:
        texts = (row["start"] + row["rest"] for row in rows)
        alphabet = "".join(sorted({letter for text in texts for letter in text}))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Reader(len(alphabet), width).eval(), alphabet

    def collate(self, processor: str, rows: Sequence[Mapping[str, Any]]) -> Batch:
        starts = [self.ids(processor, row["start"]) for row in rows]
        rests = [
            [*self.ids(processor, r["rest"]), END] if "rest" in r else [] for r in rows
        ]
        width, more = max(map(len, starts)), max(map(len, rests))
        ids = [
            [PAD] * (width - len(a)) + a + b + [PAD] * (more - len(b))
            for a, b in zip(starts, rests, strict=True)
        ]
        tensors = {"ids": torch.tensor(ids), "mask": (torch.tensor(ids) != PAD).long()}
        if more:
            labels = [[-100] * width + b + [-100] * (more - len(b)) for b in rests]
            tensors["labels"] = torch.tensor(labels)
        return Batch(tensors, list(rows), sum(map(len, rests)))

    def predict(self, model: Any, processor: str, batch: Batch) -> list[str]:
        ids, _ = self.generate(model, batch)
        return [self.text(processor, each) for each in ids]

    def generate(
        self, model: Any, batch: Batch
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Return each row's letters, and the log-probability of each."""
        ids, mask = self.prompts(batch)
        logits, memory = model.read(ids, mask)
        said, sure = [], []
        for _ in range(self.longest):
            shares, best = logits[:, -1:].log_softmax(dim=-1).max(dim=-1)
            said.append(best)
            sure.append(shares)
            logits, memory = model.read(best, torch.ones_like(best), memory)
        return torch.cat(said, 1).tolist(), torch.cat(sure, 1).tolist()

    def prompts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return ids and mask (B, P) of what stands before the targets."""
        width = batch["ids"].shape[1]
        if "labels" in batch:
            width = int((batch["labels"] != -100).any(dim=0).int().argmax())
        return batch["ids"][:, :width], batch["mask"][:, :width]

    def describe(self, model: Any, processor: str) -> dict[str, Any]:
        return {"alphabet": processor, "width": model.cell.hidden_size}

    def rebuild(self, description: Mapping[str, Any]) -> tuple[nn.Module, str]:
        alphabet = str(description["alphabet"])
        return Reader(len(alphabet), int(description["width"])), alphabet

    def export(self, model: nn.Module, processor: str, folder: Path) -> None:
        torch.save(model.state_dict(), folder / "weights.pt")

    def target(self, alphabet: str, row: Mapping[str, Any]) -> list[int]:
        return [*self.ids(alphabet, row["rest"]), END] if "rest" in row else []

    def ids(self, alphabet: str, text: str) -> list[int]:
        return [FIRST + alphabet.index(letter) for letter in text]

    def text(self, alphabet: str, ids: list[int]) -> str:
        ids = ids[: ids.index(END)] if END in ids else ids
        return "".join(alphabet[n - FIRST] for n in ids if n >= FIRST)


class Sure(Completes):
    """Tells how sure it is, too: the mean over the letters, the end among them."""

    confidence = "mean_log_probability"

    def predict_with_confidence(
        self, model: Any, processor: str, batch: Batch
    ) -> list[tuple[str, float]]:
        return [
            (self.text(processor, ids), self.mean(shares[: self.length(ids)]))
            for ids, shares in zip(*self.generate(model, batch), strict=True)
        ]

    def length(self, ids: list[int]) -> int:
        return ids.index(END) + 1 if END in ids else len(ids)

    def mean(self, shares: list[float]) -> float:
        return sum(shares) / len(shares)


ROWS = [
    {"start": "ab", "rest": "cab"},
    {"start": "b", "rest": "a"},
    {"start": "caab", "rest": "bb"},
    {"start": "cc", "rest": "ab"},
    {"start": "bacab", "rest": "c"},
]
