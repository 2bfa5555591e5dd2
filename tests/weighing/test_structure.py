"""How many samples a batch holds, the right number or none, and in which dimension."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import DataLoader, Sampler, TensorDataset, default_collate
from transformers import BatchEncoding
from weighing.zoo import Perceptron, difference, flat

from trainbus_evaluation import Evaluator
from training import Trainer
from training.feed.structure import (
    CannotCutError,
    sample_sizes,
    samples_of,
    take,
)
from training.weighing.collated import holds_samples_second
from training.weighing.counts import Contents, Counts
from training.weighing.cut import first_half

THREE = torch.arange(6.0).reshape(3, 2)
TEXTS = ["a", "b", "c"]
Pair = namedtuple("Pair", ["x", "y"])  # as collate functions use it


@dataclasses.dataclass(frozen=True)
class Data:
    """A batch of a class."""

    x: Tensor
    names: list[str]
    scale: float = 1.0


class Own:
    """A batch of an object."""

    def __init__(self, x: Tensor, y: Any) -> None:
        self.x, self.y = x, y


def pictures(*widths: int) -> list[Tensor]:
    """Return pictures (3, 4, width)."""
    return [torch.zeros(3, 4, width) for width in widths]


def graphs() -> Any:
    """Return five graphs of twenty nodes, as graph libraries batch them."""
    return SimpleNamespace(num_graphs=5, x=torch.zeros(20, 4), y=torch.zeros(5))


RIGHT = [
    pytest.param(THREE, 3, id="a tensor"),
    pytest.param((THREE, torch.zeros(3)), 3, id="inputs and targets"),
    pytest.param([THREE, torch.zeros(3)], 3, id="a list of columns"),
    pytest.param({"x": {"y": THREE}}, 3, id="nested mappings"),
    pytest.param(((THREE, THREE), THREE[:, 0]), 3, id="nested tuples"),
    pytest.param((TEXTS, THREE), 3, id="texts before a tensor"),
    pytest.param((tuple(TEXTS), THREE), 3, id="a tuple of texts"),
    pytest.param({"question": TEXTS, "answer": TEXTS}, 3, id="texts alone"),
    pytest.param((torch.tensor(7), THREE), 3, id="a 0-d tensor before another"),
    pytest.param((1, TEXTS, None, True), 3, id="a number, a flag and texts"),
    pytest.param(torch.zeros(0, 2), 0, id="an empty tensor"),
    pytest.param(np.zeros((3, 2)), 3, id="an array"),
    pytest.param({"x": np.zeros((3, 2)), "y": np.zeros(3)}, 3, id="arrays"),
    pytest.param({"x": [[1, 2], [3], [4, 5]]}, 3, id="ragged lists"),
    pytest.param(Data(THREE, TEXTS), 3, id="a dataclass"),
    pytest.param(Pair(THREE, TEXTS), 3, id="a named tuple"),
    pytest.param(Own(THREE, TEXTS), 3, id="an object"),
    pytest.param(BatchEncoding({"x": THREE, "y": TEXTS}), 3, id="a BatchEncoding"),
    pytest.param([{"x": 1}, {"x": 2}], 2, id="a list of mappings"),
    pytest.param([(THREE, 1), (THREE, 2)], 2, id="a list of tuples"),
    pytest.param([[THREE, THREE], [THREE, THREE]], 3, id="pairs of pairs"),
    pytest.param([[THREE, THREE], {"a": THREE}], 3, id="a pair and a mapping"),
    pytest.param([[[1, 2], [3]], [[4]], [[5]]], 3, id="a list of lists of lists"),
    pytest.param([[THREE, torch.tensor(0)]] * 8, 8, id="rows as lists, 0-d targets"),
    pytest.param([[THREE, 1]] * 8, 8, id="rows as lists, numbers as targets"),
    pytest.param(TEXTS, 3, id="a list of texts"),
    pytest.param([Data(THREE, TEXTS)] * 4, 4, id="a list of dataclasses"),
    pytest.param(
        (pictures(5, 6, 7, 8), [{"boxes": THREE}] * 4), 4, id="pictures and targets"
    ),
    pytest.param({"pictures": pictures(5, 6)}, 2, id="pictures of two sizes"),
    pytest.param(graphs(), 5, id="graphs"),
    pytest.param(SimpleNamespace(batch_size=torch.Size([6])), 6, id="batch_size"),
]
UNKNOWN = [
    pytest.param(torch.tensor(7), id="a number alone"),
    pytest.param("abc", id="one text"),
    pytest.param([], id="nothing"),
    pytest.param({}, id="an empty mapping"),
    pytest.param(([], THREE), id="an empty list beside a tensor"),
    pytest.param([torch.zeros(5), torch.zeros(7)], id="a ragged list of tensors"),
    pytest.param((THREE, torch.zeros(4)), id="entries that disagree"),
    pytest.param(
        {"pixels": torch.zeros(40, 6), "ids": torch.zeros(3, 9)}, id="pixels by patches"
    ),
    pytest.param(
        {"x": torch.zeros(20, 4), "edges": torch.zeros(2, 30), "y": torch.zeros(5)},
        id="graphs as entries",
    ),
    pytest.param(
        {"ids": torch.zeros(1, 50), "lengths": torch.zeros(4)}, id="packed lines"
    ),
    pytest.param(
        pack_padded_sequence(torch.zeros(3, 5, 2), torch.tensor([5, 3, 2]), True),
        id="a packed sequence",
    ),
    pytest.param((torch.zeros(3, 9), torch.zeros(14)), id="flat targets"),
    pytest.param((THREE, object()), id="an object of nobody"),
]


@pytest.mark.parametrize(("batch", "samples"), RIGHT)
def test_the_number_of_samples_is_told_by(batch: Any, samples: int) -> None:
    assert samples_of(batch) == samples


@pytest.mark.parametrize("batch", UNKNOWN)
def test_w6_the_number_of_samples_is_never_guessed_for(batch: Any) -> None:
    assert samples_of(batch) is None


@pytest.mark.parametrize(
    "batch", [p.values[0] for p in RIGHT if p.id not in ("graphs", "batch_size")]
)
def test_what_can_be_counted_can_be_cut_and_keeps_its_type(batch: Any) -> None:
    count = samples_of(batch)
    assert count is not None
    rows = list(range(count))[1:]
    part = take(batch, rows, count)
    assert type(part) is type(batch)
    if rows:
        assert samples_of(part) == len(rows)
    assert samples_of(batch) == count


@pytest.mark.parametrize("num_rows", [2, 3, 4])
def test_what_torch_collates_of_pairs_of_pairs_is_cut_in_all_columns(
    num_rows: int,
) -> None:
    rows = [((torch.ones(2), torch.ones(3)), {"a": 1}) for _ in range(num_rows)]
    batch = default_collate(rows)
    assert samples_of(batch) == num_rows
    (one, other), last = take(batch, [1], num_rows)
    assert (one.shape, other.shape, last["a"].shape) == ((1, 2), (1, 3), (1,))


def test_a_part_holds_the_rows_asked_for_and_all_that_belongs_to_the_whole() -> None:
    part = take(Data(THREE, TEXTS, 7.0), [2, 0], 3)
    assert torch.equal(part.x, THREE[[2, 0]])
    assert (part.names, part.scale) == (["c", "a"], 7.0)


@pytest.mark.parametrize(
    ("batch", "told"),
    [
        pytest.param((THREE, torch.zeros(4)), r"\(4,\) is not of length 3", id="4"),
        pytest.param(
            {"x": THREE, "y": ["a"]}, "list of 1 is not of length 3", id="list"
        ),
        pytest.param((THREE, object()), "object cannot be cut", id="object"),
        pytest.param(graphs(), "graphs has no plain rows", id="graphs"),
    ],
)
def test_what_cannot_be_cut_is_named(batch: Any, told: str) -> None:
    with pytest.raises(CannotCutError, match=told):
        take(batch, [0], 3)


@pytest.mark.parametrize("drop_last", [True, False])
def test_the_sizes_of_torchs_own_batches_are_known_before(drop_last: bool) -> None:
    loader = DataLoader(
        TensorDataset(torch.zeros(10, 1)), batch_size=4, drop_last=drop_last
    )
    sizes = [n for _, n in zip(loader, sample_sizes(loader), strict=False)]
    assert sizes == ([4, 4] if drop_last else [4, 4, 2])
    assert next(sample_sizes([1, 2])) is None


@pytest.mark.parametrize("refusal", [TypeError, NotImplementedError])
def test_the_sizes_of_a_sampler_without_a_length_are_not_known(
    refusal: type[Exception],
) -> None:
    class Unsized(Sampler[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(range(10))

        def __len__(self) -> int:
            raise refusal

    data = TensorDataset(torch.zeros(10, 1))
    loader = DataLoader(data, batch_size=4, sampler=Unsized())
    assert [n for _, n in zip(loader, sample_sizes(loader), strict=False)] == [None] * 3


LENGTHS = (3, 7, 5, 3, 8, 4, 6, 3, 5, 8, 4)


def tagged(lengths: tuple[int, ...] = LENGTHS) -> list[Tensor]:
    """Return one text a length: each position is its own label."""
    g = torch.Generator().manual_seed(1)
    return [torch.randint(1, 9, (length,), generator=g) for length in lengths]


def padded(rows: list[Tensor], is_first: bool = False) -> Any:
    """Return ids and labels, (T, N), or (N, T) where ``is_first``."""
    return tuple(pad_sequence(rows, is_first, value) for value in (0, -100))


class Tagger(nn.Module):
    """From ids (T, N), or (N, T) where ``is_first``, to logits of nine classes."""

    def __init__(self, is_first: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(9, 8), nn.Linear(8, 9)
        self.recur = nn.GRU(8, 8, batch_first=is_first)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.recur(self.embed(ids))[0])  # type: ignore[no-any-return]


def token_losses(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of each label, in their shape."""
    return F.cross_entropy(outputs.movedim(-1, 1), labels, reduction="none")


