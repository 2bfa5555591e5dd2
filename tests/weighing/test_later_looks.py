"""Batches that are looked at again are the same ones however a run comes to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from toy import Saves

from training import Callback, ConfigError, Trainer
from training.weighing.counts import IGNORED
from training.weighing.fit import fit
from training.weighing.later_looks import LAST_LOOK, LaterLooks, is_belied
from training.weighing.subject import Look

WEIGHTS = torch.tensor([1.0, 5.0])


def weighted(outputs: Tensor, targets: Tensor) -> Tensor:
    """A mean by class weights, which nobody says."""
    return F.cross_entropy(outputs, targets, WEIGHTS)


def batches() -> list[tuple[Tensor, Tensor]]:
    """Class 0 alone in the first ten, as of samples; then both, by turns."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in range(64):
        labels = torch.zeros(4, dtype=torch.long)
        if index >= 10:
            labels[: 1 + index % 3] = 1
        found.append((torch.randn(4, 4, generator=generator), labels))
    return found


def run_of(
    model: nn.Module, batches: list[Any], a_window: int = 2, **options: Any
) -> Trainer:
    """Return a run with ``a_window`` batches a window."""
    return Trainer(
        model,
        batches,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        gradient_accumulation_steps=a_window,
        device="cpu",
        **options,
    )


def make(*callbacks: Any, **options: Any) -> Trainer:
    torch.manual_seed(1)
    given = {"loss_fn": weighted, "callbacks": callbacks, "seed": 0, **options}
    return run_of(nn.Linear(4, 2), batches(), **given)


def refused_at(trainer: Trainer) -> int:
    with pytest.raises(ConfigError, match="a later batch is not weighed by"):
        trainer.train()
    return trainer.step


@pytest.mark.parametrize("step", range(2, 9))
def test_w4_a_resumed_run_is_refused_where_the_whole_one_is(
    step: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.pt"
    make(Saves(path), max_steps=step).train()
    resumed = make()
    resumed.load_checkpoint(path)
    assert refused_at(resumed) == refused_at(make())


class Evaluates(Callback):
    """Computes a loss in ``evaluate`` after each step."""

    def on_step_end(self, trainer: Trainer) -> None:
        trainer.request_evaluation("each step")

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        for batch in batches()[:3]:
            trainer.compute_loss(batch)
        return {"val_loss": 0.0}


def test_w4_an_evaluation_uses_no_look_up() -> None:
    assert refused_at(make(Evaluates())) == refused_at(make())


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 100, LAST_LOOK - 1, LAST_LOOK])
def test_looks_go_on_from_any_batch(number: int) -> None:
    whole = LaterLooks(0)
    for _ in range(number):
        whole.is_due()
    rest = LaterLooks(whole.number)
    assert rest.number == whole.number
    if whole.number is not None:
        due = [whole.is_due() for _ in range(200)]
        assert due == [rest.is_due() for _ in range(200)]


@pytest.mark.parametrize("number", [0, 1, 3, 5, 300])
def test_so_do_looks_at_batches_that_may_ignore_a_label(number: int) -> None:
    seen = [{"ids": torch.tensor([1, IGNORED if n % 3 else 2])} for n in range(99)]
    whole = LaterLooks(0)
    for batch in (seen * 4)[:number]:
        whole.is_due(batch)
    rest = LaterLooks(whole.number, whole.num_ignoring)
    assert [whole.is_due(each) for each in seen] == [rest.is_due(each) for each in seen]


@pytest.mark.parametrize(
    ("size", "is_half", "belied"),
    [
        pytest.param(0.05, True, False, id="rounding of a small part"),
        pytest.param(0.05, False, True, id="which full precision has not"),
        pytest.param(1.0, True, True, id="nor can it move the share of a large one"),
    ],
)
def test_w4_half_precision_belies_no_unit_by_the_share_of_a_small_part(
    size: float, is_half: bool, belied: bool
) -> None:
    first, second = size * torch.eye(4)[0].double(), torch.eye(4)[1].double()
    told = fit(0.27 * first + 2 / 3 * second, first, second, is_half)
    shares = {"samples": (1 / 3, 2 / 3)}
    seen = Look(fit=told, shares=shares, num_cuts=1, is_half=is_half)
    assert is_belied(["samples"], seen) == belied


