"""Each sample of a validation loader counts once, whoever computes it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ranks import RankError, Ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from trainbus_evaluation import Evaluator, VQAEvaluator
from training import Trainer
from training.plugin import share_of

pytestmark = pytest.mark.distributed

ROWS, SIZE, CLASSES = 7, 3, 3
WORDS = ["[PAD]", "[DEC]", "[SEP]", "[UNK]", "yes", "no", "red", "2"]
DEC, SEP, UNK, YES = 1, 2, 3, 4


class Points(Dataset[Any]):
    """Rows with a class."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        drawn = torch.Generator().manual_seed(index)
        return torch.randn(4, generator=drawn), torch.tensor(index % CLASSES)


def stacked(indices: Any) -> tuple[Tensor, Tensor]:
    rows = [Points()[index] for index in indices]
    return torch.stack([x for x, _ in rows]), torch.stack([y for _, y in rows])


BATCHES = [[0, 1, 2], [3, 4, 5], [6]]


class Streamed(IterableDataset[Any]):
    """Batches without a length."""

    def __iter__(self) -> Iterator[Any]:
        return map(stacked, BATCHES)


def points(**options: Any) -> Any:
    return DataLoader(Points(), **{"batch_size": SIZE, **options})


LOADERS: dict[str, Any] = {
    "in order": points,
    "shuffled": lambda: points(shuffle=True),
    "two workers": lambda: points(num_workers=2),
    "workers that persist": lambda: points(num_workers=1, persistent_workers=True),
    "list": lambda: list(map(stacked, BATCHES)),
    "iterable": lambda: DataLoader(Streamed(), batch_size=None),
    "one row": lambda: points(batch_size=1),
    "several": lambda: {"first": points(), "other": points(batch_size=2)},
}


def history(kind: str, **options: Any) -> list[dict[str, float]]:
    """Return what is measured in a run of two epochs."""
    torch.manual_seed(0)
    model = nn.Linear(4, CLASSES)
    trainer = Trainer(
        model,
        points(),
        {**LOADERS, **DIFFERENT}[kind](),
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        loss_fn=nn.functional.cross_entropy,
        num_epochs=2,
        seed=3,
        device="cpu",
        plugins=[
            {"distributed": {}},
            {"evaluation": {"metrics": ["loss", "accuracy", "f1"], **options}},
        ],
    )
    trainer.train()
    return [{**row, "seconds": 0.0} for row in trainer.history]


def with_parts(model: nn.Module, batch: Any) -> dict[str, Any]:
    """Return a loss with parts, one of them of some batches only."""
    x, y = batch
    found = {"loss": nn.functional.cross_entropy(model(x), y), "first": x[:, 0].mean()}
    return (
        found | ({"rare": x.sum()} if float(x[0, 0]) > 0 else {}) | {"weight": len(x)}
    )


def history_of_parts() -> list[dict[str, float]]:
    """Return what two epochs come to of a step that returns more than its loss."""
    torch.manual_seed(0)
    model = nn.Linear(4, CLASSES)
    trainer = Trainer(
        model,
        points(),
        points(shuffle=True),
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        step_fn=with_parts,
        num_epochs=2,
        seed=3,
        device="cpu",
        plugins=["distributed"],
    )
    trainer.train()
    return [{**row, "seconds": 0.0} for row in trainer.history]


class Told(list[Any]):
    """Batches that tell the same number in each process, whatever there are."""

    def __len__(self) -> int:
        return 3


def by_index(*batches: list[int]) -> Any:
    return DataLoader(Points(), batch_sampler=Told(batches))


def is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


#: Loaders of another order, or another length, in each process.
DIFFERENT: dict[str, Any] = {
    "the first batch": lambda: by_index([0] if is_main() else [1]),
    "those after it": lambda: by_index([0], *([[1], [2]] if is_main() else [[2], [1]])),
    "the end": lambda: by_index([0], *([[1]] if is_main() else [])),
}


def left_by(kind: str) -> int:
    """Return how many workers outlive a run."""
    before = multiprocessing.active_children()
    history(kind)
    return len(multiprocessing.active_children()) - len(before)


def test_d22_no_worker_outlives_its_run(two: Ranks) -> None:
    assert two.run(left_by, "workers that persist") == [0, 0]