def by_tokens(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over labels."""
    return token_losses(outputs, labels).sum() / (labels != -100).sum()


def by_texts(outputs: Tensor, labels: Tensor, dim: int = 1) -> Tensor:
    """Return the mean over texts of the sum over each one's labels."""
    return token_losses(outputs, labels).sum() / labels.shape[dim]


#: Batches of four: none, or the first alone, or all are as long as they are wide.
FIRST_SQUARE = (4, 2, 3, 4, *LENGTHS)


@pytest.mark.parametrize("way", ["loss_fn", "step_fn"])
@pytest.mark.parametrize("lengths", [LENGTHS, FIRST_SQUARE, (4,) * 11])
@pytest.mark.parametrize(
    ("loss", "unit"), [(by_tokens, "labels"), (by_texts, "samples")]
)
def test_samples_in_dimension_1_are_cut_there(
    loss: Any, unit: str, lengths: tuple[int, ...], way: str
) -> None:
    """As torch's pad_sequence has them, and recurrent layers."""
    step = lambda model, batch: loss(model(batch[0]), batch[1])  # noqa: E731
    ends = []
    for said in (None, unit):
        model = Tagger()
        loader: Any = DataLoader(tagged(lengths), batch_size=4, collate_fn=padded)  # type: ignore[arg-type]
        Trainer(
            model,
            loader,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
            gradient_accumulation_steps=3,
            loss_per=said,
            device="cpu",
            **{way: loss if way == "loss_fn" else step},
        ).train()
        ends.append(flat(model))
    assert difference(*ends) < 1e-6


@pytest.mark.parametrize("way", ["loss_fn", "step_fn"])
def test_losses_of_samples_in_dimension_1_are_reported_by_samples(way: str) -> None:
    step = lambda model, batch: by_texts(model(batch[0]), batch[1])  # noqa: E731
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 9))
    given = {way: by_texts if way == "loss_fn" else step}
    loader: Any = DataLoader(tagged(), batch_size=4, collate_fn=padded)  # type: ignore[arg-type]
    with torch.no_grad():
        right = sum(float(by_texts(model(x), y)) * x.shape[1] for x, y in loader) / 11
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    trainer = Trainer(
        model, loader, val_dataloader=loader, optimizer=still, device="cpu", **given
    )
    trainer.train()
    told = [trainer.history[-1][name] for name in ("train_loss", "val_loss")]
    assert told == pytest.approx([right] * 2, rel=1e-6)
    assert Evaluator(model, **given).evaluate(loader)["loss"] == pytest.approx(right)


