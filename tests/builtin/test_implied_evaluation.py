"""Validation data are measured every epoch, and where they are not that is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy import make_trainer, regression_batches

from training import Callback, PluginError, hookimpl

LEFT_OUT = "no metric is called val_"


class Memory(Callback):
    """Adds a number that is not of the validation data."""

    name = "memory"

    def evaluate(self) -> dict[str, float]:
        return {"megabytes": 1.0}


class Declares(Memory):
    produces = ("megabytes",)


class ReadsNone(Memory):
    reads_validation = False


class Names(Memory):
    def metric_names(self) -> list[str]:
        return ["megabytes"]


class Own(Callback):
    """Stands in for the default, as one that measures validation data itself."""

    name = "own"

    def evaluate(self) -> dict[str, float]:
        return {"val_loss": 7.0}


class OwnDeclares(Own):
    produces = ("val_loss",)


class OwnNames(Own):
    def metric_names(self) -> list[str]:
        return ["val_loss"]


class Marked:
    """Stands in by a method of another name, and is no ``Callback``."""

    name = "marked"

    @hookimpl(specname="evaluate")
    def measure(self) -> dict[str, float]:
        return {"val_loss": 7.0}


class Swaps(Callback):
    """Surrounds the evaluation and measures nothing."""

    name = "swaps"

    @hookimpl(wrapper=True)
    def evaluate(self) -> Any:
        yield


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def trained(*plugins: Callback, **options: Any) -> Any:
    trainer = make_trainer(
        None, None, *plugins, val_dataloader=regression_batches(2), **options
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("plugins", [[ReadsNone()], [Swaps()], [ReadsNone(), Swaps()]])
def test_a_plugin_that_reads_no_validation_data_leaves_them_to_the_default(
    plugins: list[Callback], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = trained(*plugins)
    assert "evaluation" in trainer.plugins
    assert "val_loss" in trainer.history[-1]
    has_memory = any(isinstance(each, Memory) for each in plugins)
    assert ("megabytes" in trainer.history[-1]) is has_memory
    assert LEFT_OUT not in caplog.text


@pytest.mark.parametrize("own", [Own, OwnDeclares, OwnNames, Marked])
@pytest.mark.parametrize("others", [[], [Declares], [ReadsNone]])
def test_an_evaluator_of_ones_own_stands_in_for_the_default(
    own: Any, others: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = trained(own(), *(each() for each in others))
    assert "evaluation" not in trainer.plugins
    assert trainer.history[-1]["val_loss"] == 7.0
    assert LEFT_OUT not in caplog.text


class Bleu(Callback):
    """Measures what no other evaluator could read."""

    name = "bleu"
    produces = ("bleu",)

    def evaluate(self, trainer: Any) -> dict[str, float]:
        return {"bleu": float(sum(len(texts) for texts in trainer.val_dataloader))}


def test_what_an_evaluator_of_ones_own_alone_can_read_is_left_to_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    texts = [["a text", "its reference"], ["another", "and its"]]
    trainer = make_trainer(None, None, Bleu(), val_dataloader=texts)
    trainer.train()
    assert trainer.history[-1]["bleu"] == 4.0
    assert "evaluation" not in trainer.plugins
    assert "since 'bleu' may measure instead" in caplog.text


class StepsSoFar(Callback):
    """Notes how many warnings there were before the first step."""

    def __init__(self, told: pytest.LogCaptureFixture) -> None:
        self.told, self.seen = told, ""

    def on_epoch_begin(self) -> None:
        self.seen = self.seen or f" {self.told.text}"


@pytest.mark.parametrize(
    ("plugin", "is_early"),
    [
        pytest.param(Names(), True, id="names"),
        pytest.param(Memory(), False, id="mute"),
        pytest.param(Declares(), False, id="declares"),
    ],
)
def test_validation_that_nobody_is_seen_to_measure_is_told_once(
    plugin: Any, is_early: bool, caplog: pytest.LogCaptureFixture
) -> None:
    before = StepsSoFar(caplog)
    trainer = trained(plugin, before, num_epochs=2)
    assert "evaluation" not in trainer.plugins
    assert (LEFT_OUT in before.seen) is is_early
    assert caplog.text.count(LEFT_OUT) == 1
    assert "since 'memory' may measure instead" in caplog.text
    trainer.train()
    assert caplog.text.count(LEFT_OUT) == 1


def test_the_ways_out_that_are_told_are_ways_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    both = trained(Memory(), plugins=["evaluation"])
    assert {"val_loss", "megabytes"} <= both.history[-1].keys()
    one = trained(Memory(), plugins=["no:evaluation"])
    assert "val_loss" not in one.history[-1]
    none = trained(plugins=["no:evaluation"])
    assert "evaluation" not in none.plugins
    assert LEFT_OUT not in caplog.text


def test_without_validation_data_nothing_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_trainer(None, None, Memory()).train()
    assert LEFT_OUT not in caplog.text


def test_two_that_deliver_one_metric_stay_an_error() -> None:
    with pytest.raises(PluginError, match=r"'val_loss' comes from both"):
        trained(Own(), plugins=["evaluation"])
