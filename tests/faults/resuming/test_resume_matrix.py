"""R1, R2, R4, R5, R7: every boundary and kind of randomness, one state at the end."""

from __future__ import annotations

import itertools
import random
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ahead import AHEAD
from faults.runs import (
    Ids,
    SavesEverywhere,
    assert_same_end,
    build,
    end_of,
    loader_of,
    resumed,
)
from torch.optim.lr_scheduler import LambdaLR
from toy import make_trainer, regression_batches

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Callback, CheckpointError, Trainer
from training.checkpoint.compare import first_difference

Record = Callable[[str, object], None]
#: shuffle, dropout, augmentation
COMBINATIONS = list(itertools.product((True, False), (0.5, 0.0), (True, False)))
#: Batches of a window -> boundaries of a run: the steps of two epochs.
BOUNDARIES = {1: 12, 2: 6, 4: 4}


def sweep(
    folder: Path,
    workers: int = 0,
    every: int = 1,
    shuffle: bool = True,
    noise: bool = True,
    **options: Any,
) -> int:
    """Resume at every ``every``-th boundary; return how many were equal."""

    def loader(num_workers: int) -> Any:
        return loader_of(shuffle=shuffle, noise=noise, workers=num_workers)

    straight = build(SavesEverywhere(folder), loader=loader(0), **options)
    straight.train()
    expected = end_of(straight)
    files = sorted(folder.iterdir())
    for number, path in enumerate(files[::every]):
        end = resumed(path, loader=loader(workers), ambient=number, **options)
        assert_same_end(end, expected, f"{path.name}, {workers} workers, {options}")
    return len(files[::every])


