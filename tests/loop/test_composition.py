"""A run is made of parts: each holds what it alone writes, and none is another."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import make_trainer

from training import Callback, CheckpointError, ConfigError, Trainer
from training.plugin import read_checkpoint

KERNEL = Path(__file__).resolve().parents[2] / "core" / "training"
#: The parts, by file. A window is another class on another device, and left out.
PARTS = {
    "Trainer": "trainer.py",
    "Run": "run.py",
    "RunState": "loop/run_state.py",
    "Loop": "loop/loop.py",
    "Feed": "feed/feed.py",
    "Requests": "loop/requests.py",
    "Verdicts": "loop/verdicts.py",
    "RunLength": "planned/length.py",
}
#: What variables and attributes that hold a part are called.
HOLDERS = ("trainer", "run", "state", "loaded", "loop", "feed", "requests")
HOLDERS += ("verdicts", "length")


def class_of(name: str) -> ast.ClassDef:
    tree = ast.parse((KERNEL / PARTS[name]).read_text(encoding="utf-8"))
    (found,) = (
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    return found


def written(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (whose, attribute) for each that is assigned in ``tree``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield ast.unparse(node.value), node.attr


def foreign_writes(text: str) -> list[str]:
    """Return the attributes that code writes into a part which it merely holds."""
    return [
        f"{whose}.{attribute}"
        for whose, attribute in written(ast.parse(text))
        if whose.rpartition(".")[2].lstrip("_") in HOLDERS
    ]


SOURCES = sorted(
    path
    for path in KERNEL.rglob("*.py")
    if not {"app", "testing"} & set(path.relative_to(KERNEL).parts)
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(KERNEL)))
def test_an_attribute_of_a_part_is_written_by_that_part_alone(path: Path) -> None:
    assert foreign_writes(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    ["trainer.order_seed = 1", "self.state.to_restore = {}", "run.loop.feed = None"],
)
def test_a_write_from_outside_is_found(line: str) -> None:
    assert foreign_writes(line) == [line.partition(" =")[0]]


@pytest.mark.parametrize("name", PARTS)
def test_no_part_is_a_kind_of_another(name: str) -> None:
    assert [ast.unparse(base) for base in class_of(name).bases] in ([], ["NamedTuple"])


class Asks(Callback):
    """Asks for everything, watches a metric, and stops the run at its first step."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def evaluate(self) -> dict[str, float]:
        return {"score": 1.0}

    def on_train_begin(self, trainer: Trainer) -> None:
        self.seen.append(
            (
                *(trainer.epoch, trainer.step, trainer.update, trainer.batches_seen),
                *(trainer.history, dict(trainer.metrics), trainer.requests),
                *(trainer.pending, trainer.stop_reason, trainer.weights_are),
                *(
                    trainer.is_stopping,
                    trainer.resumed_from,
                    trainer.state.carried_states,
                ),
                *(trainer.state.to_restore, trainer.state.joining_groups),
                *(trainer.state.progress.state_dict(), trainer.loop.is_in_window),
            )
        )

    def on_step_end(self, trainer: Trainer) -> None:
        trainer.weights_are = "another's"
        trainer.request_evaluation("late")
        trainer.request_stop("enough")


def test_a_second_run_begins_with_nothing_of_the_first() -> None:
    plugin = Asks()
    trainer = make_trainer(None, None, plugin)
    trainer.train()
    first = trainer.state.progress
    assert (trainer.step, trainer.stop_owner) == (1, "Asks")
    trainer.train()
    assert plugin.seen[0] == plugin.seen[1]
    assert trainer.state.progress is not first


