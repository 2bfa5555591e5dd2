"""The kit finds what a real run would get wrong: failures, requests, metrics, names."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Subset

from training import Callback, ConfigError
from training.app.cli import main
from training.app.plugin_tools.callback_trial import accepted, conforms
from training.discovery.installed import installed
from training.loop import loop
from training.testing import CHECKS

Conforms = Callable[..., None]


class Tried(Callback):
    name = "tried"
    hook_api = ">=1.0,<2"


class Isolated(Tried):
    """Fails, and the run goes on."""

    failure = "isolate"

    def on_setup(self) -> None: ...


class FailsInSteps(Isolated):
    def on_step_end(self) -> None:
        raise AttributeError("no such thing")


class FailsAtItsEnd(Isolated):
    def on_close(self) -> None:
        raise AttributeError("no such thing")


class FailsAtLoading(Isolated):
    def state_dict(self) -> dict[str, Any]:
        return {"n": 1}

    def load_state_dict(self, state: Any) -> None:
        state["count"]


class Best(Tried):
    """Takes every metrics for those of an epoch."""

    def on_metrics(self, metrics: Any) -> None:
        self.last = metrics["train_loss"]


class EveryThirdCall(Tried):
    """Asks by a count that is in no state."""

    def on_setup(self) -> None:
        self.calls = 0

    def on_step_end(self, trainer: Any) -> None:
        self.calls += 1
        if self.calls % 3 == 0:
            trainer.request_evaluation("the third")


class EveryThirdStep(Tried):
    def on_train_begin(self, trainer: Any) -> None:
        trainer.request_checkpoint("each time that it begins")

    def on_step_end(self, trainer: Any) -> None:
        if trainer.step % 3 == 0:
            trainer.request_evaluation("the third")


class Names(Tried):
    told = ("acc",)

    def metric_names(self) -> tuple[str, ...]:
        return self.told

    def evaluate(self) -> dict[str, float]:
        return {"accuracy": 1.0}


class NamesRightly(Names):
    told = ("accuracy",)


class NamesTooMany(Names):
    told = ("accuracy", "f1")


class SwapsBefore(Tried):
    """Swaps weights as the epoch's last step ends, and back as metrics are there."""

    mutates = ("parameters",)
    own: Any = None

    def on_setup(self) -> None:
        self.own = None

    @torch.no_grad()
    def on_step_end(self, trainer: Any) -> None:
        if trainer.ends_epoch:
            self.own = [p.clone() for p in trainer.model.parameters()]
            for weight in trainer.model.parameters():
                weight.zero_()

    @torch.no_grad()
    def on_metrics(self, trainer: Any) -> None:
        if self.own is not None:
            for weight, own in zip(trainer.model.parameters(), self.own, strict=True):
                weight.copy_(own)
            self.own = None


