"""Run one small training again and again, each time with another fault in its saves.

``python sweep.py KIND FOLDER`` prints a JSON object: ``points`` tried and what
was ``violated``. It is a process of its own because it forks, once a point.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from faults.operations import Operations

from trainbus_checkpointing import ModelCheckpointCallback
from training import Callback, TrainbusError, Trainer
from training.checkpoint_io import read_checkpoint

#: One an epoch: new best, new best, worse, new best; three files are deleted.
LOSSES = (4.0, 3.0, 3.5, 2.0)
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EMFILE)
#: Violations after which a sweep ends: a mutant is found out.
ENOUGH = 5
LAST_STEP = 2 * len(LOSSES)
#: Crash points between two after which the run is also resumed to its end.
RESUME_EVERY = 5
KILLS = 100


class Evaluates(Callback):
    """Delivers the losses."""

    def metric_names(self) -> list[str]:
        return ["val_loss"]

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        return {"val_loss": LOSSES[trainer.epoch - 1]}


class Acknowledges(Callback):
    """Tells the parent of every step that the plugin has saved and listed."""

    after = ("checkpointing",)

    def __init__(self, tell: Callable[[int], object]) -> None:
        self.tell = tell

    def on_checkpoint(self, trainer: Trainer) -> None:
        last = trainer.plugins["checkpointing"]._saver.store.last
        if last is not None:
            self.tell(last.step)


def build(folder: Path, tell: Callable[[int], object], **options: Any) -> Trainer:
    """Return a trainer of four epochs with two steps each."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    return Trainer(
        model,
        [(torch.ones(2, 3), torch.ones(2, 1))] * 2,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        callbacks=[
            Evaluates(),
            ModelCheckpointCallback(folder, **options),
            Acknowledges(tell),
        ],
        num_epochs=len(LOSSES),
        device="cpu",
        seed=0,
        loss_fn=torch.nn.functional.mse_loss,
    )


def violations(folder: Path, acknowledged: int) -> list[str]:
    """Return what is wrong with a folder after a fault.

    Args:
        folder: of the checkpoints.
        acknowledged: step of the last save that had returned.
    """
    wrong = []
    for path in sorted(folder.glob("*.pt")) if folder.is_dir() else ():
        try:
            read_checkpoint(path)
        except TrainbusError as error:
            wrong.append(f"visible and invalid: {error}")
    newest = newest_valid(folder)
    if newest is None and acknowledged:
        wrong.append(f"step {acknowledged} was saved, and nothing can be loaded")
    elif newest is not None and newest["progress"]["step"] < acknowledged:
        step = newest["progress"]["step"]
        wrong.append(f"step {acknowledged} was saved, the newest loads step {step}")
    return wrong


def newest_valid(folder: Path) -> dict[str, Any] | None:
    """Return the state that a resume would choose."""
    plugin = ModelCheckpointCallback(folder)
    for path, problem in plugin.resume_candidates(None):  # type: ignore[arg-type]
        if problem is None:
            try:
                return read_checkpoint(path)
            except TrainbusError:
                continue
    return None


