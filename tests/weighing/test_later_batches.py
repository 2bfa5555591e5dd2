"""What the first batch could not tell, a later one does, or the run is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from trainbus_evaluation import Evaluator
from training import Trainer
from training.errors import ConfigError

Batches = list[Any]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def inputs(seed: int, *sizes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, 5, generator=generator) for size in sizes]


def with_labels(*labels: list[int]) -> Batches:
    sizes = [len(each) for each in labels]
    xs = inputs(1, *sizes)
    return [(x, torch.tensor(each)) for x, each in zip(xs, labels, strict=True)]


def trained(
    batches: Any, net: nn.Module | None = None, window: int = 3, **options: Any
) -> dict[str, Tensor]:
    net = model() if net is None else net
    trainer = Trainer(
        net,
        batches,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.5),
        gradient_accumulation_steps=window,
        device="cpu",
        **options,
    )
    trainer.train()
    return {name: value.clone() for name, value in net.state_dict().items()}


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


WEIGHTS = torch.tensor([1.0, 20.0, 5.0])
#: Its first batch holds one class, so that class weights have the shares of samples.
RARE = with_labels([0, 0, 0], [0, 1, 0], [2, 0], [0, 0, 1])
PADDED = with_labels([1, 2, 1], [0, 1, 1, 2, 0, 2], [2, 1])


def positives(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a sum over the number of positives, of which there is at least one."""
    hot = F.one_hot(targets, 3).float()
    sums = F.binary_cross_entropy_with_logits(outputs, hot, reduction="sum")
    return sums / (targets == 1).sum().clamp(min=1)


@pytest.mark.parametrize(
    ("batches", "loss"),
    [
        pytest.param(
            RARE,
            lambda outputs, targets: F.cross_entropy(outputs, targets, WEIGHTS),
            id="class weights in a function",
        ),
        pytest.param(
            PADDED,
            lambda outputs, targets: F.cross_entropy(outputs, targets, ignore_index=0),
            id="an ignored label in a function",
        ),
        pytest.param(
            with_labels([0, 0, 2], [1, 1, 0], [1, 2], [1, 1]),
            positives,
            id="a sum over clamped positives",
        ),
    ],
)
def test_w4_a_unit_that_a_later_batch_belies_is_refused(
    batches: Batches, loss: Callable[[Tensor, Tensor], Tensor]
) -> None:
    with pytest.raises(ConfigError, match="a later batch is not weighed by"):
        trained(batches, loss_fn=loss)


def test_where_the_function_is_named_the_same_batches_are_weighed_rightly() -> None:
    """The control: torch's own loss says its weights, whatever the first batch has."""
    one = [(torch.cat([x for x, _ in RARE]), torch.cat([y for _, y in RARE]))]
    for loss in (
        nn.CrossEntropyLoss(WEIGHTS),
        partial(F.cross_entropy, weight=WEIGHTS),
    ):
        split = trained(RARE, loss_fn=loss, window=4)
        assert apart(split, trained(one, loss_fn=loss, window=1)) < 1e-6


def test_a_loss_of_torchs_own_needs_no_later_look_to_be_known() -> None:
    """One labelled row alone tells nothing, and need not."""
    batches = with_labels([1, 2, 1], [0, -100, -100], [2, 1])
    one = [(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]))]
    split = trained(batches, loss_fn=F.cross_entropy)
    assert apart(split, trained(one, loss_fn=F.cross_entropy, window=1)) < 1e-6