def test_w4_half_weights_that_learn_a_mean_over_samples_are_trained_to_the_end() -> (
    None
):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(300, 768, generator=generator) + 1.0
    targets = inputs @ torch.randn(768, 1, generator=generator)
    torch.manual_seed(0)
    model = nn.Linear(768, 1).bfloat16()
    rows = TensorDataset(inputs.bfloat16(), targets.bfloat16())
    trainer = Trainer(
        model,
        DataLoader(rows, 3, shuffle=True),
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-2),
        loss_fn=F.mse_loss,
        gradient_accumulation_steps=2,
        num_epochs=2,
        device="cpu",
        seed=1,
    )
    trainer.train()
    assert trainer.step == 100


def test_w4_half_weights_hide_no_other_mean() -> None:
    torch.manual_seed(1)
    trainer = run_of(
        nn.Linear(4, 2).bfloat16(),
        [(inputs.bfloat16(), labels) for inputs, labels in batches()],
        loss_fn=lambda outputs, labels: weighted(outputs.float(), labels),
    )
    assert refused_at(trainer) == refused_at(make())


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(5, 16), nn.Tanh())
        self.value, self.topic = nn.Linear(16, 1), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(x)
        return self.value(hidden), self.topic(hidden)


LACKING = -1  # not the number that is known


