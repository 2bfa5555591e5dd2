"""Runs whose data, losses and loaders differ, to be divided among processes."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from training import Callback, Trainer

CLOSE = 1e-6
#: Rows, and rows in a batch: the last batch has one, so a process has none.
ROWS, SIZE = 11, 5
WIDTH, CLASSES, LENGTH = 4, 5, 6


class Texts(Dataset[Any]):
    """Rows of ids with labels; prompts and paddings of many lengths are ignored.

    Args:
        empty: rows without any label.
        ignored: the label of what is left out.
    """

    def __init__(self, empty: tuple[int, ...] = (), ignored: int = -100) -> None:
        self.empty, self.ignored = empty, ignored

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        drawn = torch.Generator().manual_seed(index)
        ids = torch.randint(1, CLASSES, (LENGTH,), generator=drawn)
        labels = ids.clone()
        labels[: (index * 7) % 4] = self.ignored
        labels[LENGTH - (index * 5) % 3 :] = self.ignored
        if index in self.empty:
            labels[:] = self.ignored
        return {"input_ids": ids, "labels": labels}


class Augmented(Texts):
    """Rows that draw from the generators of all libraries."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = super().__getitem__(index)
        ids = row["input_ids"]
        ids[int(torch.randint(LENGTH, ()))] = random.randint(1, CLASSES - 1)
        return row


class Streamed(IterableDataset[Any]):
    """Batches without a length, in an order that the generators draw."""

    def __iter__(self) -> Iterator[Any]:
        order = list(range(ROWS))
        random.Random(0).shuffle(order)
        for start in range(0, ROWS, SIZE):
            yield batch_of(order[start : start + SIZE])


class Language(nn.Module):
    """Tells the next token; computes its own loss, a mean over labels shifted."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inside = nn.Embedding(CLASSES, 8)
        self.outside = nn.Linear(8, CLASSES)

    def forward(
        self, input_ids: Tensor, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        logits = self.outside(torch.tanh(self.inside(input_ids)))
        answer = {"logits": logits}
        if labels is not None:
            answer["loss"] = nn.functional.cross_entropy(
                logits[:, :-1].reshape(-1, CLASSES), labels[:, 1:].reshape(-1)
            )
        return answer


class Tokens(nn.Module):
    """Tells a class for each token; has no loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Embedding(CLASSES, 8), nn.Tanh(), nn.Linear(8, CLASSES)
        )

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.layers(input_ids).transpose(1, 2)


class Pair(NamedTuple):
    input_ids: Tensor
    labels: Tensor


@dataclasses.dataclass
class Record:
    input_ids: Tensor
    labels: Tensor
    names: list[str]


def batch_of(indices: Any, rows: Dataset[Any] | None = None) -> dict[str, Tensor]:
    """Return the batch of these rows."""
    rows = Texts() if rows is None else rows
    taken = [rows[index] for index in indices]
    return {name: torch.stack([row[name] for row in taken]) for name in taken[0]}


def batches(indices: Any = range(ROWS), size: int = SIZE) -> list[Any]:
    """Return the list of batches of these rows."""
    starts = range(0, len(indices), size)
    return [batch_of(indices[start : start + size]) for start in starts]


def as_named(batch: Mapping[str, Tensor]) -> Pair:
    return Pair(**batch)


def as_record(batch: Mapping[str, Tensor]) -> Record:
    return Record(**batch, names=[str(each) for each in range(len(batch["labels"]))])


def as_encoding(batch: Mapping[str, Tensor]) -> Any:
    from transformers import BatchEncoding

    return BatchEncoding(dict(batch))


def loader(rows: Any = None, size: int = SIZE, **options: Any) -> Any:
    """Return a shuffling loader."""
    rows = Texts() if rows is None else rows
    return DataLoader(rows, batch_size=size, shuffle=True, **options)


class Weighed(dict[str, Tensor]):
    """A batch that says how many labels its loss is a mean over."""

    loss_weight: float


def saying(rows: list[Any]) -> Weighed:
    """Collate rows into a batch that says its weight."""
    batch = Weighed({name: torch.stack([r[name] for r in rows]) for name in rows[0]})
    batch.loss_weight = float((batch["labels"][:, 1:] != -100).sum())
    return batch


def language_step(model: Any, batch: Any) -> Any:
    """Return the loss of a batch of any kind, and its labels."""
    fields = batch if isinstance(batch, Mapping) else vars_of(batch)
    ids, labels = fields["input_ids"], fields["labels"]
    loss = model(ids, labels)["loss"]
    return {"loss": loss, "weight": float((labels[:, 1:] != -100).sum())}


