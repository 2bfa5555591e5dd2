"""A run that was saved on some processes goes on, on as many or others."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from training import Callback, CheckpointError, Trainer
from training.checkpoint.compare import first_difference

pytestmark = pytest.mark.distributed

CLOSE = 1e-6
#: Of 11 rows in batches of 3: two epochs of four steps.
STEPS = range(1, 9)


class Saves(Callback):
    """Saves at every boundary of a run, as each process does."""

    def __init__(self, folder: str | None) -> None:
        self.folder = folder

    def on_step_end(self, trainer: Trainer) -> None:
        trainer.request_checkpoint("test")

    def on_checkpoint(self, trainer: Trainer) -> None:
        if self.folder is not None:
            trainer.save_checkpoint(f"{self.folder}/{trainer.step}.pt")


def make(dropout: float, folder: str | None = None, **options: Any) -> Trainer:
    """Return a run, divided over as many processes as there are."""
    torch.manual_seed(0)
    layers = nn.Linear(4, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 1)
    model = nn.Sequential(*layers)
    rows = TensorDataset(torch.randn(11, 4), torch.randn(11, 1))
    return Trainer(
        model,
        DataLoader(rows, batch_size=3, shuffle=True),
        optimizer=torch.optim.AdamW(model.parameters(), 0.01),
        loss_fn=nn.functional.mse_loss,
        callbacks=[Saves(folder)],
        num_epochs=2,
        max_grad_norm=0.5,
        device="cpu",
        **{"seed": 3, "plugins": ["distributed"], **options},
    )


def ended(trainer: Trainer) -> dict[str, Any]:
    """Return all that a run ends with; of two processes, as this one has it."""
    moments = trainer.optimizer.state_dict()["state"]
    assert trainer.loop is not None
    return {
        "weights": {n: p.detach().clone() for n, p in trainer.model.named_parameters()},
        "moments": {str(number): dict(state) for number, state in moments.items()},
        "history": [dict(row) for row in trainer.history],
        "rng": trainer.loop.draws.state(trainer.state.progress.place),
    }


def straight(dropout: float, folder: str | None, **options: Any) -> dict[str, Any]:
    trainer = make(dropout, folder, **options)
    trainer.train()
    return ended(trainer)


def resumed(dropout: float, path: str, **options: Any) -> dict[str, Any]:
    trainer = make(dropout, **options)
    receipt = trainer.load_checkpoint(path)
    trainer.train()
    return {**ended(trainer), "receipt": str(receipt)}


def all_resumed(dropout: float, folder: str, **options: Any) -> list[dict[str, Any]]:
    return [resumed(dropout, f"{folder}/{step}.pt", **options) for step in STEPS]


def furthest(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """Return the largest difference of weights and of what history tells."""
    pairs = [(a["weights"][name], b["weights"][name]) for name in a["weights"]]
    for x, y in zip(a["history"], b["history"], strict=True):
        assert x.keys() == y.keys()
        pairs += [
            (torch.tensor(float(x[name])), torch.tensor(float(y[name])))
            for name in x.keys() - {"seconds"}
        ]
    return max(float((x - y).abs().max()) for x, y in pairs)


def difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    return first_difference(a, b, ignored=frozenset({"seconds", "receipt"}))


@pytest.mark.parametrize("seed", [3, None], ids=["a seed", "no seed"])
def test_d32_on_as_many_processes_every_boundary_goes_on_to_the_bit(
    two: Ranks, tmp_path: Path, seed: int | None
) -> None:
    left = two.run(straight_with, 0.3, str(tmp_path), seed)
    right = two.run(all_resumed_with, 0.3, str(tmp_path), seed)
    for rank in range(2):
        for step, each in zip(STEPS, right[rank], strict=True):
            assert difference(left[rank], each) is None, (rank, step)
            assert "world_size" not in each["receipt"]


@pytest.mark.parametrize(
    "options", [{}, {"find_unused_parameters": True}], ids=["all are used", "looks"]
)
def test_d32_so_it_does_on_more_than_two_whose_sums_depend_on_their_order(
    many: Ranks, tmp_path: Path, options: dict[str, Any]
) -> None:
    left = many.run(straight_as, options, str(tmp_path))
    right = many.run(all_resumed_as, options, str(tmp_path))
    for rank, of_rank in enumerate(right):
        for step, each in zip(STEPS, of_rank, strict=True):
            assert difference(left[rank], each) is None, (rank, step)


def straight_as(options: dict[str, Any], folder: str) -> dict[str, Any]:
    return straight(0.3, folder, plugins=[{"distributed": options}])


def all_resumed_as(options: dict[str, Any], folder: str) -> list[Any]:
    return all_resumed(0.3, folder, plugins=[{"distributed": options}])


def straight_with(dropout: float, folder: str, seed: int | None) -> dict[str, Any]:
    return straight(dropout, folder, seed=seed)


def all_resumed_with(dropout: float, folder: str, seed: int | None) -> list[Any]:
    return all_resumed(dropout, folder, seed=seed)


def test_d32_without_a_process_s_own_generators_it_would_not(
    two: Ranks, tmp_path: Path
) -> None:
    left = two.run(straight, 0.3, str(tmp_path))
    path = tmp_path / "3.pt"
    state = torch.load(path, weights_only=True)
    del state["ranks"]
    torch.save(state, path)
    for rank, each in enumerate(two.run(resumed, 0.3, str(path))):
        assert str(difference(left[rank], each)).startswith("weights.")


def test_d33_dropout_differs_between_processes(two: Ranks) -> None:
    by_main, by_other = two.run(straight, 0.3, None)
    assert difference(by_main["rng"], by_other["rng"]) is not None
    assert difference(by_main["weights"], by_other["weights"]) is None


def first_draw(seed: int | None) -> float:
    drawn = []

    class Draws(Callback):
        def on_train_begin(self) -> None:
            drawn.append(float(torch.rand(())))

    trainer = make(0.0, seed=seed)
    trainer.bus.register(Draws())
    trainer.train()
    return drawn[0]


@pytest.mark.parametrize("seed", [3, None], ids=["a seed", "no seed"])
def test_d33_main_has_the_seeds_of_one_process_and_each_other_its_own(
    two: Ranks, seed: int | None
) -> None:
    by_main, by_other = two.run(first_draw, seed)
    assert by_main != by_other
    assert [by_main, by_other] == two.run(first_draw, seed)
    if seed is not None:
        torch.manual_seed(seed)
        assert by_main == float(torch.rand(()))


@pytest.mark.parametrize("plugins", [[], ["distributed"]], ids=["without", "with"])
def test_d31_saved_on_two_goes_on_alone(
    two: Ranks, tmp_path: Path, plugins: list[str]
) -> None:
    left = two.run(straight, 0.0, str(tmp_path))[0]
    for each in all_resumed(0.0, str(tmp_path), plugins=plugins):
        assert furthest(left, each) < CLOSE
        assert "setting world_size was 2, is 1" in each["receipt"]


@pytest.mark.parametrize("plugins", [[], ["distributed"]], ids=["without", "with"])
def test_d31_saved_alone_goes_on_on_two(
    two: Ranks, tmp_path: Path, plugins: list[str]
) -> None:
    left = straight(0.0, str(tmp_path), plugins=plugins)
    for of_rank in two.run(all_resumed, 0.0, str(tmp_path)):
        for each in of_rank:
            assert furthest(left, each) < CLOSE
            assert "setting world_size was 1, is 2" in each["receipt"]


def seen_states(path: str) -> list[Tensor]:
    trainer = make(0.3)
    trainer.load_checkpoint(path)
    return [trainer.state.to_restore["rng"]["torch"], torch.get_rng_state()]


def test_d32_a_process_more_than_saved_begins_from_seed_rank_and_step(
    two: Ranks, tmp_path: Path
) -> None:
    straight(0.3, str(tmp_path), plugins=[])
    states = [two.run(seen_states, str(tmp_path / f"{step}.pt")) for step in (2, 2, 3)]
    saved = torch.load(tmp_path / "2.pt", weights_only=True)["rng"]["torch"]
    (main, other), (_, again), (_, later) = states
    assert torch.equal(main[0], saved)
    assert torch.equal(other[0], again[0])
    assert not torch.equal(other[0], main[0])
    assert not torch.equal(other[0], later[0])
    assert torch.equal(other[1], again[1]), "loading moves no generator"


def saved_again(path: str, target: str) -> None:
    trainer = make(0.3)
    trainer.load_checkpoint(path)
    trainer.save_checkpoint(target)


def test_d32_what_was_loaded_is_saved_again_as_it_was(
    two: Ranks, tmp_path: Path
) -> None:
    two.run(straight, 0.3, str(tmp_path))
    path, target = tmp_path / "3.pt", tmp_path / "again.pt"
    two.run(saved_again, str(path), str(target))
    one, other = (torch.load(p, weights_only=True) for p in (path, target))
    assert first_difference(one, other) is None


def loaded(path: str) -> str:
    """Load on each; the last process finds another file there, or none."""
    trainer = make(0.0)
    own = f"{path}.{trainer.rank}" if Path(f"{path}.{trainer.rank}").exists() else path
    with pytest.raises(CheckpointError) as caught:
        trainer.load_checkpoint(own)
    return "; ".join([type(caught.value).__name__, *notes(caught.value)])


def notes(error: BaseException) -> list[str]:
    return [str(error), *getattr(error, "__notes__", [])]


@pytest.mark.parametrize("is_damaged", [True, False], ids=["a damaged one", "another"])
def test_d31_a_file_that_one_process_reads_otherwise_is_refused_by_all(
    two: Ranks, tmp_path: Path, is_damaged: bool
) -> None:
    straight(0.0, str(tmp_path), plugins=[])
    own = tmp_path / "3.pt.1"
    shutil.copy(tmp_path / "4.pt", own)
    if is_damaged:
        own.write_bytes(own.read_bytes()[:-100])
    errors = two.run(loaded, str(tmp_path / "3.pt"))
    for error in errors:
        if is_damaged:
            assert error.startswith("UnreadableError")
            assert "is no complete checkpoint" in error
        else:
            assert "is another file for rank 1 than for the main process" in error
            assert "progress." in error
    if is_damaged:
        assert "raised on rank 1" in errors[0]


@pytest.mark.exhaustive
@pytest.mark.parametrize(("size", "then"), [(2, 3), (3, 2), (3, 1), (3, 3)])
def test_d31_any_number_goes_on_on_any(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, size: int, then: int
) -> None:
    first = Ranks(size, tmp_path_factory.mktemp("first"))
    second = Ranks(then, tmp_path_factory.mktemp("second"))
    try:
        left = first.run(straight, 0.0, str(tmp_path))[0]
        for of_rank in second.run(all_resumed, 0.0, str(tmp_path)):
            assert max(furthest(left, each) for each in of_rank) < CLOSE
    finally:
        first.close()
        second.close()


def of_own_data(path: str, is_resumed: bool) -> dict[str, Any]:
    """Train on rows of each process's own, in an order that it draws itself."""
    trainer = make(0.3, plugins=[{"distributed": {"data": "own"}}])
    drawn = torch.Generator().manual_seed(trainer.rank)
    rows = TensorDataset(
        torch.randn(11, 4, generator=drawn), torch.randn(11, 1, generator=drawn)
    )
    trainer.train_dataloader = DataLoader(rows, 3, shuffle=True, generator=drawn)
    if is_resumed:
        drawn.manual_seed(99)  # what was saved is put back
        trainer.load_checkpoint(path)
    else:
        folder = Path(path).parent
        trainer.bus.register(Saves(str(folder)), name="saves")
    trainer.train()
    return ended(trainer)


