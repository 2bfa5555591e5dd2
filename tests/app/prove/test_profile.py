"""G14: a profile tells what each plugin cost; nothing is paid that was not ordered."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from training import Callback, hookimpl
from training.app.prove.profile import cost_table, profiled
from training.bus.syncs import WARNING
from training.testing.runs import tiny_trainer as make_trainer

Make = Callable[..., Any]


def test_a_profile_has_a_row_for_each_hook_and_one_event_for_each_call(
    tiny_trainer: Make, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    class Wraps(Callback):
        @hookimpl(wrapper=True)
        def evaluate(self) -> Any:
            yield

    class Listens(Callback):
        def on_step_end(self) -> None: ...

    trainer = tiny_trainer(Wraps(), Listens(), num_epochs=1, num_batches=4)
    with profiled(trainer, False, tmp_path / "trace.json"):
        trainer.train()
    printed = capsys.readouterr().out
    assert "Listens" in printed
    assert "all plugins: " in printed
    assert "syncs" not in printed, "a CPU has none to count"
    trace = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = [event["name"] for event in trace]
    assert names.count("Listens.on_step_end") == 4
    assert names.count("Wraps.evaluate") == 2  # going in and coming out
    assert all(event["ph"] == "X" and event["dur"] >= 0 for event in trace)
    assert trainer.bus.meter is None


def test_a_synchronisation_is_booked_to_the_plugin_that_caused_it(
    tiny_trainer: Make, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a CPU the warning that torch gives on CUDA is given by hand."""

    class Waits(Callback):
        def on_step_end(self) -> None:
            warnings.warn(WARNING, stacklevel=1)

    class Speaks(Callback):
        def on_epoch_end(self) -> None:
            warnings.warn("something else", stacklevel=1)

    trainer = tiny_trainer(Waits(), Speaks(), num_epochs=1, num_batches=4)
    meters = []

    def profile() -> None:
        with profiled(trainer, True, tmp_path / "trace.json"):
            meters.append(trainer.bus.meter)
            trainer.train()

    with pytest.warns(UserWarning, match="something else") as caught:
        profile()
    (meter,) = meters
    assert [str(each.message) for each in caught] == ["something else"]
    assert {(p, h): c.syncs for p, h, c in meter.table() if c.syncs} == {
        ("Waits", "on_step_end"): 4
    }
    assert cost_table(meter, 1.0)[0].endswith("syncs")
    trace = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    waits = [event["name"] for event in trace if event["args"]["syncs"]]
    assert waits == ["Waits.on_step_end"] * 4
    capsys.readouterr()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_reading_the_loss_is_a_synchronisation_of_its_reader(
    tmp_path: Any,
) -> None:
    class Reads(Callback):
        def on_step_end(self, logs: Any) -> None:
            float(logs["loss"])

    trainer = make_trainer(Reads(), save_dir=tmp_path, device="cuda")
    with profiled(trainer, True):
        trainer.train()
        meter = trainer.bus.meter
    assert meter is not None
    syncs = {(p, h): c.syncs for p, h, c in meter.table() if c.syncs}
    assert syncs[("Reads", "on_step_end")] == 8
