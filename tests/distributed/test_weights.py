"""What a part weighs is told by the batch that it is a part of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import RankError, Ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from training import ConfigError, Trainer
from training.weighing.counts import Contents
from training.weighing.part_weigher import PartSearch, PartWeigher

pytestmark = pytest.mark.distributed

#: The class of each row: one class in each process's part of a batch of 8.
CLASSES = torch.tensor([0] * 4 + [1] * 4)


class ByClass(nn.Module):
    """Its loss is a mean over weights of classes that nobody is told."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 2)
        self.weight = torch.tensor([1.0, 5.0])

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.layer(x)
        return {"loss": nn.functional.cross_entropy(logits, labels, self.weight)}


class Squares(ByClass):
    """Its loss is a mean over samples."""

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": self.layer(x).square().mean()}


class Contrastive(ByClass):
    """Each row is compared with all others of the batch."""

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.layer(x) @ self.layer(x.flip(1)).T
        own = torch.arange(len(x))
        return {"loss": nn.functional.cross_entropy(logits, own)}


def run(
    kind: type[nn.Module],
    save_to: Path | None = None,
    resume: Path | None = None,
    **settings: Any,
) -> Any:
    """Train, and return the unit that was found."""
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    rows = [{"x": a, "labels": b} for a, b in zip(x, CLASSES, strict=True)]
    model = kind()
    trainer = Trainer(
        model,
        DataLoader(rows, batch_size=8),  # type: ignore[arg-type]
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        plugins=[{"distributed": {}}],
        device="cpu",
        **settings,
    )
    if resume is not None:
        trainer.load_checkpoint(resume, allow_changes=["loss_per"])
    trainer.train()
    if save_to is not None:
        trainer.save_checkpoint(save_to)
    return trainer.state.weigher.settings()["unit"]


@pytest.mark.parametrize("kind", [ByClass, Contrastive])
def test_d6_a_loss_that_no_unit_explains_is_refused_by_all(
    two: Ranks, kind: type[nn.Module]
) -> None:
    answers = two.results(run, kind)
    for is_ok, told in answers:
        assert not is_ok
        assert "each batch is divided among 2 processes, but the loss is no" in told
        assert "say with loss_per" in told


def run_measuring_parts() -> str:
    whole = PartWeigher._whole
    PartWeigher._whole = lambda self, part, source: Contents(  # type: ignore[method-assign]
        self.counts, part, len(source.issued), source.issued
    )
    try:
        return run(ByClass)
    finally:
        PartWeigher._whole = whole  # type: ignore[method-assign]


def test_d6_parts_by_themselves_would_tell_otherwise(two: Ranks) -> None:
    assert two.run(run_measuring_parts) == ["samples", "samples"]


def run_disagreeing(what: str) -> str:
    def otherwise(self: PartSearch, *given: Any) -> bool:
        own = {
            "unit": f"rank {self._subject.strategy.rank}",
            "scale": self._subject.strategy.rank,
        }
        setattr(self.known, what, own[what])
        return True

    seek = PartSearch._seek
    PartSearch._seek = otherwise  # type: ignore[method-assign]
    try:
        return run(ByClass)
    finally:
        PartSearch._seek = seek  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("unit", "unit is 'rank 0' on rank 0, 'rank 1' on rank 1"),
        ("scale", "scale is 0 on rank 0, 1 on rank 1"),
    ],
)
def test_d6_processes_that_see_other_things_are_told(
    two: Ranks, what: str, told: str
) -> None:
    with pytest.raises(RankError, match=f"otherwise in each process .{told}"):
        two.run(run_disagreeing, what)


def run_unsure(rank: int) -> int:
    """Train where one process cannot confirm the unit; return how often it looked."""
    looks, look = 0, PartSearch.look

    def unsure(self: PartSearch, *given: Any, is_known: bool = False) -> Any:
        nonlocal looks
        looks += 1
        seen = look(self, *given, is_known=is_known)
        if is_known and self._subject.strategy.rank == rank:
            seen.units = []
        return seen

    PartSearch.look = unsure  # type: ignore[method-assign]
    try:
        run(Squares, num_epochs=3)
    finally:
        PartSearch.look = look  # type: ignore[method-assign]
    return looks


@pytest.mark.parametrize("rank", [0, 1])
def test_d6_where_one_process_is_not_sure_all_look_once_more(
    two: Ranks, rank: int
) -> None:
    """At the first batch, and twice at each of two later ones."""
    assert two.run(run_unsure, rank) == [5, 5]


def run_without_room(rank: int) -> str:
    """Train where one process has no room for any row; return what is raised."""

    def step(model: nn.Module, batch: Any) -> Tensor:
        if torch.distributed.get_rank() == rank:
            raise torch.OutOfMemoryError("no room")
        loss: Tensor = model.get_submodule("layer")(batch["x"]).square().mean()
        return loss

    try:
        run(ByClass, step_fn=step)
    except torch.OutOfMemoryError as error:
        return "; ".join([str(error), *error.__notes__])
    return ""