def test_a_mask_that_is_full_at_first_is_found_when_it_is_not() -> None:
    def step(net: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        squares = (net(batch["x"]) - 1.0).square().mean(1) * batch["mask"]
        return squares.sum() / batch["mask"].sum()

    masks = [[1, 1, 1], [1, 0, 1], [1, 1, 0]]
    batches = [
        {"x": x, "mask": torch.tensor(mask, dtype=torch.float32)}
        for x, mask in zip(inputs(2, 3, 3, 3), masks, strict=True)
    ]
    one = [{name: torch.cat([b[name] for b in batches]) for name in batches[0]}]
    said = trained(batches, step_fn=step, loss_per="mask:mask")
    assert apart(said, trained(one, step_fn=step, window=1)) < 1e-6
    assert apart(trained(batches, step_fn=step), said) < 1e-6


class Language(nn.Module):
    """Its loss is a mean over all tokens of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 7)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        logits = self.embedding(input_ids)
        return {"loss": F.cross_entropy(logits.reshape(-1, 7), input_ids.reshape(-1))}


def test_texts_of_other_widths_without_labels_are_refused_or_said() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [
        {"input_ids": torch.randint(7, (2, width), generator=generator)}
        for width in (4, 9, 6)
    ]
    with pytest.raises(ConfigError, match="the elements of 'input_ids'"):
        trained(batches, Language())
    trained(batches, Language(), loss_per="elements:input_ids")


def test_what_a_collate_function_drops_does_not_count() -> None:
    xs = inputs(3, 12)[0]
    targets = torch.arange(12.0)
    rows = [(x, y if place not in (4, 5) else None) for place, (x, y)
            in enumerate(zip(xs, targets, strict=True))]  # fmt: skip

    def kept(given: list[Any]) -> tuple[Tensor, Tensor]:
        whole = [row for row in given if row[1] is not None]
        return torch.stack([x for x, _ in whole]), torch.stack([y for _, y in whole])

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(outputs[:, 0], y / 12)

    split = trained(DataLoader(rows, 4, collate_fn=kept), loss_fn=loss)  # type: ignore[arg-type]
    one = trained([kept(rows)], loss_fn=loss, window=1)
    assert apart(split, one) < 1e-6


class Student(nn.Module):
    """A forward pass in train mode lets a teacher follow."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.student, self.teacher = nn.Linear(5, 3), nn.Linear(5, 3)
        self.teacher.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                for t, s in zip(
                    self.teacher.parameters(), self.student.parameters(), strict=True
                ):
                    t.mul_(0.9).add_(s, alpha=0.1)
        return self.student(x) + self.teacher(x)


@pytest.mark.parametrize("window", [1, 3])
def test_w3_a_teacher_that_a_forward_pass_moves_is_put_back(window: int) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)  # not itself, which is not measured

    batches = with_labels([0, 1, 2], [1, 1], [0, 2, 2])
    weights = [
        trained(batches, Student(), window, loss_fn=loss, loss_per=said)
        for said in (None, "samples")
    ]
    assert apart(*weights) == 0.0


def test_a_step_that_differentiates_by_itself_is_measured() -> None:
    def step(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x = batch[0].clone().requires_grad_()
        (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        return (slope.square().sum(1) - 1.0).square().mean()

    batches = with_labels([0, 1, 2], [1, 1], [0, 2, 2])
    one = [(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]))]
    split = trained(batches, step_fn=step)
    assert apart(split, trained(one, step_fn=step, window=1)) < 1e-5


LEFT_OUT = -100
Step = Callable[[nn.Module, Any], Tensor]


def of_tokens(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch[0]).reshape(-1, 4), batch[1].reshape(-1))


def of_rows(net: nn.Module, batch: Any) -> Tensor:
    """Return the mean over rows of each one's own mean."""
    logits, labels = net(batch[0]).transpose(1, 2), batch[1]
    losses = F.cross_entropy(logits, labels, reduction="none")
    kept = labels != LEFT_OUT
    return ((losses * kept).sum(1) / kept.sum(1)).mean()


