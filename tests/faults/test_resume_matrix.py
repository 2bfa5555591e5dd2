"""R1-R5, R8: every boundary, every kind of randomness, one state at the end."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults.runs import (
    Augmented,
    Ids,
    SavesEverywhere,
    assert_same_end,
    build,
    end_of,
    loader_of,
    resumed,
)
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, IterableDataset, Sampler, TensorDataset
from toy import regression_batches

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Callback, CheckpointError, ConfigError, Trainer
from training.checkpoint.compare import first_difference

Record = Callable[[str, object], None]
#: shuffle, dropout, augmentation, accumulation
COMBINATIONS = list(
    itertools.product((True, False), (0.5, 0.0), (True, False), (1, 2, 4))
)
#: Batches of a window -> boundaries: 8 kinds of run, the steps of two epochs.
POINTS = {1: 8 * 12, 2: 8 * 6, 4: 8 * 4}


def sweep(folder: Path, workers: int, every: int, **options: Any) -> int:
    """Resume at every ``every``-th boundary; return how many were equal."""
    shuffle, noise = options.pop("shuffle"), options.pop("noise")

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


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_r1_every_boundary_of_every_kind_of_run_resumes_to_the_same_state(
    tmp_path: Path, accumulation: int, record_property: Record
) -> None:
    points = 0
    for shuffle, dropout, noise, each in COMBINATIONS:
        if each != accumulation:
            continue
        folder = tmp_path / f"{shuffle}-{dropout}-{noise}"
        folder.mkdir()
        points += sweep(
            folder,
            workers=0,
            every=1,
            shuffle=shuffle,
            noise=noise,
            dropout=dropout,
            gradient_accumulation_steps=accumulation,
        )
    record_property("boundaries", points)
    assert points == POINTS[accumulation]


def test_r1_a_run_saved_without_workers_resumes_equal_with_two(
    tmp_path: Path, record_property: Record
) -> None:
    points = sweep(
        tmp_path,
        workers=2,
        every=3,
        shuffle=True,
        noise=True,
        dropout=0.5,
        gradient_accumulation_steps=1,
    )
    record_property("boundaries", points)
    assert points == 4


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_r1_every_boundary_resumes_equal_with_two_workers(
    tmp_path: Path, accumulation: int, record_property: Record
) -> None:
    points = 0
    for shuffle, dropout, noise, each in COMBINATIONS:
        if each == accumulation:
            folder = tmp_path / f"{shuffle}-{dropout}-{noise}"
            folder.mkdir()
            points += sweep(
                folder,
                workers=2,
                every=1,
                shuffle=shuffle,
                noise=noise,
                dropout=dropout,
                gradient_accumulation_steps=accumulation,
            )
    record_property("boundaries", points)
    assert points == POINTS[accumulation]


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
            workers=0,
            every=1,
            shuffle=True,
            noise=True,
            dropout=0.5,
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
        "progress.epoch",
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


def test_r1_a_checkpoint_of_fewer_steps_than_updates_is_refused(
    tmp_path: Path, saved: tuple[Path, dict[str, Any]]
) -> None:
    state = torch.load(saved[0], weights_only=True)
    state["progress"]["step"] = state["progress"]["update"] - 1
    torch.save(state, tmp_path / "mutant.pt")
    with pytest.raises(CheckpointError, match=r"progress\.update is int 6, not within"):
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


def test_a_row_draws_other_numbers_in_each_epoch() -> None:
    class Sees(Callback):
        def __init__(self) -> None:
            self.rows: dict[int, list[Any]] = {}

        def on_batch_begin(self, inputs: Any) -> None:
            for number, x in zip(inputs[2].tolist(), inputs[0], strict=True):
                self.rows.setdefault(number, []).append(x)

    sees = Sees()
    build(sees).train()
    assert len(sees.rows) == 11
    assert not any(torch.equal(*both) for both in sees.rows.values())


def test_each_row_is_seen_once_an_epoch_and_in_another_order() -> None:
    trainer = build()
    trainer.train()
    first, second = (
        [i for epoch, *rows in trainer.plugins["ids"].seen if epoch == e for i in rows]
        for e in (0, 1)
    )
    assert sorted(first) == sorted(second) == list(range(11))
    assert first != second


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"workers": 1}, id="1 worker"),
        pytest.param({"workers": 2, "prefetch_factor": 1}, id="prefetch 1"),
        pytest.param({"workers": 2, "prefetch_factor": 4}, id="prefetch 4"),
        pytest.param({"workers": 2, "persistent_workers": True}, id="persistent"),
    ],
)
def test_r3_how_the_data_is_loaded_changes_nothing(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    straight = build(
        SavesEverywhere(tmp_path), loader=loader_of(**options), num_epochs=3
    )
    straight.train()
    plain = build(num_epochs=3)
    plain.train()
    assert_same_end(end_of(straight), end_of(plain), "straight")
    end = resumed(tmp_path / "0-4.pt", loader=loader_of(**options), num_epochs=3)
    assert_same_end(end, end_of(plain), "resumed")


def noisy(rows: list[Any]) -> Any:
    """Collate with noise, as an augmentation of whole batches would."""
    x, y = (torch.stack(part) for part in zip(*rows, strict=True))
    return x + torch.rand(4), y, torch.zeros(len(x))


@pytest.mark.parametrize("workers", [0, 2])
def test_r1_a_collate_function_that_draws_resumes_to_the_same_state(
    tmp_path: Path, workers: int
) -> None:
    def loader() -> Any:
        dataset = TensorDataset(*regression_batches(1, 11)[0])
        return DataLoader(dataset, 2, collate_fn=noisy, num_workers=workers)

    straight = build(SavesEverywhere(tmp_path), loader=loader())
    straight.train()
    end = resumed(tmp_path / "0-4.pt", loader=loader(), ambient=7)
    assert_same_end(end, end_of(straight), f"{workers} workers")


class Private(Sampler[int]):
    """Shuffles with a generator that nobody else sees."""

    def __init__(self) -> None:
        self.chance = random.Random(0)

    def __iter__(self) -> Any:
        return iter(self.chance.sample(range(11), 11))

    def __len__(self) -> int:
        return 11


@pytest.mark.parametrize("name", ["rng", "generator"])
@pytest.mark.parametrize("where", ["data set", "sampler", "neither"])
def test_r8_a_generator_that_no_checkpoint_holds_is_named_at_the_start(
    caplog: pytest.LogCaptureFixture, where: str, name: str
) -> None:
    dataset = Augmented()
    if where == "data set":
        setattr(dataset, name, np.random.default_rng(0))
    sampler = Private() if where == "sampler" else None
    build(loader=DataLoader(dataset, 2, sampler=sampler), num_epochs=1).train()
    said = "keeps a random generator of its own"
    assert (said in caplog.text) == (where != "neither")
    assert (f"({name})" in caplog.text) == (where == "data set")
    assert ("(chance)" in caplog.text) == (where == "sampler")


CHANGED: dict[str, dict[str, Any]] = {
    "seed was 3, is 4": {"seed": 4},
    "dataset_length was 11, is 9": {"rows": 9},
    "dataset was 'a', is 'b'": {"fingerprint": "b"},
    "sampler was 'RandomSampler', is 'SequentialSampler'": {"shuffle": False},
    "batch_size was 2, is 3": {"batch_size": 3},
    "drop_last was False, is True": {"drop_last": True},
    "precision was 'fp32', is 'bf16'": {"precision": "bf16"},
    "gradient_accumulation_steps was 1, is 2": {"gradient_accumulation_steps": 2},
    "max_grad_norm was None, is 1.0": {"max_grad_norm": 1.0},
    "optimizer was 'AdamW', is 'SGD'": {"optimizer": torch.optim.SGD},
    "optimizer.lr was 0.01, is 0.02": {"lr": 0.02},
    "optimizer.weight_decay was 0.01, is 0.5": {"weight_decay": 0.5},
    "frozen was [], is 'layers.0'": {"freeze": "layers.0"},
}


def changed(options: dict[str, Any]) -> Trainer:
    """Return a trainer like ``build()`` with one setting changed."""
    options = dict(options)
    names = ("batch_size", "drop_last", "shuffle")
    loading = {k: options.pop(k) for k in names if k in options}
    loader = loader_of(**loading)
    if "fingerprint" in options:
        loader.dataset.fingerprint = options.pop("fingerprint")
    rows = options.pop("rows", None)
    if rows is not None:
        loader.dataset.x = loader.dataset.x[:rows]
        loader.sampler.data_source.x = loader.dataset.x
    kind = options.pop("optimizer", torch.optim.AdamW)
    rates = {k: options.pop(k) for k in ("lr", "weight_decay") if k in options}
    trainer = build(loader=loader, **options)
    if rates or kind is not torch.optim.AdamW:
        trainer.optimizer = kind(trainer.model.parameters(), **{"lr": 0.01, **rates})
    return trainer


@pytest.mark.parametrize("told", CHANGED)
def test_r3_a_changed_setting_is_refused_with_both_values_and_the_way_to_accept_it(
    tmp_path: Path, told: str
) -> None:
    build(SavesEverywhere(tmp_path)).train()
    name = told.partition(" ")[0]
    trainer = changed(CHANGED[told])
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        trainer.load_checkpoint(tmp_path / "0-4.pt")
    assert told in str(caught.value)
    assert f"--allow-change {name}" in str(caught.value)
    assert str(caught.value).count(" was ") == 1, "one cause, one line"
    assert first_difference(dict(trainer.model.state_dict()), before) is None
    receipt = trainer.load_checkpoint(tmp_path / "0-4.pt", allow_changes=[name])
    assert receipt is not None
    assert told in str(receipt)
    trainer.train()
    assert trainer.epoch == 2


def test_r3_what_was_accepted_holds(tmp_path: Path) -> None:
    build(SavesEverywhere(tmp_path)).train()
    trainer = changed({"lr": 0.02, "weight_decay": 0.5})
    trainer.load_checkpoint(tmp_path / "0-4.pt", allow_changes=["optimizer"])
    trainer.train()
    group = trainer.optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.5)


def test_r3_a_larger_batch_goes_on_after_the_samples_that_were_seen(
    tmp_path: Path,
) -> None:
    build(SavesEverywhere(tmp_path)).train()
    trainer = changed({"batch_size": 4})
    trainer.load_checkpoint(tmp_path / "0-4.pt", allow_changes=["batch_size"])
    trainer.train()
    first = [i for e, *rows in trainer.plugins["ids"].seen if e == 0 for i in rows]
    assert sorted(first) == list(range(11))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"num_epochs": 3}, id="more epochs"),
        pytest.param({"max_steps": 100}, id="another limit"),
    ],
)
def test_r3_what_may_change_freely_does(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    build(SavesEverywhere(tmp_path)).train()
    trainer = build(**options)
    receipt = trainer.load_checkpoint(tmp_path / "0-4.pt")
    assert receipt is not None
    assert [each.name for each in receipt.changes] == list(options)


def test_a_setting_that_does_not_exist_cannot_be_accepted(tmp_path: Path) -> None:
    build(SavesEverywhere(tmp_path)).train()
    with pytest.raises(ConfigError, match="did you mean 'batch_size'"):
        build().load_checkpoint(tmp_path / "0-4.pt", allow_changes=["batchsize"])


class Alters(Callback):
    """A plugin without which training is another one."""

    name = "ema"
    alters_training = True


def test_c11_a_plugin_that_alters_training_is_missed(tmp_path: Path) -> None:
    build(Alters(), SavesEverywhere(tmp_path)).train()
    with pytest.raises(CheckpointError, match=r"plugins\.ema was 'active', is 'not"):
        build().load_checkpoint(tmp_path / "0-4.pt")
    receipt = build().load_checkpoint(
        tmp_path / "0-4.pt", allow_changes=["plugins.ema"]
    )
    assert receipt is not None
    assert receipt.removed == ("SavesEverywhere", "ema")


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
    assert straight.progress.skipped_windows >= len(BAD)
    assert straight.update == straight.step - straight.progress.skipped_windows
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


class Stream(IterableDataset[Any]):
    """Rows one after the other, without a length."""

    def __iter__(self) -> Any:
        dataset = loader_of(noise=False).dataset
        return (dataset[index] for index in range(10))


def test_r8_a_loader_that_cannot_resume_is_named_once_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def loader() -> Any:
        return torch.utils.data.DataLoader(Stream(), batch_size=2)

    straight = build(SavesEverywhere(tmp_path), loader=loader())
    straight.train()
    named = [r for r in caplog.records if "may not be exact" in r.message]
    assert len(named) == 1
    assert named[0].levelno == logging.WARNING
    end = resumed(tmp_path / "0-3.pt", loader=loader())
    assert_same_end(end, end_of(straight), "a stream without randomness")
    assert "reading and dropping the 3 batches" in caplog.text


class Stateful:
    """A loader that keeps its own position, and counts what it loads."""

    def __init__(self) -> None:
        self.batches = list(loader_of(noise=False, shuffle=False))
        self.position = self.loaded = 0

    def __iter__(self) -> Any:
        start, self.position = self.position, 0
        for index in range(start, len(self.batches)):
            self.position = index + 1
            self.loaded += 1
            yield self.batches[index]
        self.position = 0

    def __len__(self) -> int:
        return len(self.batches)

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


def test_r8_a_loader_with_a_state_restores_itself_and_loads_nothing_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    straight = build(SavesEverywhere(tmp_path), loader=Stateful())
    straight.train()
    loader = Stateful()
    end = resumed(tmp_path / "0-4.pt", loader=loader)
    assert_same_end(end, end_of(straight), "stateful")
    assert loader.loaded == 2 + 6
    assert "may not be exact" not in caplog.text


class Drawn(Sampler[int]):
    """A user's sampler that shuffles with the global generators."""

    def __iter__(self) -> Any:
        order = torch.randperm(11).tolist()
        random.shuffle(order)
        return iter(order)

    def __len__(self) -> int:
        return 11


def test_a_sampler_that_draws_from_the_global_generators_resumes_equal(
    tmp_path: Path,
) -> None:
    def loader() -> Any:
        dataset = loader_of().dataset
        return torch.utils.data.DataLoader(dataset, batch_size=2, sampler=Drawn())

    straight = build(SavesEverywhere(tmp_path), loader=loader())
    straight.train()
    for path in sorted(tmp_path.iterdir()):
        end = resumed(path, loader=loader(), ambient=7)
        assert_same_end(end, end_of(straight), path.name)
