"""What is saved of weights in parts is whole, and any engine goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.in_parts import (
    CLOSE,
    DDP,
    FSDP2,
    furthest,
    make,
    run,
    runs,
    whole,
)
from ranks import Ranks
from torch import Tensor

from training import CheckpointError
from training.checkpoint.compare import first_difference
from training.plugin import read_checkpoint

pytestmark = pytest.mark.distributed


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param((2, DDP), (2, FSDP2), id="ddp to fsdp2"),
        pytest.param((2, FSDP2), (2, DDP), id="fsdp2 to ddp"),
        pytest.param((2, FSDP2), (1, DDP), id="fsdp2 to one process"),
        pytest.param((1, DDP), (2, FSDP2), id="one process to fsdp2"),
    ],
)
def test_d31_any_engine_goes_on_from_the_file_of_any_other(
    two: Ranks, tmp_path: Path, before: Any, after: Any
) -> None:
    path = str(tmp_path / "a.pt")
    alone = run(DDP, 0.0, None)
    runs(two, *before, 0.0, path)
    for each in runs(two, *after, 0.0, None, path):
        assert furthest(alone, each) < CLOSE


def test_d32_a_sharded_run_goes_on_to_the_bit_with_dropout(
    two: Ranks, tmp_path: Path
) -> None:
    path = str(tmp_path / "a.pt")
    left = two.run(run, FSDP2, 0.3, path)
    right = two.run(run, FSDP2, 0.3, None, path)
    assert first_difference(left, right) is None
    assert furthest(left[0], run(DDP, 0.3, None)) > CLOSE  # each draws its own


def test_d32_so_it_does_on_more_than_two(many: Ranks, tmp_path: Path) -> None:
    path = str(tmp_path / "a.pt")
    left = many.run(run, FSDP2, 0.3, path)
    assert first_difference(left, many.run(run, FSDP2, 0.3, None, path)) is None


def test_d29_the_file_of_a_sharded_run_is_that_of_one_process(
    two: Ranks, tmp_path: Path
) -> None:
    run(DDP, 0.0, str(tmp_path / "one.pt"))
    two.run(run, FSDP2, 0.0, str(tmp_path / "two.pt"))
    one, parts = (read_checkpoint(tmp_path / f"{n}.pt") for n in ("one", "two"))
    for part in ("model", "optimizer"):
        assert furthest(shapes(one[part]), shapes(parts[part])) == 0.0
    assert furthest(one["model"], parts["model"]) < CLOSE
    model = parts["model"]
    tied = model["0.weight"].data_ptr(), model["3.weight"].data_ptr()
    assert tied[0] == tied[1]


def shapes(value: Any) -> Any:
    """Return the same structure with the sizes of tensors, and nothing of others."""
    if isinstance(value, dict):
        return {str(name): shapes(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shapes(item) for item in value] or 0
    return list(value.shape) or 0 if isinstance(value, Tensor) else 0


def gathered() -> list[Any]:
    trainer = make(FSDP2)
    parameter = next(trainer.model.parameters())
    state = {"a": [parameter, {"b": parameter.detach(), "c": torch.ones(2)}], "d": 1}
    full = trainer.strategy.full(state)
    own = trainer.strategy.own({"a": torch.ones(4, 4)}, {"a": parameter})["a"]
    a, rest = full["a"]
    one = a is rest["b"]
    return [str(a.device), a.shape, one, rest["c"].tolist(), own.to_local().shape]


def test_d29_whole_tensors_are_on_the_host_of_the_main_process_alone(
    two: Ranks,
) -> None:
    main, other = two.run(gathered)
    assert main == ["cpu", (4, 4), True, [1.0, 1.0], (2, 4)]
    assert other == ["meta", (4, 4), True, [1.0, 1.0], (2, 4)]


def saved_in_parts(path: str) -> str:
    trainer = make(FSDP2)
    trainer.strategy.full = lambda state: dict(state)  # forgotten
    try:
        trainer.save_checkpoint(path)
    except CheckpointError as error:
        return str(error)
    return "saved"


def test_a_part_of_a_tensor_never_reaches_a_checkpoint(
    two: Ranks, tmp_path: Path
) -> None:
    for told in two.run(saved_in_parts, str(tmp_path / "a.pt")):
        assert "DTensor" in told
        assert "nothing was saved" in told
    assert not list(tmp_path.iterdir())


def stopped_early(folder: str, plugin: dict[str, Any]) -> list[Any]:
    """Train with the weights of the best check kept in memory; return weights."""
    best = {"monitor": "train_loss", "mode": "max", "restore_best_weights": True}
    best |= {"persist_best": "weights", "patience": 5}
    plugins = [{"distributed": plugin}, {"early_stopping": best}]
    trainer = make({}, path=f"{folder}/a.pt", plugins=plugins)
    trainer.train()
    return [trainer.weights_are, *(whole(p) for p in trainer.model.parameters())]


def test_d34_the_best_weights_come_back_in_parts(two: Ranks, tmp_path: Path) -> None:
    label, *weights = stopped_early(str(tmp_path), {})
    assert label == "best@4"
    for theirs, *parts in two.run(stopped_early, str(tmp_path), FSDP2):
        assert theirs == label
        assert furthest(weights, parts) < CLOSE


EMA = Path(__file__).parents[2] / "examples" / "ema" / "src" / "trainbus_ema"


def averaged(plugin: dict[str, Any], to: str | None, from_: str | None) -> list[Tensor]:
    """Train with a plugin that averages weights; return its averages, whole."""
    plugins = [{"distributed": plugin}, f"{EMA / 'callback.py'}:EmaCallback"]
    trainer = make({}, path=to, plugins=plugins)
    trainer.train(resume=from_)
    return [whole(each) for each in trainer.plugins["ema"].average.values()]


@pytest.mark.parametrize("form", ["full", "sharded"])
def test_d34_a_plugin_goes_on_with_its_parts_of_what_was_saved_whole(
    two: Ranks, tmp_path: Path, form: str
) -> None:
    alone = averaged(DDP, None, None)
    path = str(tmp_path / ("a.pt" if form == "full" else "a.ckpt"))
    engine = {**FSDP2, "checkpoint": form}
    through = two.run(averaged, engine, path, None)
    for went_on, straight in zip(
        two.run(averaged, engine, None, path), through, strict=True
    ):
        assert furthest(went_on, straight) == 0.0
        assert furthest(alone, went_on) < CLOSE
