"""What a checkpoint of several processes holds of those beside the main one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import make_trainer

from training.checkpoint_io import UnreadableError
from training.hardware.rng import (
    rank_seed,
    rng_state,
    seed_everything,
    seeded_rng_state,
)

RNG = rng_state()


@pytest.mark.parametrize(
    ("ranks", "at"),
    [
        pytest.param({"rng": RNG}, "ranks is dict", id="no list"),
        pytest.param([RNG["torch"]], r"ranks\[0\] is a .* tensor", id="no mapping"),
        pytest.param([{}], r"ranks\[0\]\.rng is missing", id="no generators"),
        pytest.param([{"rng": {**RNG, "torch": 3}}], r"ranks\[0\]\.rng", id="another"),
        pytest.param(
            [{"rng": RNG}, {"rng": {**RNG, "torch": RNG["torch"][:9]}}],
            r"ranks\[1\]\.rng\.torch",
            id="a part of a state",
        ),
        pytest.param(
            [{"rng": RNG, "data": 3}], r"ranks\[0\]\.data is int", id="no list of data"
        ),
        pytest.param(
            [{"rng": RNG, "data": [3]}], r"ranks\[0\]\.data\[0\]", id="wrong data"
        ),
    ],
)
def test_a_place_that_no_run_has_saved_is_refused(
    tmp_path: Path, ranks: Any, at: str
) -> None:
    path = make_trainer().save_checkpoint(tmp_path / "a.pt")
    torch.save(torch.load(path, weights_only=True) | {"ranks": ranks}, path)
    with pytest.raises(UnreadableError, match=at):
        make_trainer().load_checkpoint(path)


def test_alone_there_are_none_and_those_of_a_file_are_left_alone(
    tmp_path: Path,
) -> None:
    path = make_trainer().save_checkpoint(tmp_path / "a.pt")
    state = torch.load(path, weights_only=True)
    assert "ranks" not in state
    torch.save(state | {"ranks": [{"rng": RNG, "to come": 1}]}, path)
    trainer = make_trainer()
    trainer.load_checkpoint(path)
    trainer.save_checkpoint(tmp_path / "b.pt")
    assert "ranks" not in torch.load(tmp_path / "b.pt", weights_only=True)


def test_seeds_of_processes_and_steps_are_others() -> None:
    seeds = [rank_seed(s, r, n) for s in range(5) for r in range(1, 5) for n in (0, 7)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_state_after_a_seed_is_told_without_moving_a_generator() -> None:
    before = rng_state()
    told = seeded_rng_state(5)
    assert torch.equal(rng_state()["torch"], before["torch"])
    assert rng_state()["python"] == before["python"]
    seed_everything(5)
    assert torch.equal(rng_state()["torch"], told["torch"])
    assert rng_state()["python"] == told["python"]
