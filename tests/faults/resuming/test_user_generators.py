"""R1: generators that the user gave the loader go on where the checkpoint was made."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.runs import (
    Augmented,
    SavesEverywhere,
    assert_same_end,
    build,
    end_of,
    loader_of,
    resumed,
)
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from training import Callback, Trainer

ROWS = Augmented()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def shuffled(**options: Any) -> Any:
    return DataLoader(ROWS, 2, shuffle=True, generator=seeded(), **options)


def drawn_twice() -> Any:
    """Return a loader of which the sampler and the loader draw from one generator."""
    both = seeded()
    sampler = RandomSampler(ROWS, generator=both)
    return DataLoader(ROWS, 2, sampler=sampler, generator=both)


def weighted() -> Any:
    weights = [1.0] * 5 + [3.0] * 6
    sampler = WeightedRandomSampler(weights, 11, generator=seeded())
    return DataLoader(ROWS, 2, sampler=sampler)


def told() -> Any:
    """Return a loader whose sampler shuffles by the epoch that it is told."""
    return DataLoader(ROWS, 2, sampler=DistributedSampler(ROWS, 1, 0))


LOADERS: dict[str, Callable[[], Any]] = {
    "shuffle": shuffled,
    "shuffle, workers that fetch ahead": lambda: shuffled(
        num_workers=2, prefetch_factor=3
    ),
    "shuffle, persistent workers": lambda: shuffled(
        num_workers=1, persistent_workers=True
    ),
    "random sampler": lambda: DataLoader(
        ROWS, 2, sampler=RandomSampler(ROWS, generator=seeded())
    ),
    "with replacement": lambda: DataLoader(
        ROWS, 2, sampler=RandomSampler(ROWS, True, 50, seeded())
    ),
    "one generator for both": drawn_twice,
    "weighted sampler": weighted,
    "subset sampler": lambda: DataLoader(
        ROWS, 2, sampler=SubsetRandomSampler(range(8), generator=seeded())
    ),
    "workers' seeds alone": lambda: DataLoader(
        ROWS, 2, generator=seeded(), num_workers=1
    ),
}
BOUNDARIES = {"with replacement": 75, "subset sampler": 12}


@pytest.mark.parametrize("kind", LOADERS)
def test_r1_every_boundary_resumes_with_the_users_own_generator(
    tmp_path: Path, kind: str
) -> None:
    loader = LOADERS[kind]
    straight = build(SavesEverywhere(tmp_path), loader=loader(), num_epochs=3)
    straight.train()
    files = sorted(tmp_path.iterdir())
    assert len(files) == BOUNDARIES.get(kind, 18)
    per_epoch = len(files) // 3
    first, second = (
        [ids for epoch, *ids in straight.plugins["ids"].seen if epoch == each]
        for each in (0, 1)
    )
    assert (first != second) == (kind != "workers' seeds alone")
    is_costly = "worker" in kind or per_epoch > 6
    for path in files:
        step = int(path.stem.partition("-")[2])
        if is_costly and step % per_epoch not in (0, per_epoch - 1):
            continue
        end = resumed(path, loader=loader(), ambient=step, num_epochs=3)
        assert_same_end(end, end_of(straight), f"{kind}, {path.name}")


def test_r3_the_order_is_that_of_the_generator_however_long_workers_live() -> None:
    ends = []
    for options in (
        {},
        {"num_workers": 1},
        {"num_workers": 1, "persistent_workers": 1},
    ):
        trainer = build(loader=shuffled(**options), num_epochs=3)
        trainer.train()
        ends.append(end_of(trainer))
    assert_same_end(ends[1], ends[0], "workers")
    assert_same_end(ends[2], ends[0], "persistent workers")


def measured(workers: int, persistent: bool) -> dict[str, Any]:
    """Return options of a run whose validation draws the seed of its workers."""
    validation = loader_of(noise=False, workers=workers, persistent_workers=persistent)
    plugins = [{"evaluation": {"metrics": ["loss"]}}]
    return {"val_dataloader": validation, "plugins": plugins, "num_epochs": 3}


@pytest.mark.parametrize("persistent", [False, True], ids=["anew", "that persist"])
def test_r3_workers_for_validation_draw_alike_however_long_they_live(
    tmp_path: Path, persistent: bool
) -> None:
    straight = build(SavesEverywhere(tmp_path), **measured(1, persistent))
    straight.train()
    path = sorted(tmp_path.iterdir())[-4]
    end = resumed(path, ambient=5, **measured(1, persistent))
    assert_same_end(end, end_of(straight), path.name)


class SavesIn(Callback):
    """Saves once, in one hook, and is called after everybody else."""

    after = ("ids",)

    def __init__(self, hook: str, epoch: int, path: Path) -> None:
        def save(trainer: Trainer) -> None:
            if trainer.epoch == epoch:
                trainer.save_checkpoint(path)

        setattr(self, hook, save)


@pytest.mark.parametrize(
    ("hook", "epoch"),
    [
        pytest.param("on_train_begin", 0, id="before the first epoch"),
        pytest.param("on_epoch_begin", 1, id="when an epoch begins"),
        pytest.param("on_step_end", 0, id="after the last step, before the end"),
        pytest.param("on_epoch_end", 1, id="when an epoch ends"),
        pytest.param("on_train_end", 3, id="when all is done"),
    ],
)
def test_r1_whatever_hook_saves_saves_the_users_generator_as_it_is_needed(
    tmp_path: Path, hook: str, epoch: int
) -> None:
    path = tmp_path / "a.pt"
    build(SavesIn(hook, epoch, path), loader=shuffled(), num_epochs=3).train()
    straight = build(loader=shuffled(), num_epochs=4)
    straight.train()
    end = resumed(path, loader=shuffled(), num_epochs=4)
    assert_same_end(end, end_of(straight), hook)


def test_r1_what_is_asked_for_as_an_epoch_begins_is_saved_with_its_order_drawn(
    tmp_path: Path,
) -> None:
    class Asks(SavesEverywhere):
        def on_step_end(self) -> None:  # type: ignore[override]
            pass

        def on_epoch_begin(self, trainer: Trainer) -> None:
            if trainer.epoch == 1:
                trainer.request_checkpoint("before the first batch")

        def on_checkpoint(self, trainer: Trainer, reason: str) -> None:  # type: ignore[override]
            if reason == "before the first batch":
                trainer.save_checkpoint(self.folder / "a.pt")

    straight = build(Asks(tmp_path), loader=shuffled())
    straight.train()
    end = resumed(tmp_path / "a.pt", loader=shuffled())
    assert_same_end(end, end_of(straight), "first batch")


def test_r1_a_run_saved_after_its_end_goes_on_as_a_longer_one(tmp_path: Path) -> None:
    short = build(loader=shuffled(), num_epochs=2)
    short.train()
    short.save_checkpoint(tmp_path / "a.pt")
    straight = build(loader=shuffled(), num_epochs=4)
    straight.train()
    end = resumed(tmp_path / "a.pt", loader=shuffled(), num_epochs=4)
    assert_same_end(end, end_of(straight), "two more epochs")


@pytest.mark.parametrize("name", ["0-3.pt", "1-6.pt", "2-12.pt"])
def test_r1_what_was_loaded_is_saved_again_before_it_goes_on(
    tmp_path: Path, name: str
) -> None:
    straight = build(SavesEverywhere(tmp_path), loader=shuffled())
    straight.train()
    loaded = build(loader=shuffled())
    loaded.train()  # its generator is anywhere now
    loaded.load_checkpoint(tmp_path / name)
    loaded.save_checkpoint(tmp_path / "again.pt")
    again = SavesIn("on_train_begin", int(name[0]), tmp_path / "later.pt")
    going = build(again, loader=shuffled())
    going.load_checkpoint(tmp_path / "again.pt")
    going.train()
    assert_same_end(end_of(going), end_of(straight), "again")
    end = resumed(tmp_path / "later.pt", loader=shuffled())
    assert_same_end(end, end_of(straight), "later")


def test_r1_a_signal_in_an_epochs_evaluation_saves_the_order_of_that_epoch(
    tmp_path: Path,
) -> None:
    class Leaves(SavesEverywhere):
        def __init__(self, folder: Path, at: int) -> None:
            super().__init__(folder)
            self.at = at

        def on_step_end(self) -> None:  # type: ignore[override]
            pass

        def evaluate(self, trainer: Trainer) -> dict[str, float]:
            if trainer.epoch == self.at:
                os.kill(os.getpid(), signal.SIGTERM)
                trainer.abandon_if_leaving()
            return {"score": 1.0}

    straight = build(Leaves(tmp_path / "none", 9), loader=shuffled())
    (tmp_path / "none").mkdir()
    straight.train()
    with pytest.raises(SystemExit):
        build(Leaves(tmp_path, 1), loader=shuffled()).train()
    trainer = build(Leaves(tmp_path / "none", 9), loader=shuffled())
    trainer.load_checkpoint(tmp_path / "0-6.pt")
    trainer.train()
    assert_same_end(end_of(trainer), end_of(straight), "evaluated first")
    before = trainer.plugins["ids"].seen
    assert before == straight.plugins["ids"].seen


def sharing(kind: str) -> dict[str, Any]:
    """Return options of a run whose validation draws from the loader's generator."""
    both = seeded()
    options: dict[str, Any] = {"num_workers": 1} if "workers" in kind else {}
    if "kept" in kind:
        options["persistent_workers"] = True
    loader = DataLoader(ROWS, 2, shuffle=True, generator=both, **options)
    if "ours" in kind:
        loader = DataLoader(ROWS, 2, shuffle=True)
    other = DataLoader(ROWS, 4, generator=both)
    validation = loader if "loader" in kind else other
    evaluation = {"metrics": ["loss"], "every_n_steps": 2, "sanity_batches": 0}
    return {
        "loader": loader,
        "val_dataloader": validation,
        "plugins": [{"evaluation": evaluation}],
        "num_epochs": 2,
    }