class ReadsHalf(Tried):
    """Gives the run fewer rows, where it can tell what they are."""

    def wrap_dataloader(self, dataloader: Any) -> Any:
        if not isinstance(dataloader, DataLoader):
            return None
        half = Subset(dataloader.dataset, range(len(dataloader.dataset) // 2))
        return DataLoader(half, batch_size=2)


class ReadsHalfAndSaysSo(ReadsHalf):
    alters_training = True


class CountsBytes(Tried):
    """Knows how long its log is, which has the rows as they are told."""

    def on_setup(self) -> None:
        self.length = 0

    def on_epoch_end(self, trainer: Any, metrics: Any) -> None:
        if not trainer.is_extra_evaluation:
            self.length += len(repr(metrics["seconds"])) + round(metrics["seconds"])

    def state_dict(self) -> dict[str, Any]:
        return {"length": self.length}

    def load_state_dict(self, state: Any) -> None:
        self.length = state["length"]


class KeepsState(Tried):
    value: Any = None

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: Any) -> None:
        assert state["value"].layout == self.value.layout


@pytest.mark.parametrize(
    ("plugin", "check", "words"),
    [
        (FailsInSteps, "state", r"AttributeError: no such .*'tried'.* in on_step_end"),
        (FailsAtItsEnd, "state", r"AttributeError: no such .*'tried'.* in on_close"),
        (FailsAtLoading, "resume", r"KeyError: 'count' .*'tried'.*in load_state_dict"),
        (FailsInSteps, "processes", r"no such thing .*'tried'.* in on_step_end"),
        (Best, "resume", "KeyError: 'train_loss' .* in on_metrics .* inside an epoch"),
        (EveryThirdCall, "resume", "step_1_.*, requests: .*evaluation asked for at"),
        (Names, "answers", "evaluate delivers accuracy, which metric_names does not"),
        (Names, "answers", "metric_names tells acc, which evaluate has not given"),
        (NamesTooMany, "answers", "metric_names tells f1, which"),
        (SwapsBefore, "neighbours", "an evaluation that is left, .*resume, weights: "),
        (ReadsHalf, "mutation", "a run without .* ends differently: .* `alters_train"),
    ],
)
def test_the_kit_tells_of_what_a_run_would_get_wrong(
    plugin: type[Any], check: str, words: str, assert_plugin_conforms: Conforms
) -> None:
    if check == "processes":
        pytest.importorskip("trainbus_distributed")
    with pytest.raises(AssertionError, match=f"{check}: .*{words}"):
        assert_plugin_conforms(plugin, skip=set(CHECKS) - {check})


@pytest.mark.parametrize(
    "plugin", [Isolated, EveryThirdStep, NamesRightly, ReadsHalfAndSaysSo]
)
def test_who_does_so_rightly_conforms(
    plugin: type[Any], assert_plugin_conforms: Conforms
) -> None:
    assert_plugin_conforms(plugin, skip=["processes", "cost"])


def test_the_kit_gives_all_epochs_one_duration(
    monkeypatch: pytest.MonkeyPatch, assert_plugin_conforms: Conforms
) -> None:
    clock = itertools.count(0.0, 0.123)
    monkeypatch.setattr(loop.time, "perf_counter", lambda: next(clock) ** 2)
    assert_plugin_conforms(CountsBytes, skip=["processes", "cost"])


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("kind", ["coo", "csr", "csc", "bsr", "bsc"])
def test_a_sparse_tensor_in_a_state_is_saved_loaded_and_compared(
    kind: str, assert_plugin_conforms: Conforms
) -> None:
    plain = torch.eye(2)
    blocks = {"blocksize": (1, 1)} if kind.startswith("bs") else {}
    value = (
        plain.to_sparse()
        if kind == "coo"
        else getattr(plain, f"to_sparse_{kind}")(*blocks.values())
    )
    sparse = type("Sparse", (KeepsState,), {"value": value})
    assert_plugin_conforms(sparse, skip=set(CHECKS) - {"state", "answers", "resume"})


def test_an_array_in_a_state_is_told_of_as_what_no_checkpoint_can_hold(
    assert_plugin_conforms: Conforms,
) -> None:
    numpy = pytest.importorskip("numpy")
    array = type("Array", (KeepsState,), {"value": numpy.arange(3)})
    with pytest.raises(AssertionError) as raised:
        assert_plugin_conforms(array, skip=set(CHECKS) - {"state", "answers"})
    (told,) = str(raised.value).split("\n")[1:]
    assert told.startswith("state: in what state_dict returns value is numpy.ndarray")


ODD = """
from training import Callback

class Odd(Callback):
    name = "odd_class"
    hook_api = ">=1.0,<2"
    def state_dict(self):
        return {"n": 1}
    def load_state_dict(self, state): ...

class Same(Odd):
    name = "same"

class Fails(Odd):
    name = "fails"
    failure = "isolate"
    def on_step_end(self):
        raise AttributeError("no such thing")
"""


def test_the_command_tells_of_two_names_and_of_failures_that_a_run_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd_names.py").write_text(ODD)
    facts = tmp_path / "odd_names-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: odd_names\nVersion: 1"
    )
    names = {"odd_entry": "Odd", "same": "Same", "fails": "Fails"}
    lines = [f"{name} = odd_names:{cls}" for name, cls in names.items()]
    (facts / "entry_points.txt").write_text("\n".join(["[trainbus]", *lines]))
    monkeypatch.syspath_prepend(str(tmp_path))
    path = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", ":".join(path))
    assert main(["plugins", "check", "odd_entry", "same", "fails"]) == 2
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "odd_entry: good"
    assert "it is 'odd_entry' in a run, and as an instance in Python 'odd_cl" in told[1]
    assert told[2] == "same: good"
    assert told[3].startswith("fails: ")
    assert "AttributeError: no such thing" in told[3]