def in_child(work: Callable[[int], object]) -> tuple[int, list[str]]:
    """Fork; run ``work(descriptor)`` there; return (exit status, lines written)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            work(writer)
        except BaseException:
            os.write(writer, f"! {traceback.format_exc()!r}\n".encode())
            os._exit(9)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        lines = pipe.read().splitlines()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), lines


def tell_to(descriptor: int) -> Callable[[int], object]:
    """Return a function that writes a step as a line."""
    return lambda step: os.write(descriptor, f"{step}\n".encode())


def crash_sweep(folder: Path, every: int = 1, **options: Any) -> Iterator[list[str]]:
    """C2: vanish at the N-th operation, N = 1, 1 + every, ... until none is left."""
    expected: list[str] = []
    number = 1 - every
    while True:
        number += every
        here = folder / str(number)
        here.mkdir(parents=True)

        def vanish(count: int, operation: str, path: str, detail: Any) -> None:
            if count == number:  # noqa: B023 - called in this round only
                os._exit(77)

        def work(writer: int) -> None:
            with Operations(here, vanish):  # noqa: B023
                build(here, tell_to(writer), **options).train()  # noqa: B023

        status, lines = in_child(work)
        if status == 0:
            shutil.rmtree(here)
            return
        wrong = [] if status == 77 else [f"the child ended with {status}: {lines}"]
        wrong += violations(here, int(lines[-1]) if lines and status == 77 else 0)
        if not wrong and number % RESUME_EVERY == 0:
            wrong += _resume_works(here, expected, **options)
        yield [f"operation {number}: {each}" for each in wrong]
        shutil.rmtree(here)


def _finish(folder: Path, writer: int, **options: Any) -> None:
    """Train to the end in ``folder``, from its newest checkpoint; tell the weights."""
    trainer = build(folder, lambda step: None, **options)
    newest = next(
        (
            path
            for path, problem in trainer.plugins["checkpointing"].resume_candidates(
                trainer
            )
            if problem is None
        ),
        None,
    )
    if newest is not None:
        trainer.load_checkpoint(newest)
    trainer.train()
    litter = [path.name for path in folder.iterdir() if ".tmp-" in path.name]
    weights = trainer.model.weight.detach().numpy().tobytes().hex()
    os.write(writer, f"{weights} {litter} {trainer.epoch}\n".encode())


def _resume_works(folder: Path, expected: list[str], **options: Any) -> list[str]:
    """Return what is wrong with a run that goes on in ``folder`` after a crash."""
    if not expected:
        whole = folder.parent / "reference"
        whole.mkdir(exist_ok=True)
        expected += in_child(lambda w: _finish(whole, w, **options))[1]
    status, lines = in_child(lambda w: _finish(folder, w, **options))
    if status or lines != expected:
        return [f"the run that went on ended with {status}, {lines}"]
    return []


def kill_sweep(folder: Path, seed: int) -> Iterator[list[str]]:
    """C1: a run that saves without end is killed, each time at another moment."""
    chance = random.Random(seed)
    for number in range(KILLS):
        here = folder / str(number)
        here.mkdir(parents=True)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _save_without_end(here, tell_to(writer))
            finally:
                os._exit(9)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            told = [pipe.readline()]
            time.sleep(chance.random() * 0.1)
            os.kill(child, signal.SIGKILL)
            told += pipe.read().splitlines()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        steps = [int(line) for line in told if line.strip().isdigit()]
        wrong = violations(here, steps[-1] if steps else 0)
        if status != -signal.SIGKILL or not steps:
            wrong.append(f"the child ended with {status}, having told {told}")
        yield [f"kill {number}: {each}" for each in wrong]
        shutil.rmtree(here)


def _save_without_end(folder: Path, tell: Callable[[int], object]) -> None:
    global LOSSES
    trainer = build(folder, tell)
    trainer.num_epochs = 10_000
    LOSSES = tuple(1.0 / (1 + i % 7) for i in range(trainer.num_epochs))
    trainer.train()


def error_sweep(
    folder: Path, sticky: bool, every: int = 1, **options: Any
) -> Iterator[list[str]]:
    """C3: the N-th operation (``sticky``: and every later one) fails.

    Args:
        folder: where to work.
        sticky: whether the fault stays.
        every: operations between two that fail with the same error; 4: each operation
            fails once, with one of the four errors; 12: each third one.
        options: of the plugin.
    """
    for index, code in enumerate(ERRORS):
        number, is_reached = index * every // len(ERRORS) + 1 - every, True
        while is_reached:
            number += every
            here = folder / f"{code}-{number}"
            here.mkdir(parents=True)

            def fail(count: int, operation: str, path: str, detail: Any) -> None:
                is_hit = count >= number if sticky else count == number  # noqa: B023
                cleans_up = operation in ("unlink", "remove", "close")
                if is_hit and not (sticky and cleans_up):
                    raise OSError(code, os.strerror(code), path)  # noqa: B023

            def work(writer: int) -> None:
                told = tell_to(writer)
                with Operations(here, fail) as operations:  # noqa: B023
                    try:
                        build(here, told, **options).train()  # noqa: B023
                        outcome = ["done", ""]
                    except BaseException as error:
                        outcome = [type(error).__name__, str(error)]
                was_hit = operations.count >= number  # noqa: B023
                line = json.dumps([was_hit, os.getpid(), *outcome])
                os.write(writer, f"{line}\n".encode())

            lines = in_child(work)[1]
            is_reached = json.loads(lines[-1])[0]
            wrong = _judge(here, lines, os.strerror(code), sticky)
            shutil.rmtree(here)
            if is_reached:
                label = f"{errno.errorcode[code]} at operation {number}"
                yield [f"{label}: {each}" for each in wrong]


def _judge(here: Path, lines: list[str], cause: str, sticky: bool) -> list[str]:
    """Return what is wrong after an error, by what the child told."""
    is_reached, pid, kind, message = json.loads(lines[-1])
    acknowledged = int(lines[-2]) if len(lines) > 1 else 0
    wrong = violations(here, acknowledged)
    wrong += [
        f"left behind: {path.name}"
        for path in here.iterdir()
        if path.name.endswith(f".tmp-{pid}")
    ]
    if kind == "done":
        if sticky and is_reached and acknowledged < LAST_STEP:
            wrong.append("the last state was not saved, and nobody was told")
        return wrong
    if kind not in ("CheckpointError", "ConfigError"):
        wrong.append(f"raised {kind}: {message}")
    if str(here) not in message or cause not in message:
        wrong.append(f"names not the file or the cause: {message}")
    names_good = "last good" in message or "there is none yet" in message
    if kind == "CheckpointError" and not names_good:
        wrong.append(f"names not the last good one: {message}")
    return wrong


def main(kind: str, folder: str) -> None:
    """Run one sweep and print what it found."""
    import logging

    logging.disable(logging.WARNING)
    place = Path(folder)
    sweeps: dict[str, Callable[[], Iterator[list[str]]]] = {
        "kill": lambda: kill_sweep(place, seed=0),
        "kill elsewhere": lambda: kill_sweep(place, seed=1),
        "some crashes": lambda: crash_sweep(place, every=3),
        "crash": lambda: crash_sweep(place),
        "crash async": lambda: crash_sweep(place, async_save=True),
        "some errors": lambda: error_sweep(place, sticky=False, every=12),
        "some errors on and on": lambda: error_sweep(place, sticky=True, every=12),
        "error once": lambda: error_sweep(place, sticky=False, every=4),
        "error on and on": lambda: error_sweep(place, sticky=True, every=4),
        "error warned of": lambda: error_sweep(
            place, sticky=True, every=4, on_save_error="warn"
        ),
        "every error once": lambda: error_sweep(place, sticky=False),
        "every error on and on": lambda: error_sweep(place, sticky=True),
    }
    # Once here, so that no child has to import what training imports late.
    build(place / "warm up", lambda step: None).train()
    read_checkpoint(next((place / "warm up").glob("*.pt")))
    results: list[list[str]] = []
    for result in sweeps[kind]():
        results.append(result)
        if sum(map(bool, results)) == ENOUGH:
            break
    found = [each for result in results for each in result]
    bad = sum(bool(result) for result in results)
    summary = {"points": len(results), "bad": bad, "violated": found[:20]}
    sys.stdout.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
