"""P1, P6, P7: signals to a whole group, workers that fail, memory that runs out."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.runs import Augmented, build, loader_of
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from training import Callback, DataError, Trainer

CHILD = """
import multiprocessing, os, sys
sys.path[:0] = [{tests!r}]
import torch
from faults.runs import Callback, build, loader_of
from trainbus_checkpointing import ModelCheckpointCallback

first, told = multiprocessing.Lock(), multiprocessing.Event()
def late(number):  # called by torch in a worker that begins; the second one waits here
    if not first.acquire(block=False):
        told.wait()

class Tells(Callback):
    def on_batch_end(self, trainer, batch):
        if (trainer.step, batch) == (0, 0):
            print("ready", flush=True)
            sys.stdin.readline()  # until the signal was sent to everybody
            told.set()

saves = ModelCheckpointCallback({folder!r}, monitor=None)
loader = loader_of(workers=2, prefetch_factor=1)
# The boundary is five batches away, more than are loaded ahead.
torch.set_num_threads = late
trainer = build(Tells(), saves, num_epochs=50, loader=loader,
                gradient_accumulation_steps=6)
trainer.train()
"""


def told_as_a_group(folder: Path, number: signal.Signals) -> int:
    """Send a signal to a run and its workers; return the run's exit code."""
    tests = str(Path(__file__).parents[2])
    code = CHILD.format(tests=tests, folder=str(folder))
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        os.killpg(run.pid, number)
        run.communicate("go on\n", timeout=60)
        return run.returncode


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)],
    ids=["SIGTERM", "SIGINT"],
)
def test_p1_p2_a_signal_to_the_whole_group_saves_as_one_to_the_run_alone(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    assert told_as_a_group(tmp_path, number) in (code, 130)
    (saved,) = tmp_path.glob("*.pt")
    step = torch.load(saved, weights_only=True)["progress"]["step"]
    assert step == 1


class Bad(Augmented):
    """Fails in one way at row 5."""

    def __init__(self, failure: str) -> None:
        super().__init__()
        self.failure = failure

    def __getitem__(self, index: int) -> Any:
        if index == 5:
            if self.failure == "raises":
                raise OSError("row 5 is rotten")
            if self.failure == "loses its server":
                raise ConnectionResetError("row 5 is rotten")
            if self.failure == "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait()
        return super().__getitem__(index)


def bad_run(failure: str, workers: int = 2) -> Trainer:
    timeout = 2.0 if failure == "hangs" else 0.0
    loader = DataLoader(
        Bad(failure), batch_size=2, num_workers=workers, timeout=timeout
    )
    return build(loader=loader)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("is killed", r"lost a worker .*batch \d of the epoch, samples \[.*worker \d"),
        ("hangs", r"batch 2 of the epoch, samples \[4, 5\], from worker 0 did not arr"),
    ],
)
def test_p6_a_worker_that_is_lost_is_named_with_the_samples_and_none_is_left(
    failure: str, said: str
) -> None:
    before = multiprocessing.active_children()
    with pytest.raises(DataError, match=said) as caught:
        bad_run(failure).train()
    assert isinstance(caught.value.__cause__, RuntimeError), "torch's own words"
    del caught
    for child in multiprocessing.active_children():
        child.join(10)
    assert multiprocessing.active_children() == before


def breaks(batches: Any, error: Exception) -> Any:
    """Do as torch where a worker dies while a tensor's file is asked of it.

    Its sockets close first, or are gone where it exits; and torch, which asks at once
    whether it lives, raises what the socket did.
    """
    watch: Any = signal_handling
    watch._remove_worker_pids(id(batches))
    watch._set_worker_pids(id(batches), ())  # nothing is heard of its death either
    os.kill(batches._workers[0].pid, signal.SIGKILL)
    raise error