@pytest.mark.parametrize(
    ("workers", "every"),
    [
        pytest.param(0, 1, id="without workers"),
        pytest.param(2, 3, id="with two workers, each third", marks=pytest.mark.slow),
        pytest.param(2, 1, id="with two workers", marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_r1_every_boundary_of_every_kind_of_run_resumes_to_the_same_state(
    tmp_path: Path,
    accumulation: int,
    workers: int,
    every: int,
    record_property: Record,
) -> None:
    points = 0
    for shuffle, dropout, noise in COMBINATIONS:
        folder = tmp_path / f"{shuffle}-{dropout}-{noise}"
        folder.mkdir()
        points += sweep(
            folder,
            workers=workers,
            every=every,
            shuffle=shuffle,
            noise=noise,
            dropout=dropout,
            gradient_accumulation_steps=accumulation,
        )
    record_property("boundaries", points)
    assert points == len(COMBINATIONS) * len(range(0, BOUNDARIES[accumulation], every))


def test_r1_a_run_saved_without_workers_resumes_equal_with_two(
    tmp_path: Path, record_property: Record
) -> None:
    points = sweep(tmp_path, workers=2, every=3)
    record_property("boundaries", points)
    assert points == 4


def test_r1_what_a_batch_weighs_is_measured_when_its_turn_has_come(
    tmp_path: Path, record_property: Record
) -> None:
    # Of several batches a window: what they weigh is looked at again and again.
    points = sweep(tmp_path, gradient_accumulation_steps=2)
    record_property("boundaries", points)
    assert points == 6


class Unsized:
    """Six batches, and no word of how many."""

    def __init__(self) -> None:
        self.batches = [*loader_of(shuffle=False, noise=False)]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def test_r1_where_only_the_next_batch_tells_the_end_it_is_not_measured_to_tell_it(
    tmp_path: Path, record_property: Record
) -> None:
    # What was asked for at a boundary is granted when the next batch has been read.
    options: dict[str, Any] = {"gradient_accumulation_steps": 2, "dropout": 0.0}
    straight = build(SavesEverywhere(tmp_path), loader=Unsized(), **options)
    straight.train()
    expected, files = end_of(straight), sorted(tmp_path.iterdir())
    for path in files:
        end = resumed(path, loader=Unsized(), **options)
        assert_same_end(end, expected, path.name)
    record_property("boundaries", len(files))
    assert len(files) == 6


def test_a_batch_that_was_trained_on_is_gone_when_another_is_read() -> None:
    alive: list[int] = []

    class Loader:
        def __iter__(self) -> Iterator[Any]:
            read: list[Any] = []
            for x, y in regression_batches(4):
                alive.append(sum(each() is not None for each in read))
                batch = x.clone(), y.clone()
                read.append(weakref.ref(batch[0]))
                yield batch
                del batch

    make_trainer(None, Loader(), loss_per="samples").train()
    assert alive == [0, 1, 1, 1]  # the one before, which waits for its turn if ahead


def test_what_is_read_ahead_of_a_step_is_as_the_parameter_says(
    request: pytest.FixtureRequest,
) -> None:
    """The control of all tests that are run so: see ``ahead``."""
    heard: list[tuple[str, int]] = []

    class Heard(Callback):
        def on_batch_begin(self, batch: int) -> None:
            heard.append(("step", batch))

    class Loader:
        def __iter__(self) -> Iterator[Any]:
            for number, batch in enumerate(regression_batches(3)):
                heard.append(("read", number))
                yield batch

    make_trainer(None, Loader(), Heard(), loss_per="samples").train()
    in_turn = [*(("read", 0), ("step", 0), ("read", 1), ("step", 1))]
    ahead = [*(("read", 0), ("read", 1), ("step", 0), ("read", 2))]
    is_ahead = request.node.callspec.params["reading"] == AHEAD
    assert heard[:4] == (ahead if is_ahead else in_turn)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_r7_every_boundary_on_cuda_resumes_to_the_same_state(
    tmp_path: Path, precision: str
) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        points = sweep(
            tmp_path,
            gradient_accumulation_steps=2,
            precision=precision,
            device="cuda",
        )
    finally:
        torch.use_deterministic_algorithms(False)
    assert points == 6


def change(state: dict[str, Any], path: str) -> None:
    """Lose the part of a checkpoint at a dotted path, as a bug in saving would."""
    *outer, last = path.split(".")
    for name in outer:
        state = state[name]
    value = state[last]
    if isinstance(value, torch.Tensor):
        state[last] = torch.Generator().get_state()
    elif path == "progress.step":
        state[last] = value + 1  # fewer steps than updates are refused
    elif path == "scaler.scale":
        state[last] = 2 * value
    elif path == "rng.python":
        state[last] = [value[0], list(random.Random(9).getstate()[1]), None]
    elif path == "rng.numpy":
        state[last] = [value[0], [1] * 624, *value[2:]]
    else:
        state[last] = type(value)()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return a checkpoint in the second epoch, and the end of its run; fp16."""
    folder = tmp_path_factory.mktemp("saved")
    trainer = build(SavesEverywhere(folder), precision="fp16")
    trainer.train()
    return folder / "1-8.pt", end_of(trainer)


def test_r1_the_checkpoint_of_the_mutants_resumes_equal_as_it_is(
    saved: tuple[Path, dict[str, Any]],
) -> None:
    assert_same_end(resumed(saved[0], precision="fp16"), saved[1], "unchanged")


@pytest.mark.parametrize(
    "lost",
    [
        "optimizer.state",
        "scaler.scale",
        "rng.python",
        "rng.numpy",
        "rng.torch",
        "progress.step",
        "progress.update",
        "progress.batch",
        "progress.loss_sum",
        "progress.weight_sum",
        "history",
        "plugins",
    ],
)
def test_r1_a_checkpoint_that_lost_a_field_is_found_out(
    tmp_path: Path, saved: tuple[Path, dict[str, Any]], lost: str
) -> None:
    state = torch.load(saved[0], weights_only=True)
    change(state, lost)
    torch.save(state, tmp_path / "mutant.pt")
    end = resumed(tmp_path / "mutant.pt", precision="fp16")
    assert first_difference(end, saved[1]) is not None


@pytest.mark.parametrize(
    ("progress", "told"),
    [
        pytest.param(
            {"epoch": 0}, r"metrics\['train_loss'\] is list", id="a later epoch"
        ),
        pytest.param(
            {"step": 5}, r"progress\.update is int 6, not within", id="more updates"
        ),
    ],
)
def test_r1_a_checkpoint_is_refused_that_holds_what_would_be_of(
    tmp_path: Path,
    saved: tuple[Path, dict[str, Any]],
    progress: dict[str, int],
    told: str,
) -> None:
    state = torch.load(saved[0], weights_only=True)
    state["progress"] |= progress
    torch.save(state, tmp_path / "mutant.pt")
    with pytest.raises(CheckpointError, match=told):
        resumed(tmp_path / "mutant.pt", precision="fp16")


def test_r1_what_was_asked_for_is_remembered(
    saved: tuple[Path, dict[str, Any]],
) -> None:
    trainer = build(precision="fp16")
    trainer.load_checkpoint(saved[0])
    asked = [(each.owner, each.step, each.kind) for each in trainer.requests]
    assert asked == [("SavesEverywhere", n, "checkpoint") for n in range(1, 9)]


def test_r2_a_boundary_resume_runs_exactly_the_remaining_batches(
    tmp_path: Path,
) -> None:
    straight = build(SavesEverywhere(tmp_path))
    straight.train()
    whole = straight.plugins["ids"].seen
    for path in tmp_path.iterdir():
        step = int(path.stem.partition("-")[2])
        ids = Ids()
        ids.load_state_dict = lambda state: None  # type: ignore[method-assign]
        trainer = build()
        trainer.bus.unregister("ids")
        trainer.bus.register(ids)
        trainer.load_checkpoint(path)
        trainer.train()
        assert ids.seen == whole[step:], path.name


BAD = (1, 5, 9)


class Overflows(Callback):
    """Makes the scaled gradients of some windows infinite, as fp16 does by itself."""

    def on_setup(self, trainer: Trainer) -> None:
        parameter = next(trainer.model.parameters())
        parameter.register_hook(lambda g: g * torch.inf if trainer.step in BAD else g)


def scaled(*callbacks: Any, **options: Any) -> Trainer:
    """Return an fp16 trainer with a schedule; its scale grows after 3 good steps."""
    trainer = build(Overflows(), *callbacks, precision="fp16", **options)
    schedule = LambdaLR(trainer.optimizer, lambda advances: 0.9**advances)
    trainer.bus.register(LearningRateSchedulerCallback(schedule, interval="step"))
    assert trainer.grad_scaler is not None
    trainer.grad_scaler.set_growth_interval(3)
    trainer.grad_scaler.load_state_dict(
        {**trainer.grad_scaler.state_dict(), "scale": 64.0}
    )
    return trainer


def test_r4_the_loss_scale_its_tracker_and_skipped_steps_resume_equal(
    tmp_path: Path,
) -> None:
    straight = scaled(SavesEverywhere(tmp_path))
    straight.train()
    assert straight.state.progress.skipped_windows >= len(BAD)
    assert straight.update == straight.step - straight.state.progress.skipped_windows
    assert straight.update > 3, "or the scale never grows"
    rate = straight.optimizer.param_groups[0]["lr"]
    assert rate == pytest.approx(0.01 * 0.9**straight.update), "no skip moved it"
    expected = end_of(straight)
    for path in sorted(tmp_path.iterdir()):
        trainer = scaled()
        trainer.load_checkpoint(path)
        trainer.train()
        assert_same_end(end_of(trainer), expected, path.name)


def test_r5_ten_kills_in_one_run_end_like_none(tmp_path: Path) -> None:
    expected = build(num_epochs=4)
    expected.train()
    stops = sorted(random.Random(5).sample(range(1, 24), 10))
    path = None
    for stop in [*stops, None]:
        folder = tmp_path / str(stop)
        folder.mkdir()
        trainer = build(SavesEverywhere(folder), KillAt(stop), num_epochs=4)
        if path is not None:
            trainer.load_checkpoint(path)
        if stop is None:
            trainer.train()
            break
        with pytest.raises(RuntimeError, match="killed"):
            trainer.train()
        path = max(folder.iterdir(), key=lambda file: int(file.stem.split("-")[1]))
    assert_same_end(end_of(trainer), end_of(expected), "after ten kills")
    seen = trainer.plugins["ids"].seen
    for epoch in range(4):
        rows = [i for number, *rows in seen if number == epoch for i in rows]
        assert sorted(rows) == list(range(11))


class KillAt(Callback):
    """Raises inside the window after a step: its work is lost."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_batch_end(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            raise RuntimeError("killed")
