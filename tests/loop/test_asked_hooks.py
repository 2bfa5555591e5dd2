"""Hooks that a plugin or a command asks in its own time: who answers, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training import Bus, Callback, ConfigError, Trainer
from training.builtin.resume import resume
from training.testing import tiny_trainer


class Finds(Callback):
    """Has checkpoints of some steps."""

    hook_api = ">=1.1,<2"

    def __init__(self, name: str, *steps: int, after: tuple[str, ...] = ()) -> None:
        self.name, self.steps = name, steps  # type: ignore[misc]
        self.after = after  # type: ignore[misc]

    def find_checkpoint(self, step: int) -> Path | None:
        if step < 0:
            raise ValueError("no such step")
        return Path(f"{self.name}-{step}.pt") if step in self.steps else None


@pytest.mark.parametrize(
    ("step", "found"), [(1, "a-1.pt"), (2, "c-2.pt"), (3, "b-3.pt"), (4, None)]
)
def test_the_first_that_has_a_checkpoint_of_the_step_wins(
    step: int, found: str | None
) -> None:
    bus = Bus()
    plugins = Finds("a", 1), Finds("b", 2, 3, after=("c",)), Finds("c", 1, 2)
    bus.register_all([(None, plugin) for plugin in plugins])
    assert bus.find_checkpoint is not None
    path = bus.find_checkpoint(None, step)
    assert path == (found and Path(found))


class Needs(Callback):
    """Needs the checkpoints of some steps, or does not say."""

    hook_api = ">=1.1,<2"

    def __init__(self, name: str, steps: set[int] | None) -> None:
        self.name, self.steps = name, steps  # type: ignore[misc]

    def needed_checkpoints(self) -> set[int] | None:
        return self.steps


def test_everybody_is_asked_which_checkpoints_are_needed() -> None:
    bus = Bus()
    needs = Needs("b", {2}), Needs("c", None), Needs("a", {1, 2})
    bus.register_all([(None, plugin) for plugin in needs])
    answers = bus.collect("needed_checkpoints", trainer=None)
    assert answers == [("a", [1, 2]), ("b", [2]), ("c", None)]


class Offers(Callback):
    """Offers checkpoints to go on from, each with what is wrong with it."""

    hook_api = ">=1.1,<2"

    def __init__(self, name: str, *found: tuple[Path, str | None]) -> None:
        self.name, self.found = name, found  # type: ignore[misc]

    def resume_candidates(self, trainer: Trainer) -> Any:
        return self.found or None


def saved(trainer: Trainer, name: str) -> Path:
    """Return a checkpoint of ``trainer`` as it is."""
    return trainer.save_checkpoint(trainer.save_dir / name)


def test_candidates_are_tried_in_bus_order_until_one_can_be_read(
    tmp_path: Path,
) -> None:
    whole = saved(tiny_trainer(save_dir=tmp_path), "whole.pt")
    torn = tmp_path / "torn.pt"
    torn.write_bytes(whole.read_bytes()[:-1])
    offers = (
        Offers("c", (saved(tiny_trainer(save_dir=tmp_path), "later.pt"), None)),
        Offers("b", (tmp_path / "bad.pt", "it is bad"), (torn, None), (whole, None)),
        Offers("a"),
    )
    trainer = tiny_trainer(*offers, save_dir=tmp_path)
    resume(trainer, "auto")
    assert trainer.resumed_from == whole


def test_a_torn_file_sets_nobody_back_who_has_come_furthest(tmp_path: Path) -> None:
    early = saved(tiny_trainer(save_dir=tmp_path), "early.pt")
    trained = tiny_trainer(save_dir=tmp_path)
    trained.train()
    whole = saved(trained, "whole.pt")
    torn = tmp_path / "torn.pt"
    torn.write_bytes(whole.read_bytes()[:-1])
    offers = Offers("a", (early, None)), Offers("b", (torn, None), (whole, None))
    trainer = tiny_trainer(*offers, save_dir=tmp_path)
    resume(trainer, "auto")
    assert trainer.resumed_from == whole


def test_who_has_none_yet_lets_the_run_start_afresh(tmp_path: Path) -> None:
    trainer = tiny_trainer(Offers("a"), save_dir=tmp_path)
    assert "starting afresh" in resume(trainer, "auto")


def test_nobody_to_ask_for_candidates_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="finds nothing without a plugin"):
        resume(tiny_trainer(save_dir=tmp_path), "auto")


def test_who_fails_to_find_a_checkpoint_is_named() -> None:
    bus = Bus()
    bus.register(Finds("a"))
    assert bus.find_checkpoint is not None
    with pytest.raises(ValueError, match="no such step") as caught:
        bus.find_checkpoint(None, -1)
    assert "raised by plugin 'a'" in caught.value.__notes__[0]
    assert "in find_checkpoint" in caught.value.__notes__[0]


class Breaks(Needs):
    """Cannot say what it needs, nor what it offers; may fail, as it says."""

    failure = "isolate"

    def needed_checkpoints(self) -> set[int] | None:
        raise OSError("the list is gone")

    def resume_candidates(self, trainer: Trainer) -> Any:
        raise OSError("the list is gone")

    def summary(self, trainer: Trainer) -> Any:
        raise OSError("the list is gone")


@pytest.mark.parametrize("hook", ["needed_checkpoints", "resume_candidates"])
def test_an_answer_that_saves_files_is_not_missed_though_its_plugin_may_fail(
    hook: str, tmp_path: Path
) -> None:
    trainer = tiny_trainer(Breaks("a", None), Needs("b", {2}), save_dir=tmp_path)
    with pytest.raises(OSError, match="the list is gone") as caught:
        trainer.bus.collect(hook, trainer=trainer)
    assert "'a'" in "".join(caught.value.__notes__)


def test_any_other_answer_of_a_plugin_that_may_fail_is_missed(tmp_path: Path) -> None:
    trainer = tiny_trainer(Breaks("a", None), save_dir=tmp_path)
    assert trainer.bus.collect("summary", trainer=trainer) == []
