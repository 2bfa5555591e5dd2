"""A checkpoint may be a folder into which each process writes its parts."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from distributed.in_parts import AT, CLOSE, DDP, FSDP2, Saves, furthest, make, run
from faults.operations import Operations
from ranks import Ranks
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from training import CheckpointError, Trainer
from training.app.cli.export import export
from training.checkpoint.compare import first_difference
from training.plugin import read_checkpoint

pytestmark = pytest.mark.distributed

SHARDED = {**FSDP2, "checkpoint": "sharded"}
SPENT = frozenset({"seconds", "train_seconds"})
Saved = tuple[Path, list[Any], list[Any]]


@pytest.fixture(scope="module")
def saved(two: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Return a folder with ``a.ckpt``, ``a.pt``, and what both runs ended with."""
    folder = tmp_path_factory.mktemp("saved")
    parts = two.run(run, SHARDED, 0.3, str(folder / "a.ckpt"))
    whole = two.run(run, FSDP2, 0.3, str(folder / "a.pt"))
    return folder, parts, whole


# What is in it -----------------------------------------------


def test_d30_a_folder_holds_what_one_file_does(saved: Saved) -> None:
    folder, parts, whole = saved
    assert first_difference(parts, whole, ignored=SPENT) is None
    state, one = (read_checkpoint(folder / name) for name in ("a.ckpt", "a.pt"))
    assert [*state] == [*one]
    assert first_difference(state, one, ignored=SPENT) is None
    tied = (state["model"][f"{name}.weight"].data_ptr() for name in (0, 3))
    assert len({*tied}) == 1
    names = {"state.pt", ".metadata", "__0_0.distcp", "__1_0.distcp"}
    assert {path.name for path in (folder / "a.ckpt").iterdir()} == names
    assert sorted(os.listdir(folder)) == ["a.ckpt", "a.pt"]


def test_d30_torch_s_own_tools_read_the_parts(saved: Saved) -> None:
    folder, *_ = saved
    read = {"model.1.0.weight": torch.zeros(7, 4)}
    with pytest.warns(UserWarning, match="in a single process"):
        dcp.load(read, checkpoint_id=folder / "a.ckpt", no_dist=True)
    model = read_checkpoint(folder / "a.pt")["model"]
    assert torch.equal(read["model.1.0.weight"], model["1.0.weight"])


# Going on ----------------------------------------------------


@pytest.mark.parametrize("plugin", [SHARDED, FSDP2], ids=["sharded", "full"])
def test_d30_d32_as_many_go_on_from_a_folder_to_the_bit(
    two: Ranks, saved: Saved, plugin: dict[str, Any]
) -> None:
    folder, ended, _ = saved
    again = two.run(run, plugin, 0.3, None, str(folder / "a.ckpt"))
    assert first_difference(ended, again, ignored=SPENT) is None


def test_d30_d32_a_file_made_of_a_folder_goes_on_to_the_bit(
    two: Ranks, saved: Saved, tmp_path: Path
) -> None:
    folder, ended, _ = saved
    names = {"checkpoint": str(folder / "a.ckpt"), "out": str(tmp_path / "a.pt")}
    export(Namespace(**names, adapter=False))
    again = two.run(run, FSDP2, 0.3, None, names["out"])
    assert first_difference(ended, again, ignored=SPENT) is None


def test_d30_d31_one_process_and_another_engine_go_on_from_a_folder(
    two: Ranks, tmp_path: Path
) -> None:
    path = str(tmp_path / "a.ckpt")
    alone = run(DDP, 0.0, None)
    two.run(run, SHARDED, 0.0, path)
    assert furthest(alone, run(DDP, 0.0, None, path)) < CLOSE
    for each in two.run(run, DDP, 0.0, None, path):
        assert furthest(alone, each) < CLOSE