def tagged() -> Batches:
    """Return four full rows, four without their first label, and four with gaps."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (12, 8), generator=generator)
    labels[4:, 0], labels[8:, 1:3], labels[9, :5] = LEFT_OUT, LEFT_OUT, LEFT_OUT
    rows = torch.randn(12, 8, 5, generator=generator)
    rows[4:] *= 4
    return [(rows[at : at + 4], labels[at : at + 4]) for at in (0, 4, 8)]


def whole(step: Step, net: nn.Module, batches: Batches) -> float:
    parts = zip(*batches, strict=True)
    with torch.no_grad():
        return float(step(net, tuple(torch.cat(each) for each in parts)))


def watching(
    step: Step, batches: Batches, held_out: Batches | None = None, **options: Any
) -> Trainer:
    """Return a run that changes no weight, so that all its epochs measure alike."""
    torch.manual_seed(1)
    net = nn.Linear(5, 4)
    how = {"step_fn": step, "val_dataloader": held_out, "device": "cpu", **options}
    return Trainer(
        net, batches, optimizer=torch.optim.SGD(net.parameters(), 0.0), **how
    )


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1)])
@pytest.mark.parametrize("step", [of_tokens, of_rows])
def test_no_mean_over_batches_holds_two_units(
    step: Step, order: tuple[int, ...]
) -> None:
    batches = [tagged()[at] for at in order]
    full = tagged()[:1] * 2
    trainer = watching(step, full, batches, num_epochs=2)
    trainer.train()
    right = whole(step, trainer.model, batches)
    told = [row["val_loss"] for row in trainer.history]
    assert told == pytest.approx([right] * 2, rel=1e-6)
    trainer = watching(step, batches, num_epochs=2)
    trainer.train()
    # Where no cut tells the unit it is said that samples count.
    by_samples = sum(whole(step, trainer.model, [each]) for each in batches) / 3
    pure = [pytest.approx(each, rel=1e-6) for each in (right, by_samples)]
    first, second = (row["train_loss"] for row in trainer.history)
    assert first in pure
    assert second == pytest.approx(first, rel=1e-6)
    assert Evaluator(trainer.model, step_fn=step).evaluate(batches)["loss"] in pure


class OfNoUnit(nn.Module):
    """Weighs each row's own mean by the root of its labels: no unit of ours."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Linear(5, 4)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        losses = F.cross_entropy(
            self.net(x).transpose(1, 2), labels, reduction="none"
        ).sum(1)
        kept = (labels != LEFT_OUT).sum(1)
        shares = kept.sqrt() / kept.sqrt().sum()
        return {"loss": (losses / kept * shares).sum()}


def test_a_unit_that_later_batches_belie_leaves_no_two_in_one_mean() -> None:
    names = ("x", "labels")
    full, _, gaps = (dict(zip(names, each, strict=True)) for each in tagged())
    batches, net = [full, full, gaps], OfNoUnit()
    still = torch.optim.SGD(net.parameters(), lr=0.0)
    trainer = Trainer(net, batches, optimizer=still, num_epochs=2, device="cpu")
    trainer.train()
    by_samples = sum(float(net(**each)["loss"].detach()) for each in batches) / 3
    told = [row["train_loss"] for row in trainer.history]
    assert told == pytest.approx([by_samples] * 2, rel=1e-6)


@pytest.mark.parametrize("is_old", [False, True])
def test_a_run_that_goes_on_counts_in_the_measure_that_it_began_with(
    tmp_path: Path, is_old: bool
) -> None:
    batches = tagged()
    straight = watching(of_rows, batches)
    straight.train()
    cut = watching(of_rows, batches, max_steps=1, save_dir=tmp_path)
    cut.train()
    cut.save_checkpoint(tmp_path / "one.pt")
    if is_old:  # a file of a release that did not say it
        state = torch.load(tmp_path / "one.pt", weights_only=True)
        del state["settings"]["loss_per"]["has_waited"]
        torch.save(state, tmp_path / "one.pt")
    goes_on = watching(of_rows, batches)
    goes_on.train(resume=tmp_path / "one.pt")
    assert goes_on.history[-1]["train_loss"] == straight.history[-1]["train_loss"]
    assert goes_on.state.weigher.settings() == straight.state.weigher.settings()