class Sleeps(Points):
    """Its last row never comes."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == ROWS - 1:
            threading.Event().wait()
        return super().__getitem__(index)


def left_by_a_failure() -> tuple[int, list[int | None]]:
    """Return how many workers outlive it, and how those have ended that measured."""
    before, measuring = set(multiprocessing.active_children()), list[Any]()

    def failing(*_: Any, **__: Any) -> Any:
        measuring[:] = set(multiprocessing.active_children()) - before
        raise ZeroDivisionError

    model = nn.Linear(4, CLASSES)
    loader = DataLoader(
        Sleeps(), batch_size=SIZE, num_workers=2, persistent_workers=True
    )
    trainer = Trainer(
        model,
        points(),
        loader,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        loss_fn=nn.functional.cross_entropy,
        seed=3,
        device="cpu",
        plugins=[{"distributed": {}}, {"evaluation": {"sanity_batches": 0}}],
    )
    trainer.compute_loss = failing  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError) as caught:
        trainer.train()
    left = len(multiprocessing.active_children()) - len(before)
    del caught
    return left, [each.exitcode for each in measuring]


def test_d22_where_measuring_fails_no_worker_is_waited_for(two: Ranks) -> None:
    # Those that torch has waited for are told to end, and do.
    assert two.run(left_by_a_failure) == [(0, [-signal.SIGKILL] * 2)] * 2


@pytest.mark.parametrize("kind", LOADERS)
def test_d22_metrics_are_those_of_one_process(two: Ranks, kind: str) -> None:
    alone = history(kind)
    first, second = two.run(history, kind)
    assert first == second
    for own, row in zip(alone, first, strict=True):
        assert row == pytest.approx(own, abs=1e-6)
        for name in own:
            if name.startswith(("accuracy", "f1")):
                assert row[name] == own[name]


def test_d22_means_of_parts_are_those_of_one_process(two: Ranks) -> None:
    alone = history_of_parts()
    first, second = two.run(history_of_parts)
    assert first == second
    for own, row in zip(alone, first, strict=True):
        assert {"train_first", "val_first"} <= row.keys()
        assert row.keys() == own.keys()
        # Of the rarer one each process's part of a batch may have another share.
        for name in row.keys() - {"train_rare", "val_rare"}:
            assert row[name] == pytest.approx(own[name], abs=1e-6)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", LOADERS)
def test_d22_metrics_are_those_of_one_process_on_many(many: Ranks, kind: str) -> None:
    alone = history(kind)
    for each in many.run(history, kind):
        for own, row in zip(alone, each, strict=True):
            assert row == pytest.approx(own, abs=1e-6)


class Tokenizer:
    unk_token_id = UNK

    def __call__(self, text: str) -> dict[str, list[int]]:
        ids = [WORDS.index(word) if word in WORDS else UNK for word in text.split()]
        return {"input_ids": [DEC, *ids, SEP]}

    def batch_decode(self, rows: Any, skip_special_tokens: bool) -> list[str]:
        return [" ".join(WORDS[i] for i in map(int, row) if i > UNK) for row in rows]


class Answers(nn.Module):
    """Answers question i with one of four words."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, question: Tensor, labels: Tensor) -> Any:
        return SimpleNamespace(loss=self.bias + question.float().mean())

    def generate(self, question: Tensor, **_: Any) -> Tensor:
        answer = YES + (question * 3) % 4
        ends = torch.full_like(question, SEP)
        return torch.stack([torch.full_like(question, DEC), answer, ends], 1)


class Batch(dict[str, Any]):
    rows: list[dict[str, Any]]
    loss_weight: float


@pytest.mark.parametrize("kind", DIFFERENT)
def test_d22_loaders_that_differ_are_refused(two: Ranks, kind: str) -> None:
    with pytest.raises(RankError, match="val_dataloader does not yield"):
        two.run(history, kind)


def questions(indices: list[int]) -> Batch:
    labels = torch.tensor([[DEC, YES + i % 4, SEP] for i in indices])
    batch = Batch(question=torch.tensor(indices), labels=labels)
    batch.rows = [{"question": str(i), "answer": WORDS[YES + i % 4]} for i in indices]
    batch.loss_weight = float(len(indices))
    return batch