@pytest.mark.parametrize(
    "kind",
    [
        "one generator",
        "one generator, workers",
        "one generator, workers that are kept",
        "one loader",
        "one loader, workers",
        "one loader, a generator of ours",
    ],
)
def test_r1_an_evaluation_inside_the_epoch_draws_nothing_from_the_loaders_generator(
    tmp_path: Path, kind: str
) -> None:
    straight = build(SavesEverywhere(tmp_path), **sharing(kind))
    straight.train()
    files = sorted(tmp_path.iterdir())
    for path in files[1::3] if "workers" in kind else files:
        end = resumed(path, ambient=5, **sharing(kind))
        assert_same_end(end, end_of(straight), f"{kind}, {path.name}")


class Passes:
    """Reads another loader inside of a generator, as a filter or a mixup does."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Any:
        yield from self.inner


class Wraps(Callback):
    """Gives the run batches that pass through a loader of its own."""

    def wrap_dataloader(self, dataloader: Any) -> Any:
        return Passes(dataloader)


@pytest.mark.parametrize("make", [loader_of, shuffled, drawn_twice, told])
def test_r1_what_a_plugin_wraps_resumes_in_the_order_of_the_loader_in_it(
    tmp_path: Path, make: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    plain = build(loader=make(), num_epochs=3)
    plain.train()
    straight = build(SavesEverywhere(tmp_path), Wraps(), loader=make(), num_epochs=3)
    straight.train()
    assert "as wrap_dataloader returned it, is a Passes" in caplog.text
    assert straight.plugins["ids"].seen == plain.plugins["ids"].seen
    for path in sorted(tmp_path.iterdir()):
        run = build(Wraps(), loader=make(), num_epochs=3, ambient=5)
        run.load_checkpoint(path)
        run.train()
        assert_same_end(end_of(run), end_of(straight), path.name)


def test_r1_a_loader_of_the_users_that_draws_when_it_is_read_resumes(
    tmp_path: Path,
) -> None:
    straight = build(SavesEverywhere(tmp_path), loader=Passes(loader_of()))
    straight.train()
    first, second = (
        [ids for epoch, *ids in straight.plugins["ids"].seen if epoch == each]
        for each in (0, 1)
    )
    assert first != second
    for path in sorted(tmp_path.iterdir()):
        end = resumed(path, loader=Passes(loader_of()), ambient=5)
        assert_same_end(end, end_of(straight), path.name)
