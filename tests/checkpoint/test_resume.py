"""Stop at any boundary, load, go on: the same weights bit for bit."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from toy import Regression, make_trainer, regression_batches, shuffled_loader

from training import Callback, CheckpointError, Trainer
from training.checkpoint.state import capture


class StopAt(Callback):
    """Saves and stops when a step has ended."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            trainer.request_stop("pulled the plug")

    def on_checkpoint(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            trainer.save_checkpoint(self.path)


def assert_equal_state(left: Any, right: Any, where: str = "state") -> None:
    """Compare two captured states to the bit, naming the first that differs."""
    assert type(left) is type(right), where
    if isinstance(left, dict):
        assert list(left) == list(right), where
        for name in left:
            if name not in ("seconds", "requests"):
                assert_equal_state(left[name], right[name], f"{where}.{name}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), where
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_equal_state(a, b, f"{where}[{index}]")
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    else:
        assert left == right, where


def run(
    *callbacks: Any,
    loader: Any = None,
    load: Path | None = None,
    ambient: int = 5,
    accumulation: int = 1,
    **options: Any,
) -> Trainer:
    model = Regression(dropout=0.5)
    torch.manual_seed(ambient)
    trainer = Trainer(
        model=model,
        train_dataloader=loader if loader is not None else shuffled_loader(),
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01),
        callbacks=list(callbacks),
        gradient_accumulation_steps=accumulation,
        device="cpu",
        **{"num_epochs": 2, "seed": 3, **options},
    )
    if load is not None:
        trainer.load_checkpoint(load)
    trainer.train()
    return trainer


@pytest.mark.parametrize("accumulation", [1, 2, 4])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_stop_at_every_step_resumes_to_the_same_state(
    tmp_path: Path, accumulation: int, precision: str
) -> None:
    options = {"accumulation": accumulation, "precision": precision}
    straight = run(**options)
    assert straight.total_steps is not None
    for step in range(1, straight.total_steps):
        path = tmp_path / f"{step}.pt"
        stopped = run(StopAt(step, path), **options)
        assert stopped.step == step
        resumed = run(load=path, ambient=step, **options)
        assert_equal_state(capture(resumed), capture(straight), f"after step {step}")


def own_generator(seed: int) -> Any:
    return DataLoader(
        TensorDataset(*regression_batches(1, 10)[0]),
        batch_size=2,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize(
    ("whole", "stopped", "rest", "step"),
    [
        pytest.param(
            shuffled_loader,
            lambda: shuffled_loader(workers=2),
            lambda: shuffled_loader(workers=1),
            4,
            id="one with workers",
        ),
        pytest.param(
            lambda: own_generator(1),
            lambda: own_generator(1),
            lambda: own_generator(2),
            7,
            id="one with the user's own generator",
        ),
        pytest.param(*[lambda: regression_batches(5)] * 3, 3, id="a list of batches"),
    ],
)
def test_a_loader_resumes_to_the_same_state(
    tmp_path: Path, whole: Any, stopped: Any, rest: Any, step: int
) -> None:
    path = tmp_path / "a.pt"
    straight = run(loader=whole())
    run(StopAt(step, path), loader=stopped())
    resumed = run(load=path, loader=rest())
    assert_equal_state(capture(resumed), capture(straight))


@pytest.mark.parametrize("lost", ["optimizer", "rng", "progress"])
def test_a_checkpoint_that_lost_a_field_does_not_pass(
    tmp_path: Path, lost: str
) -> None:
    """The negative control: each part of the state matters to the comparison."""
    path = tmp_path / "a.pt"
    straight = run()
    run(StopAt(4, path))
    state = torch.load(path, weights_only=True)
    fresh = make_trainer(Regression(dropout=0.5), shuffled_loader(), seed=3)
    if lost == "optimizer":
        state["optimizer"]["state"] = {}
    elif lost == "rng":
        state["rng"] = capture(fresh)["rng"]
    else:
        state["progress"]["batch"] = 3
    torch.save(state, path)
    resumed = run(load=path)
    with pytest.raises(AssertionError):
        assert_equal_state(capture(resumed), capture(straight))


class Counts(Callback):
    """Keeps a count that must survive."""

    def __init__(self) -> None:
        self.batches = 0

    def on_train_begin(self, resumed: bool) -> None:
        if not resumed:
            self.batches = 0

    def on_batch_end(self) -> None:
        self.batches += 1

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches}

    def load_state_dict(self, state: Any) -> None:
        self.batches = state["batches"]


def test_a_plugins_progress_survives_and_is_fresh_in_a_new_run(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    run(Counts(), StopAt(4, path))
    counts = Counts()
    trainer = run(counts, load=path)
    assert counts.batches == 22
    trainer.train()
    assert counts.batches == 22


def test_c11_the_state_of_an_absent_plugin_is_carried_through(tmp_path: Path) -> None:
    first, second = tmp_path / "a.pt", tmp_path / "b.pt"
    run(Counts(), StopAt(4, first))
    run(StopAt(6, second), load=first)
    counts = Counts()
    run(counts, load=second, max_steps=7)
    assert counts.batches == 5


def test_the_history_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    run(StopAt(15, path))
    resumed = run(load=path)
    assert [row["epoch"] for row in resumed.history] == [1, 2]


def test_a_finished_run_that_is_loaded_trains_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.pt"
    trainer = run()
    trainer.save_checkpoint(path)
    resumed = run(load=path)
    assert resumed.step == trainer.step
    assert "already done" in caplog.text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param({"accumulation": 2}, "was 1, is 2", id="accumulation"),
        pytest.param(
            {"loader": shuffled_loader(30)}, "was 22, is 30", id="size of the data"
        ),
    ],
)
def test_inside_an_epoch_another_run_is_refused_with_both_values(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    path = tmp_path / "a.pt"
    run(StopAt(4, path))
    with pytest.raises(CheckpointError, match=told):
        run(load=path, **change)


def test_on_setup_sees_the_configured_rate_and_training_the_saved_one(
    tmp_path: Path,
) -> None:
    path, seen = tmp_path / "a.pt", []
    run(StopAt(4, path))

    class Looks(Callback):
        def on_setup(self, trainer: Trainer) -> None:
            seen.append(trainer.optimizer.param_groups[0]["lr"])

        def on_step_end(self, trainer: Trainer, logs: Any) -> None:
            seen.append(logs["lr"])

    def resume(*allowed: str) -> None:
        model = Regression(dropout=0.5)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.5)
        options: dict[str, Any] = {"max_steps": 5, "seed": 3, "device": "cpu"}
        trainer = Trainer(
            model, shuffled_loader(), None, optimizer, callbacks=[Looks()], **options
        )
        trainer.load_checkpoint(path, allow_changes=allowed)
        trainer.train()

    state = torch.load(path, weights_only=True)
    state["settings"]["optimizer.lr"] = None  # as if a schedule had moved it
    torch.save(state, path)
    resume()
    assert seen == [0.5, 0.01]