@pytest.mark.parametrize("step", [3, 4], ids=["inside an epoch", "between two"])
def test_d32_a_process_s_own_data_goes_on_where_it_was(
    two: Ranks, tmp_path: Path, step: int
) -> None:
    path = str(tmp_path / f"{step}.pt")
    left, right = (two.run(of_own_data, path, flag) for flag in (False, True))
    for one, other in zip(left, right, strict=True):
        assert difference(one, other) is None
    (place,) = torch.load(path, weights_only=True)["ranks"]
    assert place.keys() == {"rng", "data", "loader"}


def resumed_from_a_file_of_its_own(folder: str) -> str:
    """Train on from a file that only the main process sees."""
    trainer = make(0.0)
    try:
        trainer.train(resume=Path(folder) / f"of-{trainer.rank}.pt")
    except CheckpointError as error:
        return str(error)
    return ""


def test_a_file_to_resume_that_one_process_does_not_see_is_refused_by_all(
    two: Ranks, tmp_path: Path
) -> None:
    (tmp_path / "of-0.pt").touch()
    first, second = two.run(resumed_from_a_file_of_its_own, str(tmp_path))
    for each in (first, second):
        assert "there is no such file for rank 1; keep checkpoints where all" in each


class Sums(nn.Module):
    """Sums over the points of each cloud."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor, cloud: Tensor, mass: Tensor) -> dict[str, Tensor]:
        sums = torch.zeros(len(mass)).index_add(0, cloud, self.head(x)[:, 0])
        return {"loss": (sums - mass).square().mean()}


def joined(clouds: list[Tensor]) -> dict[str, Tensor]:
    """Return all points in one row: only the sampler knows how many clouds are."""
    sizes = torch.tensor([len(each) for each in clouds])
    numbers = torch.arange(len(clouds)).repeat_interleave(sizes)
    return {"x": torch.cat(clouds), "cloud": numbers, "mass": sizes.float()}


def history_of_clouds(path: str) -> list[dict[str, float]]:
    """Return what two epochs come to, the second of a run that was resumed."""
    for num_epochs in (1, 2):
        torch.manual_seed(0)
        model, clouds = Sums(), [torch.randn(1 + n % 3, 4) for n in range(7)]
        loader = DataLoader(clouds, batch_size=3, collate_fn=joined)
        trainer = Trainer(
            *(model, loader, loader),
            optimizer=torch.optim.SGD(model.parameters(), 0.01),
            num_epochs=num_epochs,
            seed=3,
            device="cpu",
            plugins=["distributed"],
        )
        trainer.train(resume=path if num_epochs == 2 else None)
        trainer.save_checkpoint(path)
    return [{**row, "seconds": 0.0} for row in trainer.history]


def test_batches_whose_samples_only_the_sampler_knows_are_looked_at_when_resumed(
    two: Ranks, tmp_path: Path
) -> None:
    alone = history_of_clouds(str(tmp_path / "one.pt"))
    first, second = two.run(history_of_clouds, str(tmp_path / "two.pt"))
    assert first == second
    for own, row in zip(alone, first, strict=True):
        assert row == pytest.approx(own, abs=CLOSE)