class Refuses(Tried):
    def on_setup(self) -> None:
        raise ConfigError("name a place")


class NeedsValidation(Tried):
    def on_setup(self, trainer: Any) -> None:
        if trainer.val_dataloader is None:
            raise ConfigError("pass validation data")


def test_where_two_processes_cannot_be_the_command_tries_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    told, _ = conforms(FailsInSteps, tmp_path / "fails", {})
    assert "AttributeError: no such thing raised by plugin 'tried'" in told[0]
    assert "on 2 processes" not in "".join(told)


def test_a_plugin_that_refuses_the_runs_of_the_kit_is_not_tried(tmp_path: Path) -> None:
    assert accepted(Refuses, tmp_path / "refuses")[1] == "ConfigError: name a place"
    # What it says of a run without validation data, it does not say of one with them.
    assert accepted(NeedsValidation, tmp_path / "needs")[1] == ""


class CountsOnly(Callback):
    """Counts what no checkpoint knows of, and ends the run by it."""

    name = "counts"

    def __init__(self) -> None:
        self.n = 0

    def on_step_end(self, trainer: Any) -> None:
        self.n += 1
        if self.n == 6:
            trainer.request_stop("six steps")


def test_that_no_hook_api_is_declared_hides_no_other_finding(
    assert_plugin_conforms: Conforms,
) -> None:
    with pytest.raises(AssertionError) as raised:
        assert_plugin_conforms(CountsOnly, skip=["processes", "cost"])
    told = str(raised.value).splitlines()
    assert {line.partition(":")[0] for line in told[1:]} == {
        *("resume", "second run", "neighbours", "remark")
    }
    assert told[-1].startswith("remark: hook_api is not declared; write hook_api = ")


def test_a_plugin_without_hook_api_conforms_and_is_remarked_on(
    assert_plugin_conforms: Conforms,
) -> None:
    plugin = type("Anytime", (Isolated,), {"hook_api": None})
    with pytest.warns(UserWarning, match="the plugin conforms, but hook_api is not"):
        assert_plugin_conforms(plugin, skip=set(CHECKS) - {"signatures", "state"})


COUNTS = """
from training import Callback

class Counts(Callback):
    def __init__(self):
        self.n = 0

    def on_step_end(self, trainer):
        self.n += 1
        if self.n == 6:
            trainer.request_stop("six steps")
"""


def test_the_command_finds_in_a_plugin_what_the_kit_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(COUNTS)
    assert main(["plugins", "check", f"{tmp_path}/mine.py:Counts"]) == 2
    told = capsys.readouterr().out
    for words in (
        "resume: after a resume at epoch_0_step_1",
        "  second run: in a second run of one instance, ",
        "  hook_api is not declared; write ",
    ):
        assert words in told


@pytest.mark.slow
def test_every_shipped_plugin_that_needs_no_option_is_found_good(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = [info.name for info in installed("callback")]
    assert main(["plugins", "check", *names]) == 0
    told = capsys.readouterr().out.splitlines()
    heads = dict(line.split(": ", 1) for line in told if not line.startswith(" "))
    assert heads.pop("lr_scheduling").startswith("imported, not tried: ")
    assert set(heads.values()) == {"good"}
    assert set(heads) == set(names) - {"lr_scheduling"}


def test_where_no_plugin_is_named_none_is_called_good_that_was_not_tried(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plugins", "check", "--kind", "callback"]) == 0
    *told, way = capsys.readouterr().out.splitlines()
    assert {line.partition(": ")[2] for line in told} == {"imported, not tried"}
    assert way == "each is tried by its name: trainbus plugins check NAME"