def answered(is_list: bool = False) -> Any:
    """Return metrics and predictions of answers, and metrics of them as classes."""
    model = Answers()
    trainer = Trainer(
        model,
        [questions([0])],
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        device="cpu",
        plugins=[{"distributed": {}}],
    )
    data: Any = DataLoader(list(range(ROWS)), batch_size=SIZE, collate_fn=questions)
    data = [questions(each) for each in BATCHES] if is_list else data
    shared = share_of(data, trainer.strategy)
    words = VQAEvaluator(model, Tokenizer()).evaluate(shared, return_predictions=True)
    metrics = ("loss", "accuracy", "f1")
    return words, Evaluator(model, metrics=metrics).evaluate(shared)


@pytest.mark.parametrize("is_list", [False, True])
def test_d22_predictions_come_in_the_order_of_the_loader(
    two: Ranks, is_list: bool
) -> None:
    words, classes = answered(is_list)
    assert [record["question"] for record in words["records"]] == list("0123456")
    assert 0 < words["accuracy"] < 1
    for own_words, own_classes in two.run(answered, is_list):
        assert own_words == words
        assert own_classes == pytest.approx(classes, abs=1e-9)


class Copies(nn.Module):
    """Says again what it is given, and returns the loss of the next token."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, tokens: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = nn.functional.one_hot(tokens, 4) * self.scale
        flat = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        return {"loss": nn.functional.cross_entropy(*flat), "logits": logits}


def next_tokens() -> float:
    """Return the accuracy on two rows, of which the second has no next token."""
    tokens = torch.tensor([[1, 2, 2, 3], [0, 1, 1, 1]])
    labels = torch.where(torch.tensor([[True] * 4, [True] + [False] * 3]), tokens, -100)
    rows = [{"tokens": x, "labels": y} for x, y in zip(tokens, labels, strict=True)]
    model = Copies()
    trainer = Trainer(
        model,
        rows,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        device="cpu",
        plugins=[{"distributed": {}}],
    )
    shared = share_of(DataLoader(rows, batch_size=2), trainer.strategy)
    return Evaluator(model, metrics=["accuracy"]).evaluate(shared)["accuracy"]


def test_d22_what_the_loss_tells_one_process_of_a_shift_all_follow(two: Ranks) -> None:
    assert two.run(next_tokens) == [next_tokens()] * 2 == [1 / 3] * 2


class Counts:
    """Knows nothing of processes."""

    def evaluate(self, dataloader: Any) -> dict[str, float]:
        return {"rows": float(sum(len(batch[0]) for batch in dataloader))}


def counted() -> list[float]:
    model = nn.Linear(4, CLASSES)
    trainer = Trainer(
        model,
        points(),
        points(),
        evaluator=Counts(),
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        loss_fn=nn.functional.cross_entropy,
        device="cpu",
        plugins=[{"distributed": {}}],
    )
    trainer.train()
    return [row["rows"] for row in trainer.history]


def test_d23_an_evaluator_that_knows_nothing_of_processes_sees_all_rows(
    two: Ranks,
) -> None:
    assert two.run(counted) == [[ROWS], [ROWS]]


def teacher_after(validation: bool) -> list[Any]:
    """Return the mode of a teacher that was left in train mode, and its statistics."""
    torch.manual_seed(0)
    model, teacher = nn.Linear(4, CLASSES), nn.BatchNorm1d(4).requires_grad_(False)

    def step(model: nn.Module, batch: Any) -> dict[str, Any]:
        x, labels = batch
        teacher(torch.cat([x, x]))  # a part of one row has no variance
        loss = nn.functional.cross_entropy(model(x), labels)
        return {"loss": loss, "weight": len(x)}

    trainer = Trainer(
        model,
        points(),
        points() if validation else None,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        step_fn=step,
        device="cpu",
        plugins=["distributed"],
    )
    trainer.train()
    return [teacher.training, [each.tolist() for each in teacher.buffers()]]


def test_no_process_moves_a_teacher_by_its_part_of_an_evaluation(two: Ranks) -> None:
    assert two.run(teacher_after, True) == two.run(teacher_after, False)