@pytest.mark.parametrize("rank", [0, 1])
def test_d6_where_one_process_has_no_room_to_measure_that_is_told_on_all(
    two: Ranks, rank: int
) -> None:
    told = two.run(run_without_room, rank)
    for each in told:
        assert "the model raised OutOfMemoryError: no room" in each
        assert "use a smaller batch_size" in each
    assert f"raised on rank {rank}" in told[1 - rank]


def run_resumed(path: Path, found: tuple[str, str]) -> str:
    """Resume a mean over samples; return what is raised where a process finds another.

    Args:
        path: of the checkpoint.
        found: by each process.
    """
    finds = "mean"

    def step(model: nn.Module, batch: Any) -> Tensor:
        if finds == "no room":
            raise torch.OutOfMemoryError("no room")
        loss = model.get_submodule("layer")(batch["x"]).square().sum(1)
        return torch.sum(loss) if finds == "sum" else torch.mean(loss)

    run(ByClass, step_fn=step, save_to=path, max_steps=1)
    finds = found[torch.distributed.get_rank()]
    try:
        return run(ByClass, step_fn=step, resume=path, max_steps=2, num_epochs=2)
    except (ConfigError, torch.OutOfMemoryError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(
    ("found", "told"),
    [
        pytest.param(("sum", "mean"), "ConfigError: .*unit is 'sum' on rank 0", id="0"),
        pytest.param(("mean", "sum"), "ConfigError: .*'sum' on rank 1", id="1"),
        pytest.param(
            ("sum", "no room"), "OutOfMemoryError: .*no room", id="1 has no room"
        ),
        pytest.param(("sum", "sum"), "sum", id="both alike"),
    ],
)
def test_d6_processes_that_find_other_units_on_resuming_are_told(
    two: Ranks, tmp_path: Path, found: tuple[str, str], told: str
) -> None:
    for each in two.run(run_resumed, tmp_path / "a.pt", found):
        assert re.match(told, each)


def test_d6_what_is_said_needs_no_look(two: Ranks) -> None:
    assert two.run(run_saying) == ["samples", "samples"]


def run_saying() -> str:
    return run(Contrastive, loss_per="samples")


def drawn_while_measuring() -> list[Any]:
    """Return the generators' states after a run whose loss draws nothing."""
    torch.manual_seed(0)
    x = TensorDataset(torch.randn(7, 4), torch.randn(7, 1))
    model = nn.Linear(4, 1)
    trainer = Trainer(
        model,
        DataLoader(x, batch_size=3, shuffle=True),
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        loss_fn=nn.functional.mse_loss,
        plugins=[{"distributed": {}}],
        device="cpu",
        seed=5,
    )
    trainer.train()
    return torch.get_rng_state().tolist()


def test_d6_measuring_moves_no_generator(two: Ranks) -> None:
    alone = drawn_while_measuring()
    assert two.run(drawn_while_measuring)[0] == alone


class Pools(nn.Module):
    """Adds up the points of each cloud."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor, cloud: Tensor, labels: Tensor) -> dict[str, Tensor]:
        sums = torch.zeros(len(labels), 2).index_add(0, cloud, self.layer(x))
        return {"loss": nn.functional.cross_entropy(sums, labels)}


def joined(clouds: list[Tensor]) -> dict[str, Tensor]:
    """Return all points in one row: only the sampler knows how many clouds are."""
    sizes = torch.tensor([len(each) for each in clouds])
    numbers = torch.arange(len(clouds)).repeat_interleave(sizes)
    return {"x": torch.cat(clouds), "cloud": numbers, "labels": sizes % 2}


def loss_of_clouds(kind: str) -> float:
    """Train on clouds, and return the loss of an evaluation."""
    drawn = torch.Generator().manual_seed(0)
    clouds: Any = [torch.randn(2 + n % 4, 3, generator=drawn) for n in range(14)]
    chosen = [[0, 1, 2], [3, 4, 5, 6, 7], [8, 9], [10, 11, 12, 13]]
    validation = {
        "plain": lambda: DataLoader(clouds, batch_size=4, collate_fn=joined),
        "list": lambda: [joined([clouds[n] for n in each]) for each in chosen],
        "sampler": lambda: DataLoader(clouds, batch_sampler=chosen, collate_fn=joined),
    }
    model = Pools()
    trainer = Trainer(
        model,
        DataLoader(clouds, batch_size=4, shuffle=True, collate_fn=joined),
        validation[kind](),
        torch.optim.SGD(model.parameters(), 0.1),
        plugins=["distributed"],
        device="cpu",
        seed=0,
    )
    trainer.train()
    return float(trainer.history[-1]["val_loss"])


@pytest.mark.parametrize("kind", ["plain", "list", "sampler"])
def test_d22_a_part_that_does_not_tell_its_samples_counts_by_what_it_tells(
    two: Ranks, kind: str
) -> None:
    alone = loss_of_clouds(kind)
    assert two.run(loss_of_clouds, kind) == pytest.approx([alone, alone], abs=1e-6)
