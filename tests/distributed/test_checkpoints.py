"""Of a run on two processes there is one of each file, and main writes it."""

from __future__ import annotations

import copy
import gc
import json
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from training import Callback, ConfigError, Trainer
from training.builtin.resume import resume
from training.callbacks import EarlyStoppingCallback

pytestmark = pytest.mark.distributed


def make(folder: str, *callbacks: Any, **options: Any) -> Trainer:
    """Return a run of four epochs of four steps, and a loss that is best in the third.

    ``checkpointing`` writes into ``folder``, if any of ``options`` are its.
    """
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    rows = TensorDataset(torch.randn(12, 4), torch.randn(12, 1))
    return Trainer(
        model,
        DataLoader(rows, batch_size=3, shuffle=True),
        optimizer=torch.optim.SGD(model.parameters(), 0.05),
        loss_fn=nn.functional.mse_loss,
        callbacks=[Measures(), *callbacks],
        plugins=["distributed", {"checkpointing": options}],
        num_epochs=4,
        seed=3,
        save_dir=folder,
        device="cpu",
    )


class Measures(Callback):
    """Measures what is best at the end of the third epoch."""

    def metric_names(self) -> list[str]:
        return ["val_loss"]

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        return {"val_loss": abs(trainer.epoch - 3.0)}


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# One file ----------------------------------------------------


def saved(path: str) -> None:
    trainer = make(str(Path(path).parent / "runs"), async_save=False)
    trainer.train()
    trainer.save_checkpoint(path)