def test_another_model_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    run().save_checkpoint(path)
    other = torch.nn.Linear(4, 1)
    before = other.weight.clone()
    told = r"missing: bias, weight.*not in the.* made, with what a hook adds"
    with pytest.raises(CheckpointError, match=told):
        make_trainer(other).load_checkpoint(path)
    assert torch.equal(other.weight, before)


def test_weights_only_takes_the_weights_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    trained = run()
    trained.save_checkpoint(path)
    fresh = make_trainer(Regression(dropout=0.5))
    fresh.load_checkpoint(path, weights_only=True)
    assert fresh.step == 0
    assert_equal_state(dict(fresh.model.state_dict()), dict(trained.model.state_dict()))


class Kill(Callback):
    """Sends signals to this process when a step has ended."""

    def __init__(self, step: int, *numbers: signal.Signals) -> None:
        self.step, self.numbers = step, numbers

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            for number in self.numbers:
                os.kill(os.getpid(), number)


class SaveAll(Callback):
    """Saves whenever a checkpoint is announced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.saved: list[tuple[int, str]] = []

    def on_checkpoint(self, trainer: Trainer, reason: str) -> None:
        trainer.save_checkpoint(self.path)
        self.saved.append((trainer.step, reason))


@pytest.mark.parametrize(
    ("number", "error"),
    [
        pytest.param(signal.SIGTERM, SystemExit, id="SIGTERM exits 143"),
        pytest.param(signal.SIGINT, KeyboardInterrupt, id="SIGINT interrupts"),
    ],
)
def test_a_signal_saves_at_the_next_boundary_and_resumes_exactly(
    tmp_path: Path, number: signal.Signals, error: type[BaseException]
) -> None:
    path = tmp_path / "a.pt"
    before = signal.getsignal(number)
    save = SaveAll(path)
    with pytest.raises(error) as caught:
        run(save, Kill(4, number))
    assert save.saved[-1] == (4, "stop")
    if error is SystemExit:
        assert caught.value.code == 143  # type: ignore[union-attr]
    assert signal.getsignal(number) is before
    assert_equal_state(capture(run(load=path)), capture(run()))


def test_sigusr1_saves_and_goes_on(tmp_path: Path) -> None:
    save = SaveAll(tmp_path / "a.pt")
    trainer = run(save, Kill(4, signal.SIGUSR1))
    assert (4, "SIGUSR1 received") in save.saved
    assert trainer.epoch == 2
    assert [r.owner for r in trainer.requests] == ["signal"]


def test_a_second_signal_leaves_at_once(tmp_path: Path) -> None:
    save = SaveAll(tmp_path / "a.pt")
    with pytest.raises(KeyboardInterrupt):
        run(save, Kill(4, signal.SIGTERM, signal.SIGINT))
    assert save.saved == []


def test_a_handler_of_somebody_else_is_called_too(tmp_path: Path) -> None:
    heard = []
    former = signal.signal(signal.SIGUSR1, lambda *_: heard.append("theirs"))
    try:
        run(Kill(2, signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert heard == ["theirs"]


def test_outside_the_main_thread_no_handler_is_installed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    class Looks(Callback):
        def on_step_end(self) -> None:
            seen.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=lambda: run(Looks()))
    thread.start()
    thread.join()
    assert set(seen) == {True}


@pytest.mark.parametrize("hook", ["wrap_model", "on_setup", "on_train_begin"])
def test_a_loaded_run_whose_set_up_fails_does_not_begin_anew_unsaid(
    hook: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.pt"
    run(StopAt(5, path))
    straight = run()

    seen: list[Trainer] = []

    def fails(self: Any, trainer: Trainer) -> None:
        if not seen:
            seen.append(trainer)
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        run(type("Fails", (Callback,), {hook: fails})(), load=path)
    again = seen[0]
    told = "ended before it went on; load it again.* or build model, optimizer and Trai"
    with pytest.raises(CheckpointError, match=told):
        again.train()
    again.train(resume=path)
    assert again.step == straight.step
    assert_equal_state(capture(again)["model"], capture(straight)["model"])
    again.train()  # anew, once it has gone on