def test_what_has_no_labels_is_cut_in_dimension_1_and_counted_by_samples() -> None:
    rows = list(torch.randn(22, 5, 6, generator=torch.Generator().manual_seed(0)))
    updates = []
    for size in (8, 22):
        model = Perceptron(width=6)
        before = flat(model)
        loader: Any = DataLoader(rows, size, collate_fn=partial(torch.stack, dim=1))  # type: ignore[arg-type]
        Trainer(
            model,
            loader,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            step_fn=lambda model, x: (model(x) - x).square().sum(0).mean(),
            gradient_accumulation_steps=-(-22 // size),
            device="cpu",
        ).train()
        updates.append(flat(model) - before)
    assert difference(*updates) < 1e-5


@pytest.mark.parametrize("is_first", [False, True])
def test_samples_and_elements_are_told_by_rows_padded_by_themselves(
    is_first: bool,
) -> None:
    """In one padded batch each text has as many elements as any other."""
    loss = partial(by_texts, dim=0 if is_first else 1)
    model, collate = Tagger(is_first), partial(padded, is_first=is_first)
    loader: Any = DataLoader(tagged(), batch_size=4, collate_fn=collate)  # type: ignore[arg-type]
    trainer = Trainer(
        model,
        loader,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=loss,
        gradient_accumulation_steps=3,
        device="cpu",
    )
    trainer.train()
    assert list(trainer.state.weigher.settings()["live"]) == ["samples"]


def without_last(rows: list[Tensor]) -> Tensor:
    """Return a batch of all rows but a last one of several."""
    return torch.stack(rows[: max(1, len(rows) - 1)])


@pytest.mark.parametrize(
    ("collate", "shape", "is_second"),
    [
        pytest.param(pad_sequence, (5,), True, id="texts shorter than the batch"),
        pytest.param(pad_sequence, (4,), True, id="texts as many as long"),
        pytest.param(torch.stack, (4,), False, id="rows as many as wide"),
        pytest.param(torch.stack, (5,), False, id="rows"),
        pytest.param(default_collate, (4,), False, id="torch's own"),
        pytest.param(without_last, (4,), False, id="rows, one of them left out"),
        pytest.param(lambda rows: torch.cat([*rows, *rows]), (4, 4), False, id="crops"),
    ],
)
def test_the_dimension_of_samples_is_the_one_that_grows_with_them(
    collate: Any, shape: tuple[int, ...], is_second: bool
) -> None:
    rows = list(torch.zeros(4, *shape))
    loader: Any = DataLoader(rows, batch_size=4, collate_fn=collate)  # type: ignore[arg-type]
    batch = Contents(Counts(), next(iter(loader)), 4, range(4))
    assert holds_samples_second(batch, loader) is is_second


def test_a_loader_is_asked_once_where_its_samples_are() -> None:
    """Each time reads three rows, and draws what its collate function draws."""
    calls = []

    def collate(rows: list[Tensor]) -> Tensor:
        calls.append(len(rows))
        return torch.stack(rows)

    loader: Any = DataLoader(list(torch.zeros(8, 4)), 4, collate_fn=collate)  # type: ignore[arg-type]
    for batch in loader:
        assert not holds_samples_second(Contents(Counts(), batch, 4, range(4)), loader)
    assert calls == [4, 1, 2, 3, 4]


class LeadsBack:
    """A batch that holds itself."""

    def __init__(self) -> None:
        self.x, self.own = torch.zeros(4, 4), self


def test_a_batch_that_leads_back_to_itself_has_no_dimension_1_of_samples() -> None:
    assert not holds_samples_second(Contents(Counts(), LeadsBack()), None)
    assert not holds_samples_second(Contents(Counts(), LeadsBack(), 3, range(3)), None)


def test_half_of_a_batch_has_half_of_the_samples_in_dimension_1() -> None:
    entries = {"x": torch.zeros(5, 8, 3), "lengths": torch.zeros(8)}
    half = first_half(Contents(Counts(), entries, is_second=True))
    assert half is not None
    shapes = {name: tuple(each.shape) for name, each in half.batch.items()}
    assert shapes == {"x": (5, 4, 3), "lengths": (4,)}