def vars_of(batch: Any) -> dict[str, Any]:
    return batch._asdict() if isinstance(batch, tuple) else vars(batch)


def shifted_labels(batch: Mapping[str, Tensor]) -> float:
    return float((batch["labels"][:, 1:] != -100).sum())


def tokens(loss_fn: Any, rows: Any = None, **options: Any) -> dict[str, Any]:
    """Return a run with a loss beside the model."""
    return {"model": Tokens(), "loader": loader(rows), "loss_fn": loss_fn, **options}


def language(data: Any = None, **options: Any) -> dict[str, Any]:
    """Return a run whose model computes its loss."""
    return {
        "model": Language(),
        "loader": loader() if data is None else data,
        **options,
    }


def stepping(data: Any) -> dict[str, Any]:
    """Return a run whose step function says the weight."""
    return language(data, step_fn=language_step)


#: Name -> what makes the run.
KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "causal language model": language,
    "rows without labels": lambda: language(loader(Texts(empty=(0, 3, 4, 7, 9, 10)))),
    "batches of 3": lambda: language(loader(size=3)),
    "two workers": lambda: language(loader(num_workers=2)),
    "workers that persist": lambda: language(
        loader(num_workers=2, persistent_workers=True)
    ),
    "augmented": lambda: language(loader(Augmented())),
    "loss_per labels": lambda: language(loss_per="shifted_labels"),
    "loss_per function": lambda: language(loss_per=shifted_labels),
    "loss_weight": lambda: language(loader(collate_fn=saying)),
    "step function": lambda: stepping(loader()),
    "list of batches": lambda: language(batches()),
    "list of named tuples": lambda: stepping([*map(as_named, batches())]),
    "list of dataclasses": lambda: stepping([*map(as_record, batches())]),
    "list of encodings": lambda: stepping([*map(as_encoding, batches())]),
    "iterable data": lambda: language(DataLoader(Streamed(), batch_size=None)),
    "loader without batching": lambda: language(
        DataLoader(batches(), batch_size=None, shuffle=True)
    ),
    "ignore_index": lambda: tokens(
        nn.CrossEntropyLoss(ignore_index=0), Texts(ignored=0)
    ),
    "class weights": lambda: tokens(
        nn.CrossEntropyLoss(torch.tensor([0.1, 2.0, 0.5, 3.0, 1.0]))
    ),
    "sum": lambda: tokens(nn.CrossEntropyLoss(reduction="sum")),
    "mean of samples": lambda: tokens(mean_of_rows, Texts(ignored=0)),
}


def mean_of_rows(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over rows of the mean over their tokens."""
    return nn.functional.cross_entropy(outputs, labels, reduction="none").mean(1).mean()


class Notes(Callback):
    """Keeps the loss of each step, and how many batches there were."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.batches = 0

    def on_batch_end(self, logs: Mapping[str, Any]) -> None:
        self.batches += 1

    def on_step_end(self, logs: Mapping[str, Any]) -> None:
        self.losses.append(float(logs["loss"]))


def trained(
    make: Callable[[], dict[str, Any]] | str,
    plugin: Mapping[str, Any] | None = None,
    save_to: Path | None = None,
    resume: Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train a kind of run for three epochs; return what it ended with."""
    made = (KINDS[make] if isinstance(make, str) else make)()
    model, data, notes = made.pop("model"), made.pop("loader"), Notes()
    trainer = Trainer(
        model,
        data,
        optimizer=torch.optim.SGD(model.parameters(), 0.05, momentum=0.9),
        callbacks=[notes],
        plugins=[{"distributed": dict(plugin or {})}],
        device="cpu",
        **{"num_epochs": 3, "seed": 3, **made, **settings},
    )
    if resume is not None:
        trainer.load_checkpoint(resume, allow_changes=["max_steps"])
    trainer.train()
    if save_to is not None:
        trainer.save_checkpoint(save_to)
    return {
        "weights": [p.detach().clone() for p in model.parameters()],
        "losses": notes.losses,
        "batches": notes.batches,
        "train_loss": [row["train_loss"] for row in trainer.history],
        "unit": trainer.state.weigher.settings()["unit"],
    }


def furthest(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """Return the largest difference of weights and losses; NaN is infinite."""
    assert a["batches"] == b["batches"]
    pairs = [*zip(a["weights"], b["weights"], strict=True)]
    pairs += [
        (torch.tensor(a[name]), torch.tensor(b[name]))
        for name in ("losses", "train_loss")
    ]
    found = max(float((x - y).abs().max()) for x, y in pairs)
    return math.inf if math.isnan(found) else found


def are_equal(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether weights are the same bits."""
    return all(map(torch.equal, a["weights"], b["weights"]))