def leaves(value: Any, at: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {k: v for n in value for k, v in leaves(value[n], f"{at}.{n}").items()}
    return {at: tuple(value.shape) if torch.is_tensor(value) else type(value)}


def test_d29_a_file_of_two_is_that_of_one_but_for_the_other_s_generators(
    two: Ranks, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    saved(str(tmp_path / "one" / "a.pt"))
    two.run(saved, str(tmp_path / "two" / "a.pt"))
    one, both = (
        torch.load(tmp_path / name / "a.pt", weights_only=True)
        for name in ("one", "two")
    )
    (other,) = both.pop("ranks")
    assert other.keys() == {"rng"}
    assert leaves(other["rng"]) == leaves(both["rng"])
    assert leaves(both.pop("plugins").pop("checkpointing")) == leaves(
        one.pop("plugins")["checkpointing"]
    )
    assert [*both] == [*one]
    # A window of two has two parts, so more depends on what a batch counts by.
    for state in (both, one):
        state["settings"]["loss_per"].pop("later")
    assert leaves(both) == leaves(one)


def trained(folder: str, options: Mapping[str, Any]) -> dict[str, Any]:
    trainer = make(folder, **options)
    trainer.train()
    keeper = trainer.plugins["checkpointing"]
    found = keeper.find_checkpoint(12)
    return {
        "best": str(keeper.best_path),
        "value": keeper.best_value,
        "last": str(keeper.last_path),
        "found": str(found),
        "state": keeper.state_dict(),
    }


@pytest.mark.parametrize("is_async", [False, True], ids=["at once", "in a thread"])
def test_d27_there_is_one_of_each_file_and_all_know_them(
    two: Ranks, tmp_path: Path, is_async: bool
) -> None:
    folder = tmp_path / "two"
    answers = two.run(trained, str(folder), {"async_save": is_async})
    alone = trained(str(tmp_path / "one"), {"async_save": is_async})
    assert files_in(folder) == files_in(tmp_path / "one")
    assert len([name for name in files_in(folder) if name.endswith(".pt")]) == 2
    assert not list(folder.rglob("*.lock"))
    assert answers[0] == answers[1]
    as_alone = json.loads(json.dumps(answers[0]).replace(str(folder), "F"))
    assert as_alone == json.loads(json.dumps(alone).replace(str(tmp_path / "one"), "F"))


def writers(folder: str) -> list[str]:
    """Train while all that is written, renamed or removed is noted."""
    touched: list[str] = []

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if not is_on[0] or event not in ("open", "os.rename", "os.remove"):
            return
        path, mode, flags = arguments if event == "open" else (arguments[0], "w", 0)
        is_written = set(mode or "") & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR)
        if is_written and str(path).startswith(folder):
            touched.append(f"{event} {path}")

    is_on = [True]
    sys.addaudithook(heard)  # it cannot be taken away again
    try:
        make(folder).train()
    finally:
        is_on[0] = False
    return touched


def let_go(folder: str) -> tuple[bool, bool]:
    trainer = make(folder, weights="trained")
    trainer.train()
    keeper, model = trainer.plugins["checkpointing"], weakref.ref(trainer.model)
    del trainer
    gc.collect()
    return model() is None, copy.deepcopy(keeper).best_value == keeper.best_value


def test_a_used_plugin_keeps_no_trainer_on_any_process(
    two: Ranks, tmp_path: Path
) -> None:
    assert two.run(let_go, str(tmp_path)) == [(True, True)] * 2


def test_d27_only_main_writes(two: Ranks, tmp_path: Path) -> None:
    by_main, by_other = two.run(writers, str(tmp_path / "runs"))
    assert by_main
    assert by_other == []


# Errors ------------------------------------------------------


def error_of(work: Callable[[], object]) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # it is told
        work()
    return f"{type(caught.value).__name__}: {caught.value}"


def full_disk(path: str) -> str:
    """Save where main alone may write no more bytes to any file."""
    import resource

    trainer = make(str(Path(path).parent / "runs"))
    trainer.train()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if trainer.is_main:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        return error_of(lambda: trainer.save_checkpoint(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, former)


def test_d27_a_full_disk_on_main_is_everybody_s_error(
    two: Ranks, tmp_path: Path
) -> None:
    by_main, by_other = two.run(full_disk, str(tmp_path / "a.pt"))
    assert by_main.startswith("CheckpointError: checkpoint ")
    assert "could not be written" in by_main
    assert by_main == by_other
    assert not (tmp_path / "a.pt").exists()


class Raises(Callback):
    """Cannot say its state on one process."""

    def __init__(self, rank: int, what: Any) -> None:
        self.rank, self.what, self.trainer = rank, what, None

    def on_setup(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        if self.trainer is None or self.trainer.rank != self.rank:
            return {"number": 1}
        if self.what is None:
            raise ValueError("no state today")
        return {"value": self.what}

    def load_state_dict(self, state: Any) -> None: ...


def failing(folder: str, rank: int, is_raised: bool) -> str:
    trainer = make(folder, Raises(rank, None if is_raised else object()))
    return error_of(trainer.train)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("is_raised", [True, False], ids=["raised", "no plain value"])
def test_d27_what_one_process_cannot_save_is_everybody_s_error(
    two: Ranks, tmp_path: Path, rank: int, is_raised: bool
) -> None:
    answers = two.run(failing, str(tmp_path), rank, is_raised)
    wanted = "ValueError: no state today" if is_raised else "PluginError: plugin"
    assert [each.startswith(wanted) for each in answers] == [True, True], answers
    assert not [name for name in files_in(tmp_path) if name.endswith(".pt")]


def without_folder(folder: str) -> str:
    Path(folder).touch(exist_ok=True)
    return error_of(make(folder).train)


def test_d27_a_folder_that_main_cannot_make_is_everybody_s_error(
    two: Ranks, tmp_path: Path
) -> None:
    by_main, by_other = two.run(without_folder, str(tmp_path / "file"))
    assert by_main == by_other
    assert "which cannot be written to" in by_main
    assert by_main.startswith(ConfigError.__name__)


def blind(folder: str) -> str:
    """Look for what main writes in a folder that is another one for rank 1."""
    from trainbus_checkpointing.folder import require_shared

    strategy = make(folder).strategy
    own = Path(folder) / str(strategy.rank)
    own.mkdir()
    return error_of(lambda: require_shared(own, strategy, patience=0.0))


def test_d28_a_process_that_does_not_see_the_folder_is_named(
    two: Ranks, tmp_path: Path
) -> None:
    by_main, by_other = two.run(blind, str(tmp_path))
    assert by_main.split("where")[1] == by_other.split("where")[1]
    assert "where rank 1 on" in by_main
    assert "does not find what the main process writes" in by_main
    assert files_in(tmp_path) == []


# Going on ----------------------------------------------------


def resumed_auto(folder: str) -> list[Any]:
    trainer = make(folder)
    receipt = resume(trainer, "auto")
    resumed_from = trainer.resumed_from
    return [receipt, str(resumed_from), trainer.step, first_weight(trainer)]


def first_weight(trainer: Trainer) -> float:
    return float(trainer.model.weight.detach()[0, 0])


def test_d31_auto_finds_the_same_file_everywhere(two: Ranks, tmp_path: Path) -> None:
    (fresh, *_), _ = two.run(resumed_auto, str(tmp_path))
    assert "starting afresh" in fresh
    two.run(trained, str(tmp_path), {"save_top_k": 1})
    by_main, by_other = two.run(resumed_auto, str(tmp_path))
    assert by_main == by_other
    assert by_main[2] == 16
    newest = Path(by_main[1])
    newest.write_bytes(newest.read_bytes()[:-10])
    by_main, by_other = two.run(resumed_auto, str(tmp_path))
    assert by_main == by_other
    assert by_main[2] == 12
    assert Path(by_main[1]) != newest


def with_the_best(folder: str, options: Mapping[str, Any]) -> list[Any]:
    stopping = EarlyStoppingCallback(patience=9, restore_best_weights=True)
    trainer = make(folder, stopping, **options)
    trainer.train()
    is_kept = stopping._weights.copy is not None
    return [trainer.weights_are, first_weight(trainer), is_kept]


@pytest.mark.parametrize("top", [0, 1], ids=["from memory", "from a checkpoint"])
def test_d34_all_end_with_the_best_weights(
    two: Ranks, tmp_path: Path, top: int
) -> None:
    answers = two.run(with_the_best, str(tmp_path), {"save_top_k": top})
    assert answers[0] == answers[1]
    assert answers[0][0] == "best@12"
    alone = with_the_best(str(tmp_path / "one"), {"save_top_k": top})
    assert answers[0][1] == pytest.approx(alone[1], abs=1e-6)


def signalled(folder: str, step: int, ranks: list[int], options: Any) -> Any:
    """Train until a signal comes to some processes at one step."""

    class Signals(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            if trainer.step == step and trainer.rank in ranks:
                os.kill(os.getpid(), signal.SIGTERM)

    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(SystemExit) as left:
        make(folder, Signals(), **options).train()
    return left.value.code


@pytest.mark.parametrize("is_async", [False, True], ids=["at once", "in a thread"])
@pytest.mark.parametrize("ranks", [[0, 1], [1]], ids=["all", "one"])
def test_d37_a_run_that_a_signal_ended_leaves_a_file_that_says_so(
    two: Ranks, tmp_path: Path, ranks: list[int], is_async: bool
) -> None:
    options = {"async_save": is_async, "every_n_steps": 1}
    assert two.run(signalled, str(tmp_path), 6, ranks, options) == [143, 143]
    content = json.loads((tmp_path / "RESUMABLE").read_text())
    assert content["signal"] == "SIGTERM"
    assert content["step"] == 6
    assert torch.load(content["file"], weights_only=True)["progress"]["step"] == 6
    two.run(trained, str(tmp_path), {})
    assert not (tmp_path / "RESUMABLE").exists()


# In a thread -------------------------------------------------


def failing_thread(folder: str) -> list[Any]:
    """Train where nothing more fits on the disk once a thread writes, on main."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    class Fills(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            if trainer.step == 5 and trainer.is_main:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

    trainer = make(folder, Fills(), async_save=True, every_n_steps=6)
    try:
        return [error_of(trainer.train), trainer.step]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, former)


def test_d27_a_disk_that_is_full_for_main_s_thread_ends_all_at_one_boundary(
    two: Ranks, tmp_path: Path
) -> None:
    by_main, by_other = two.run(failing_thread, str(tmp_path))
    assert by_main == by_other
    assert "could not be written" in by_main[0]
    assert "the last good checkpoint is" in by_main[0]
    assert 6 < by_main[1] <= 8