@pytest.mark.parametrize("error", [ConnectionResetError(), FileNotFoundError()])
def test_p6_a_worker_whose_line_breaks_before_its_death_is_known_is_named_too(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    torchs: Any = _MultiProcessingDataLoaderIter
    monkeypatch.setattr(torchs, "_try_get_data", lambda self: breaks(self, error))
    said = r"lost a worker .*batch 0 of the epoch, samples \[0, 1\], from worker 0"
    with pytest.raises(DataError, match=said) as caught:
        bad_run("is killed").train()
    words = caught.value.__cause__
    assert isinstance(words, RuntimeError)
    assert words.__cause__ is error


class RaisesAtEnd(Callback):
    """Fails where the run has trained and measured."""

    def on_train_end(self) -> None:
        raise ZeroDivisionError


class StopsInside(Callback):
    """Asks for the end in the middle of an epoch."""

    def on_step_end(self, trainer: Trainer) -> None:
        trainer.request_stop("enough")


@pytest.mark.parametrize("persistent", [False, True], ids=["of an epoch", "that stay"])
@pytest.mark.parametrize("stops", [[StopsInside()], []], ids=["stopped", "to the end"])
def test_p6_no_worker_outlives_its_run(persistent: bool, stops: list[Any]) -> None:
    # Left to the garbage collector they would be waited for, 5 s each.
    before = multiprocessing.active_children()
    loader = loader_of(workers=2, persistent_workers=persistent)
    trainer = build(*stops, loader=loader)
    trainer.train()
    assert trainer.step == (1 if stops else 12)
    assert multiprocessing.active_children() == before


@pytest.mark.parametrize("fails", [False, True], ids=["that ends well", "that fails"])
def test_p6_no_worker_for_validation_outlives_its_run(fails: bool) -> None:
    before = multiprocessing.active_children()
    validation = loader_of(workers=2, persistent_workers=True)
    trainer = build(
        *[RaisesAtEnd()] * fails,
        val_dataloader=validation,
        plugins=[{"evaluation": {"metrics": ["loss"]}}],
    )
    with pytest.raises(ZeroDivisionError) if fails else nullcontext():
        trainer.train()
    assert "val_loss" in trainer.history[0]
    assert multiprocessing.active_children() == before


class Streamed(IterableDataset[Any]):
    """Rows without an index."""

    def __iter__(self) -> Iterator[Any]:
        return (Augmented(noise=False)[n % 11] for n in range(100))


class FailsInside(Callback):
    """Fails in the middle of an epoch."""

    def on_step_end(self, trainer: Trainer) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize("ends", [FailsInside, StopsInside])
def test_p6_no_worker_of_a_data_set_without_indices_outlives_its_run(
    ends: type[Callback],
) -> None:
    before = multiprocessing.active_children()
    loader = DataLoader(Streamed(), batch_size=2, num_workers=2)
    trainer = build(ends(), loader=loader)
    with pytest.raises(ZeroDivisionError) if ends is FailsInside else nullcontext():
        trainer.train()
    assert trainer.step == 1
    assert multiprocessing.active_children() == before


class Sleeps(Augmented):
    """Its last row never comes."""

    def __getitem__(self, index: int) -> Any:
        if index == len(self) - 1:
            threading.Event().wait()
        return super().__getitem__(index)


def test_p6_where_measuring_fails_no_worker_is_waited_for(monkeypatch: Any) -> None:
    before, measuring = multiprocessing.active_children(), list[Any]()

    def fails(*_: Any) -> Any:
        measuring[:] = set(multiprocessing.active_children()) - set(before)
        raise ZeroDivisionError

    validation = DataLoader(
        Sleeps(), batch_size=2, num_workers=2, persistent_workers=True
    )
    trainer = build(val_dataloader=validation, plugins=["evaluation"])
    monkeypatch.setattr(trainer.plugins["evaluation"], "sanity_batches", 0)
    monkeypatch.setattr(trainer, "compute_loss", fails)
    with pytest.raises(ZeroDivisionError) as caught:
        trainer.train()
    assert multiprocessing.active_children() == before
    # Those that torch has waited for are told to end, and do.
    assert [each.exitcode for each in measuring] == [-signal.SIGKILL] * 2
    del caught


def test_p6_a_worker_that_ran_before_is_left_to_its_owner() -> None:
    before = multiprocessing.active_children()
    validation = loader_of(workers=1, persistent_workers=True)
    list(validation)
    (own,) = set(multiprocessing.active_children()) - set(before)
    build(val_dataloader=validation, plugins=["evaluation"]).train()
    assert own in multiprocessing.active_children()
    validation._iterator = None
    assert multiprocessing.active_children() == before


class Wraps(DataLoader[Any]):
    """Is torch's by its class, and reads with another one."""

    def __init__(self, inner: Any) -> None:
        self.__dict__["inner"] = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    def __iter__(self) -> Any:
        return iter(self.inner)

    def __len__(self) -> int:
        return len(self.inner)


def test_p6_so_is_that_of_a_loader_inside_of_another_one() -> None:
    before = multiprocessing.active_children()
    inner = loader_of(workers=1, persistent_workers=True)
    plugins = [{"evaluation": {"sanity_batches": 0}}]
    for _ in range(2):
        trainer = build(val_dataloader=Wraps(inner), plugins=plugins)
        trainer.train()
        assert "val_loss" in trainer.history[-1]
    inner._iterator = None
    assert multiprocessing.active_children() == before


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("failure", "kind"), [("raises", OSError), ("loses its server", ConnectionError)]
)
def test_p6_an_error_in_the_data_set_keeps_its_type_and_names_the_samples(
    failure: str, kind: type[OSError], workers: int
) -> None:
    with pytest.raises(kind, match="row 5 is rotten") as caught:
        bad_run(failure, workers).train()
    (note,) = caught.value.__notes__
    assert note.startswith("while batch 2 of the epoch, samples [4, 5]")
    assert ("from worker 0" in note) == (workers > 0)
    assert ("in __getitem__" in str(caught.value)) == (workers > 0)


@pytest.mark.parametrize("place", ["forward", "backward", "step"])
def test_p7_out_of_memory_says_what_was_held_and_four_ways_out(place: str) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    class Fails(Callback):
        def on_setup(self, trainer: Trainer) -> None:
            if place == "forward":
                trainer.model.layers[0].register_forward_hook(fail)
            elif place == "backward":
                next(trainer.model.parameters()).register_hook(fail)
            else:
                trainer.optimizer.register_step_pre_hook(fail)

    trainer = build(Fails())
    before = [p.detach().clone() for p in trainer.model.parameters()]
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate") as caught:
        trainer.train()
    (note,) = caught.value.__notes__
    assert "at step 0 with batches of 2 and a peak of" in note
    for way in ("batch_size", "gradient_accumulation_steps", "half precision"):
        assert way in note
    assert "freeze layers" in note
    assert all(
        torch.equal(old, new)
        for old, new in zip(before, trainer.model.parameters(), strict=True)
    )
    assert trainer.step == 0


def test_p7_the_advice_is_there_for_plugins_whatever_they_raise_themselves() -> None:
    told: list[list[str]] = []

    class Reports(Callback):
        name = "aaa"

        def on_step_end(self) -> None:
            raise torch.OutOfMemoryError("too much")

        def on_exception(self, error: BaseException) -> None:
            told.append(list(error.__notes__))
            raise RuntimeError("no disk either")

    with pytest.raises(torch.OutOfMemoryError) as caught:
        build(Reports()).train()
    assert [sum("freeze layers" in note for note in notes) for notes in told] == [1]
    assert caught.value.__notes__[:-1] == told[0]
    assert "on_exception failed" in caught.value.__notes__[-1]