@pytest.mark.exhaustive
def test_d30_d31_more_processes_go_on_from_a_folder_and_write_one(
    two: Ranks, many: Ranks, tmp_path: Path
) -> None:
    by_two, by_many = (str(tmp_path / name) for name in ("two.ckpt", "many.ckpt"))
    alone = run(DDP, 0.0, None)
    two.run(run, SHARDED, 0.0, by_two)
    many.run(run, SHARDED, 0.0, by_many)
    for ranks, path in ((many, by_two), (two, by_many), (many, by_many)):
        for each in ranks.run(run, SHARDED, 0.0, None, path):
            assert furthest(alone, each) < CLOSE


def weights_from(path: str) -> list[Any]:
    trainer = make(SHARDED)
    trainer.load_checkpoint(path, weights_only=True)
    return [p.full_tensor().detach() for p in trainer.model.parameters()]


def test_d30_the_weights_alone_come_out_of_a_folder(two: Ranks, saved: Saved) -> None:
    folder, *_ = saved
    model = read_checkpoint(folder / "a.pt")["model"]
    for each in two.run(weights_from, str(folder / "a.ckpt")):
        kept = [model[n] for n, _ in make({}).model.named_parameters()]
        assert first_difference(each, kept) is None


def stopped_early(to: str | None, from_: str | None = None) -> list[Any]:
    """Train with best weights in memory, whose parts are in the plugin's state."""
    best = {"monitor": "train_loss", "mode": "max", "restore_best_weights": True}
    best |= {"persist_best": "weights", "patience": 5}
    plugins = [{"distributed": SHARDED}, {"early_stopping": best}]
    trainer = make({}, path=None, plugins=plugins)
    if to is not None:
        trainer.train()
        trainer.save_checkpoint(to)
    else:
        trainer.load_checkpoint(str(from_))
        trainer.train()
    return [p.full_tensor().detach() for p in trainer.model.parameters()]


def test_d30_d34_parts_in_the_state_of_a_plugin_are_in_the_folder(
    two: Ranks, tmp_path: Path
) -> None:
    path = str(tmp_path / "a.ckpt")
    before = two.run(stopped_early, path)
    state = read_checkpoint(path)["plugins"]["early_stopping"]
    kept = [v for v in leaves(state) if isinstance(v, torch.Tensor) and v.ndim == 2]
    assert {tuple(v.shape) for v in kept} >= {(4, 4), (7, 4)}
    assert first_difference(before, two.run(stopped_early, None, path)) is None


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    else:
        yield value


# Tensors of every kind ---------------------------------------


def odd(path: str) -> list[Any]:
    """Save tensors that lie in other ways than weights do; return them whole."""
    trainer = make(SHARDED)
    mesh = next(trainer.model.parameters()).device_mesh
    rank = trainer.rank
    rows = torch.arange(6.0).reshape(3, 2)
    local = rows[:2] if rank == 0 else rows[2:]
    by_rows = DTensor.from_local(local, mesh, [Shard(0)], shape=(3, 2), stride=(2, 1))
    tensors = {
        "uneven": by_rows,
        "columns": DTensor.from_local(torch.full((3, 1), 1.0 + rank), mesh, [Shard(1)]),
        "sum": DTensor.from_local(torch.full((2,), 1.0 + rank), mesh, [Partial()]),
        "same": DTensor.from_local(torch.ones(2), mesh, [Replicate()]),
        "scalar": DTensor.from_local(torch.tensor(3.0), mesh, [Replicate()]),
        "empty": DTensor.from_local(torch.ones(0, 2), mesh, [Shard(0)]),
        "half": DTensor.from_local(torch.ones(2).bfloat16(), mesh, [Shard(0)]),
    }
    state = {"a": tensors, "a.same": by_rows, "b": (1, [tensors["uneven"]], "c")}
    trainer.strategy.save(Path(path), state)
    return [[value.full_tensor() for value in tensors.values()], state["b"][0]]