def of_both(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    value, topic = model(batch["x"])
    of_topics = F.cross_entropy(topic, batch["topic"], ignore_index=LACKING)
    return F.mse_loss(value, batch["value"]) + of_topics


def of_two_heads(num_lacking: int) -> Trainer:
    """Return a run whose second batch lacks labels of the second head."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(1)
    model = TwoHeads()
    rows = []
    for n in range(8):
        x = torch.randn(8, 5, generator=generator)
        topic = (x[:, 0] > 0).long()
        topic[: num_lacking if n else 0] = LACKING
        rows.append({"x": x, "value": x.sum(1, keepdim=True), "topic": topic})
    return run_of(model, rows, 4, step_fn=of_both, num_epochs=4)


@pytest.mark.parametrize("num_lacking", [1, 2, 4])
def test_a_later_batch_whose_second_label_is_partly_missing_is_refused(
    num_lacking: int,
) -> None:
    of_two_heads(0).train()
    with pytest.raises(ConfigError, match="% of its gradient belongs to neither part"):
        of_two_heads(num_lacking).train()


ALONG = torch.eye(4).double()


@pytest.mark.parametrize(
    ("norm", "options", "belied"),
    [
        pytest.param(1.0, {}, True, id="as large a gradient as the first"),
        pytest.param(1e4, {}, False, id="so small a one that rounding explains it"),
        pytest.param(1.0, {"is_half": True}, False, id="in half precision"),
        pytest.param(1.0, {"may_be_random": True}, False, id="where all may be random"),
        pytest.param(0.0, {}, False, id="the first is not known"),
    ],
)
def test_what_belongs_to_neither_part_belies_a_unit_where_it_is_no_rounding(
    norm: float, options: dict[str, bool], belied: bool
) -> None:
    whole = (ALONG[0] + 2 * ALONG[1]) / 3 + 0.02 * ALONG[2]
    told = fit(whole, ALONG[0], ALONG[1], is_half=False)
    seen = Look(fit=told, shares={"samples": (1 / 3, 2 / 3)}, num_cuts=1, **options)
    assert is_belied(["samples"], seen, 1e-7, norm) == belied
    assert not is_belied(["samples"], seen, 1e-3, norm)  # nor where it was some before


@pytest.mark.parametrize(("norm", "belied"), [(1.0, True), (1e4, False)])
def test_nor_does_a_share_that_the_rounding_of_the_first_gradients_moves(
    norm: float, belied: bool
) -> None:
    whole = 0.36 * ALONG[0] + 2 / 3 * ALONG[1]
    told = fit(whole, ALONG[0], ALONG[1], is_half=False)
    seen = Look(fit=told, shares={"samples": (1 / 3, 2 / 3)}, num_cuts=1)
    assert is_belied(["samples"], seen, 1e-7, norm) == belied


def test_what_step_fn_draws_only_for_later_batches_belies_no_unit() -> None:
    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.randn(128, 8), torch.arange(128))

    def mixed(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, row = batch
        own, others = row % 3, torch.randperm(len(x))
        if row[0] < 8:
            return nn.functional.cross_entropy(model(x), own)
        outputs = model(0.7 * x + 0.3 * x[others])
        first = nn.functional.cross_entropy(outputs, own)
        return 0.7 * first + 0.3 * nn.functional.cross_entropy(outputs, own[others])

    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    trainer = Trainer(
        model,
        torch.utils.data.DataLoader(data, 4),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
        step_fn=mixed,
        gradient_accumulation_steps=2,
        num_epochs=1,
        device="cpu",
    )
    trainer.train()
    assert trainer.step == 16


class DropsInputs(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, 0.5, self.training))


@pytest.mark.parametrize(
    ("make_model", "a_window", "num_steps"),
    [
        pytest.param(nn.Linear, 4, 260, id="to rounding"),
        pytest.param(DropsInputs, 2, 130, id="by its loss in train mode"),
    ],
)
def test_a_mean_over_samples_is_trained_until_its_loss_is_nothing(
    make_model: Callable[[int, int], nn.Module], a_window: int, num_steps: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 8, generator=generator)
    torch.manual_seed(1)
    model = make_model(8, 1)
    trainer = Trainer(
        model,
        list(zip(x.split(8), x.sum(1, keepdim=True).split(8), strict=True)),
        optimizer=torch.optim.Adam(model.parameters(), lr=0.05),
        loss_fn=lambda outputs, targets: F.mse_loss(outputs, targets),
        gradient_accumulation_steps=a_window,
        max_steps=num_steps,
        num_epochs=9999,
        device="cpu",
        plugins=["no:progress", "no:run_record"],
    )
    trainer.train()
    assert trainer.step == num_steps


class Pair(NamedTuple):
    x: Tensor
    kind: Any


#: Batches whose class numbers have no name that is known, and how to get at them.
NESTED: dict[str, tuple[Callable[[Tensor, Tensor], Any], Callable[[Any], Any]]] = {
    "a mapping in a tuple": (
        lambda x, y: (x, {"cls": y}),
        lambda b: (b[0], b[1]["cls"]),
    ),
    "an entry of another name": (lambda x, y: {"x": x, "cls": y}, lambda b: b.values()),
    "a named tuple": (Pair, lambda b: (b.x, b.kind)),
    "a list in one": (lambda x, y: Pair(x, [y]), lambda b: (b.x, b.kind[0])),
    "not the last": (
        lambda x, y: (y, x.sum(1)),
        lambda b: (b[1][:, None].expand(-1, 4), b[0]),
    ),
}


def with_late_labels(
    way: str, late: set[int], ignored: int, looked: list[Any]
) -> Trainer:
    """Return a run of 16 batches, of which ``late`` lack 3 of 8 labels."""
    pack, unpack = NESTED[way]

    def step(model: nn.Module, batch: Any) -> Tensor:
        looked.append(batch)
        x, y = unpack(batch)
        return F.cross_entropy(model(x), y.clamp(min=ignored), ignore_index=IGNORED)

    generator = torch.Generator().manual_seed(0)
    batches = []
    for n in range(16):
        x, y = torch.randn(8, 4, generator=generator), torch.arange(8) % 2
        y[: 3 if n in late else 0] = IGNORED
        batches.append(pack(x, y))
    torch.manual_seed(1)
    return run_of(nn.Linear(4, 2), batches, step_fn=step)


@pytest.mark.parametrize("late", [{5, 6}, {9, 10, 11}])
@pytest.mark.parametrize("way", NESTED)
def test_a_late_label_that_is_ignored_is_looked_at_wherever_it_is(
    way: str, late: set[int]
) -> None:
    """No later look falls on those batches by itself."""
    assert refused_at(with_late_labels(way, late, IGNORED, [])) == min(late) // 2


def test_minus_100_that_counts_is_trained_on_and_seldom_looked_at() -> None:
    way, usual, all_later = "an entry of another name", [], []
    with_late_labels(way, set(), 0, usual).train()
    with_late_labels(way, set(range(5, 16)), 0, all_later).train()
    a_look = 8  # passes at most: in both modes, and whole and two parts of three cuts
    assert 0 < len(all_later) - len(usual) <= 4 * (a_look + 2)