def test_no_checkpoint_is_loaded_into_a_run_that_is_on(tmp_path: Path) -> None:
    class Loads(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            trainer.load_checkpoint(path, weights_only=True)
            trainer.load_checkpoint(path)

    first = make_trainer(None, None)
    first.train()
    path = first.save_checkpoint(tmp_path / "first.pt")
    second = make_trainer(None, None, Loads())
    with pytest.raises(CheckpointError, match="a run is under way"):
        second.train()
    assert second.step == 1
    second.load_checkpoint(path)  # that run is over
    assert second.step == first.step


def momenta(state: dict[str, Any]) -> list[Any]:
    return [entry["momentum_buffer"] for entry in state["optimizer"]["state"].values()]


def with_momentum(*callbacks: Any, **options: Any) -> Trainer:
    trainer = make_trainer(None, None, *callbacks, num_epochs=2, **options)
    trainer.optimizer.param_groups[0]["momentum"] = 0.9
    return trainer


class Counts(Callback):
    """Keeps a number of events; saves in ``at``."""

    def __init__(self, at: str = "", path: Path | None = None) -> None:
        self.events, self.at, self.path = 0, at, path

    def state_dict(self) -> dict[str, Any]:
        return {"events": self.events}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.events = state["events"]

    def _save(self, hook: str, trainer: Trainer) -> None:
        if hook == self.at and self.path is not None and not self.path.exists():
            trainer.save_checkpoint(self.path)

    def on_setup(self, trainer: Trainer) -> None:
        self._save("on_setup", trainer)

    def on_train_begin(self, trainer: Trainer) -> None:
        self._save("on_train_begin", trainer)

    def on_epoch_begin(self, trainer: Trainer) -> None:
        self._save("on_epoch_begin", trainer)

    def on_step_end(self) -> None:
        self.events += 1


@pytest.mark.parametrize("at", ["load", "on_setup", "on_train_begin", "on_epoch_begin"])
def test_what_is_loaded_and_not_begun_is_saved_as_it_was(
    at: str, tmp_path: Path
) -> None:
    first = with_momentum(Counts())
    first.train()
    saved = first.save_checkpoint(tmp_path / "first.pt")
    again = tmp_path / "again.pt"
    second = with_momentum(Counts(at, again))
    second.num_epochs = 3
    second.load_checkpoint(saved)
    if at == "load":
        second.save_checkpoint(again)
    else:
        second.train()
    was, now = read_checkpoint(saved), read_checkpoint(again)
    assert now["plugins"] == was["plugins"] == {"Counts": {"events": first.step}}
    for one, other in zip(momenta(was), momenta(now), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    for part in ("progress", "history", "requests", "trainable", "in_eval", "asked"):
        assert now[part] == was[part], part


def test_an_optimizer_is_loaded_once_and_at_once(
    tmp_path: Path,
) -> None:
    seen = []
    first = with_momentum()
    first.train()
    path = first.save_checkpoint(tmp_path / "first.pt")

    class Looks(Callback):
        def on_setup(self, trainer: Trainer) -> None:
            seen.append(dict(trainer.optimizer.state))

        def on_train_begin(self, trainer: Trainer) -> None:
            seen.append(dict(trainer.optimizer.state))

    second = with_momentum(Looks())
    loads = 0
    load = second.optimizer.load_state_dict

    def counted(state: Any) -> None:
        nonlocal loads
        loads += 1
        load(state)

    second.optimizer.load_state_dict = counted
    second.load_checkpoint(path)
    assert (loads, second.step) == (1, first.step)
    for own, other in zip(
        second.model.parameters(), first.model.parameters(), strict=True
    ):
        assert torch.equal(own, other), "weights can be looked at once they are loaded"
    second.train()
    assert loads == 1
    assert [bool(state) for state in seen] == [True, True]


class TrainsAgain(Callback):
    """Calls ``train`` in its second epoch."""

    def on_epoch_begin(self, trainer: Trainer) -> None:
        if trainer.epoch == 1:
            trainer.train()


def test_train_is_refused_while_a_run_is_under_way() -> None:
    trainer = with_momentum(TrainsAgain())
    with pytest.raises(ConfigError, match="while a run of this trainer is under way"):
        trainer.train()
    assert trainer.epoch == 1