def test_d30_each_tensor_is_whole_however_it_lay(two: Ranks, tmp_path: Path) -> None:
    (whole, number), _ = two.run(odd, str(tmp_path / "a.ckpt"))
    state = read_checkpoint(tmp_path / "a.ckpt")
    assert first_difference(list(state["a"].values()), whole) is None
    assert state["a"]["sum"].tolist() == [3.0, 3.0]
    assert state["a"]["columns"].tolist() == [[1.0, 2.0]] * 3
    assert state["a.same"].tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert state["b"][0] == number
    assert state["b"][1][0] is state["a"]["uneven"]
    assert state["b"][2] == "c"


# Writing fails -----------------------------------------------


def failing(path: str, rank: int, operation: str) -> tuple[str, list[str]]:
    """Save where the first such operation of one process fails, then once more."""
    trainer = make(SHARDED)
    folder = Path(path).parent

    def act(number: int, name: str, at: str, detail: Any) -> None:
        if name == operation and trainer.rank == rank and not has_failed:
            has_failed.append(at)
            raise OSError(28, "No space left on device")

    has_failed: list[str] = []
    try:
        with Operations(folder, act):
            trainer.save_checkpoint(path)
        told = "saved"
    except CheckpointError as error:
        told = str(error)
    left = trainer.strategy.on_main(lambda: sorted(os.listdir(folder)))
    trainer.save_checkpoint(path)
    return told, left


@pytest.mark.parametrize(
    ("rank", "operation"),
    [(0, "mkdir"), (1, "open w"), (1, "fsync"), (0, "rename"), (0, "replace")],
)
def test_d30_what_one_process_cannot_write_is_everybody_s_error_and_leaves_nothing(
    two: Ranks, tmp_path: Path, rank: int, operation: str
) -> None:
    (told, left), other = two.run(failing, str(tmp_path / "a.ckpt"), rank, operation)
    assert told.startswith(f"checkpoint '{tmp_path / 'a.ckpt'}' could not be written")
    assert "No space left on device" in told
    assert "\n" not in told
    assert other == (told, left)
    assert left == []
    assert read_checkpoint(tmp_path / "a.ckpt")["progress"]["step"] == 0


def error_of(work: Callable[[], object]) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # it is told
        work()
    return f"{type(caught.value).__name__}: {caught.value}"


def replacing(path: str) -> str:
    return error_of(lambda: make(SHARDED).save_checkpoint(path))


def test_d30_a_folder_is_never_replaced(two: Ranks, saved: Saved) -> None:
    folder, *_ = saved
    for told in two.run(replacing, str(folder / "a.ckpt")):
        assert told.startswith("CheckpointError: ")
        assert "is there already" in told
    assert sorted(os.listdir(folder)) == ["a.ckpt", "a.pt"]


class LeavesOut(Saves):
    """Saves trained weights alone."""

    def on_checkpoint(self, trainer: Trainer) -> None:
        from training.plugin import FrozenWeights

        trainer.model[0].weight.requires_grad_(False)
        frozen = FrozenWeights(trainer.model)
        if trainer.step == AT:
            trainer.save_checkpoint(str(self.path), frozen=frozen)


def leaving_out(path: str) -> list[str]:
    own = make({}, plugins=[{"distributed": SHARDED}], path=None)
    own.bus.register(LeavesOut(path))
    keeper = [{"distributed": SHARDED}, {"checkpointing": {"weights": "trained"}}]
    shipped = make({}, plugins=keeper, save_dir=path)
    return [error_of(own.train), error_of(shipped.train)]


def test_d30_weights_that_cannot_be_left_out_are_not(
    two: Ranks, tmp_path: Path
) -> None:
    for own, shipped in two.run(leaving_out, str(tmp_path / "a")):
        assert "a sharded checkpoint leaves no weights out" in own
        assert "checkpointing.weights is 'trained'" in shipped
        assert shipped.startswith("ConfigError: ")
    assert not list(tmp_path.rglob("*.ckpt"))
