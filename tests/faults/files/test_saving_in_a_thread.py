"""C12: a save in a thread holds what was true, and fails as loudly as another."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.endless_run import training
from faults.sweep import build, violations

from training import Callback, CheckpointError, Trainer


class Slow:
    """Lets a background write begin only when the test says so."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, fail: int | None = None
    ) -> None:
        from trainbus_checkpointing import saver

        self.gate = threading.Event()
        self.written: list[tuple[int, torch.Tensor]] = []  # step, weight
        real = saver.write_checkpoint

        def write(path: Path, state: Any) -> Any:
            self.gate.wait(20)
            weight = state["model"]["weight"].clone()
            self.written.append((state["progress"]["step"], weight))
            if fail is not None:
                raise CheckpointError(f"{path}: {os.strerror(fail)}")
            return real(path, state)

        monkeypatch.setattr(saver, "write_checkpoint", write)


class AsksAt(Callback):
    """Asks for a checkpoint at some steps, and does something at another."""

    def __init__(
        self, steps: set[int], at: int, act: Callable[[Trainer], object]
    ) -> None:
        self.steps, self.at, self.act = steps, at, act

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step in self.steps:
            trainer.request_checkpoint("test")
        if trainer.step == self.at:
            self.act(trainer)


def test_c12_the_snapshot_is_what_was_true_at_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, states = Slow(monkeypatch), []

    class Keeps(Callback):
        before = ("checkpointing",)

        def on_checkpoint(self, trainer: Trainer) -> None:
            if trainer.step == 1:
                states.append(trainer.model.weight.detach().clone())

    trainer = build(tmp_path, lambda step: None, async_save=True, save_top_k=-1)
    trainer.bus.register_all(
        [(None, Keeps()), (None, AsksAt({1}, 2, lambda trainer: slow.gate.set()))]
    )
    trainer.train()
    step, weight = slow.written[0]
    assert step == 1
    assert torch.equal(weight, states[0])
    assert not torch.equal(trainer.model.weight, states[0])


@pytest.mark.parametrize("step", [1, 7], ids=["at the next step", "at the end"])
def test_c12_an_error_of_a_background_save_surfaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    slow = Slow(monkeypatch, fail=errno.ENOSPC)
    slow.gate.set()
    trainer = build(tmp_path, lambda step: None, async_save=True)
    store = trainer.plugins["checkpointing"]

    class Waits(AsksAt):
        def on_batch_end(self) -> None:
            """Let what is under way fail before the step that looks for it."""
            ended = store._saver.store._background._ended
            if ended is not None:
                assert ended.wait(20)

    trainer.bus.register(Waits({step}, 0, lambda trainer: None))
    with pytest.raises(CheckpointError, match="No space left"):
        trainer.train()
    assert trainer.step <= step + 1
    assert len(slow.written) == 2, "it was tried twice"


def test_c12_a_second_request_waits_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    trainer = build(tmp_path, lambda step: None, async_save=True, save_top_k=-1)
    store = trainer.plugins["checkpointing"]
    seen: list[int] = []

    def look(trainer: Trainer) -> None:
        seen.append(len(store._saver.store.entries))
        slow.gate.set()

    trainer.bus.register(AsksAt({1, 2, 3}, 2, look))
    trainer.train()
    assert seen == [0], "the first was in flight"
    # Step 2 ends an epoch: what was asked for there waits for its evaluation.
    assert [step for step, _ in slow.written] == [1, 2, 3, 4, 6]
    assert violations(tmp_path, 8) == []


def test_c12_a_second_signal_does_not_wait_for_a_background_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)

    def interrupt(trainer: Trainer) -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    trainer = build(tmp_path, lambda step: None, async_save=True)
    trainer.bus.register(AsksAt({1}, 2, interrupt))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert slow.written == [], "the write has not even begun"
    background = trainer.plugins["checkpointing"]._saver.store._background
    slow.gate.set()
    background.finish(wait=True)


def test_c12_an_error_waits_for_a_background_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)

    def fail(trainer: Trainer) -> None:
        slow.gate.set()
        raise OSError("elsewhere")

    trainer = build(tmp_path, lambda step: None, async_save=True)
    trainer.bus.register(AsksAt({1}, 2, fail))
    with pytest.raises(OSError, match="elsewhere"):
        trainer.train()
    assert [step for step, _ in slow.written] == [1]


def test_c12_killed_while_a_background_save_runs_the_previous_one_is_valid(
    tmp_path: Path,
) -> None:
    more = (
        "from trainbus_checkpointing import ModelCheckpointCallback\n"
        "trainer.bus.unregister('checkpointing')\n"
        "trainer.bus.register(ModelCheckpointCallback(sys.argv[1], async_save=True))"
    )
    for number in range(3):
        folder = tmp_path / str(number)
        process = training(folder, more)
        last = [process.stdout.readline() for _ in range(3 + number)][-1]
        process.kill()
        process.communicate()
        assert violations(folder, int(last)) == []


def test_an_asynchronous_run_ends_like_a_synchronous_one(tmp_path: Path) -> None:
    ends = []
    for is_async in (False, True):
        folder = tmp_path / str(is_async)
        trainer = build(folder, lambda step: None, async_save=is_async)
        trainer.train()
        ends.append(
            (trainer.model.weight.tolist(), sorted(p.name for p in folder.iterdir()))
        )
    assert ends[0] == ends[1]
