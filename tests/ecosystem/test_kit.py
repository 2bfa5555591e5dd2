"""The kit finds what is wrong with a plugin, one fault a plugin."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from processes import printed_by

from training import Callback, hookimpl
from training.testing.equality import difference
from training.testing.toys import tiny_batches


class Good(Callback):
    """Counts steps, and forgets them with each fresh run."""

    hook_api = ">=1.0,<2"

    def __init__(self) -> None:
        self.steps = 0

    def on_setup(self) -> None:
        self.steps = 0

    def on_step_end(self) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: Any) -> None:
        self.steps = state["steps"]


class FutureApi(Good):
    hook_api = ">=2,<3"


class TakesReserved(Good):
    def __init__(self, on_failure: str = "x") -> None:
        super().__init__()


class MutatesOdd(Good):
    mutates = ("weights",)


class StateOfObjects(Good):
    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "self": random.Random(0)}


class StateThatMoves(Good):
    def state_dict(self) -> dict[str, Any]:
        self.steps += 1
        return {"steps": self.steps}


class StateNobodyReads(Callback):
    hook_api = ">=1.0,<2"

    def state_dict(self) -> dict[str, Any]:
        return {"steps": 1}


class ForgetsOnResume(Good):
    def load_state_dict(self, state: Any) -> None:
        self.steps = 0


class ForgetsOnlyTheRest(Good):
    """Keeps what it heard in the first run."""

    def on_setup(self) -> None: ...


class CannotClose(Good):
    """Closes what only a whole run has opened."""

    def on_train_begin(self) -> None:
        self.file: list[int] | None = []

    def on_epoch_end(self) -> None:
        self.written = 1

    def on_close(self) -> None:
        del self.written


class ChangesWeights(Good):
    def on_step_end(self, trainer: Any) -> None:
        with torch.no_grad():
            next(trainer.model.parameters()).add_(0.1)


class ChangesGradients(Good):
    def on_before_step(self, trainer: Any) -> None:
        next(trainer.model.parameters()).grad.mul_(2)


class ChangesTheRate(Good):
    def on_epoch_end(self, trainer: Any) -> None:
        trainer.optimizer.param_groups[0]["lr"] = 0.01


class DrawsRandomNumbers(Good):
    def on_epoch_begin(self) -> None:
        torch.randn(1)


class TakesBackRequests(Good):
    def on_epoch_begin(self, trainer: Any) -> None:
        trainer.request_checkpoint("an old wish")

    def on_epoch_end(self, trainer: Any) -> None:
        trainer.state.requests._made.clear()


class Asks(Good):
    """Asks for all that can be asked for, and changes nothing."""

    def on_batch_begin(self, trainer: Any, inputs: Any) -> None:
        if trainer.step == 8:
            trainer.request_evaluation("at the next boundary")

    def on_step_end(self, trainer: Any) -> None:  # type: ignore[override]
        super().on_step_end()
        if trainer.step % 4 == 0:
            trainer.request_checkpoint("every four steps")
        if trainer.step == 45:
            trainer.request_stop("in the middle of an epoch")


class AsksAndHalvesMomenta(Asks):
    def on_epoch_end(self, trainer: Any) -> None:
        if trainer.is_extra_evaluation:
            return
        for state in trainer.optimizer.state.values():
            state["momentum_buffer"].mul_(0.5)


class AsksAndFreezes(Asks):
    def on_epoch_begin(self, trainer: Any) -> None:
        next(trainer.model.parameters()).requires_grad_(False)


class AsksAndClampsTheBatch(Asks):
    def on_batch_begin(self, trainer: Any, inputs: Any) -> None:
        super().on_batch_begin(trainer, inputs)
        inputs[0].clamp_(-0.5, 0.5)


class AsksAndEmptiesTheData(Asks):
    def on_epoch_begin(self, trainer: Any) -> None:
        trainer.train_dataloader[1][0].zero_()


class ScalesTheModel(Good):
    def wrap_model(self, model: Any) -> Any:
        return Scaled(model)


class Scaled(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.module = model

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return self.module(x * 2, y)


class ReversesTheBatches(Good):
    def wrap_dataloader(self, dataloader: Any) -> Any:
        return tiny_batches()[::-1]


class LeavesEvalMode(Good):
    def on_epoch_begin(self, trainer: Any) -> None:
        trainer.model.eval()


class ReadsTheLoss(Good):
    def on_batch_end(self, logs: Any) -> None:
        self.loss = logs["loss"]


class ReadsATensor(Good):
    def on_before_step(self, trainer: Any) -> None:
        next(trainer.model.parameters()).grad.norm().item()


class IsSlow(Good):
    def on_step_end(self) -> None:
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass


class FindsNoFile(Good):
    hook_api = ">=1.1,<2"

    def find_checkpoint(self, step: int) -> str:
        return f"{step}.pt"


class NeedsNames(Good):
    hook_api = ">=1.1,<2"

    def needed_checkpoints(self) -> list[str]:
        return ["best.pt"]


class OffersNames(Good):
    hook_api = ">=1.1,<2"

    def resume_candidates(self) -> list[str]:
        return ["best.pt"]


class SumsUpInTensors(Good):
    hook_api = ">=1.1,<2"

    def summary(self) -> dict[str, Any]:
        return {"steps": torch.ones(1)}


class MakesNoWindow(Good):
    hook_api = ">=1.1,<2"

    def make_window(self) -> str:
        return "fast"


class AnswersOnce(Good):
    hook_api = ">=1.1,<2"

    def make_window(self, default: Any) -> Any:
        self.asked = getattr(self, "asked", 0) + 1
        return default if self.asked == 1 else "fast"


class PlansInWords(Good):
    hook_api = ">=1.1,<2"

    def plan(self) -> str:
        return "nothing"


Conforms = Callable[..., None]


@pytest.mark.parametrize("plugin", [Good, Asks])
def test_a_good_plugin_conforms(
    plugin: type[Any], assert_plugin_conforms: Conforms
) -> None:
    assert_plugin_conforms(plugin)


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (FutureApi, "signatures: PluginError: .*needs hook API >=2,<3"),
        (TakesReserved, "'on_failure' is reserved"),
        (MutatesOdd, "mutates = .*weights.*; list some of: parameters"),
        (StateOfObjects, r"state: .*\bself is random.Random .* cannot hold; keep"),
        (StateThatMoves, "asking for the state changes it"),
        (StateNobodyReads, "state_dict without load_state_dict"),
        (ForgetsOnResume, r"resume: after a resume at epoch_0_step_1.*value\.steps is"),
        (ForgetsOnlyTheRest, r"second run: in a second run of one instance, state"),
        (CannotClose, "neighbours: when a neighbour raises in on_setup: then on_close"),
        (ChangesWeights, "mutation: on_step_end changes the parameters"),
        (ChangesGradients, "mutation: on_before_step changes the gradients"),
        (ChangesTheRate, "mutation: on_epoch_end changes the optimizer"),
        (DrawsRandomNumbers, "mutation: on_epoch_begin changes the rng"),
        (TakesBackRequests, "mutation: on_epoch_end changes the requests"),
        (AsksAndHalvesMomenta, "mutation: on_epoch_end changes the optimizer"),
        (AsksAndFreezes, "mutation: on_epoch_begin changes the parameters"),
        (AsksAndClampsTheBatch, "changes the batch; say `alters_training = True`"),
        (AsksAndEmptiesTheData, "a run without the plugin, in which the same is asked"),
        (ScalesTheModel, "ends differently: .* by `alters_training = True`"),
        (ReversesTheBatches, "ends differently: .* by `alters_training = True`"),
        (LeavesEvalMode, "mutation: on_epoch_begin changes the modes"),
        (
            ReadsTheLoss,
            r"device reads: on_batch_end .* 30 of 30 calls \(logs\['loss'\]",
        ),
        (ReadsATensor, r"device reads: on_before_step .* \(Tensor\.item\)"),
        (FindsNoFile, "answers: find_checkpoint returned '8.pt', which is no file"),
        (NeedsNames, r"answers: .* \['best.pt'\] from needed_checkpoints; return"),
        (OffersNames, "answers: .*'best.pt'. from resume_candidates; return pairs"),
        (SumsUpInTensors, r"answers: .* from summary; return JSON values"),
        (MakesNoWindow, "state: .* 'fast' from make_window; return a subclass"),
        (AnswersOnce, "answers: .* 'fast' from make_window; return a subclass"),
        (PlansInWords, "answers: .* 'nothing' from plan; return a training.plugin"),
        (IsSlow, r"cost: on_step_end takes \d+ us a call, more than"),
    ],
)
def test_a_faulty_plugin_is_found_out(
    plugin: type[Any], words: str, assert_plugin_conforms: Conforms
) -> None:
    with pytest.raises(AssertionError, match=words):
        assert_plugin_conforms(plugin)


MUTATES = {"mutates": ("parameters", "gradients", "optimizer")}
ALTERS = {**MUTATES, "alters_training": True}


@pytest.mark.parametrize(
    ("plugin", "declared"),
    [
        (ChangesWeights, ALTERS),
        (ChangesGradients, {"mutates": ("gradients",)}),
        (ChangesTheRate, ALTERS),
        (ReadsTheLoss, {"reads_device": ("on_batch_end",)}),
        (AsksAndHalvesMomenta, MUTATES),
        (AsksAndClampsTheBatch, {"alters_training": True}),
        (ScalesTheModel, {"alters_training": True}),
        (ReversesTheBatches, {"alters_training": True}),
    ],
)
def test_what_is_declared_is_allowed(
    plugin: type[Any], declared: dict[str, Any], assert_plugin_conforms: Conforms
) -> None:
    assert_plugin_conforms(type("Declared", (plugin,), declared))


def test_a_check_can_be_left_out_by_name(assert_plugin_conforms: Conforms) -> None:
    assert_plugin_conforms(ChangesWeights, skip=["mutation"])
    with pytest.raises(ValueError, match="no check is named 'mutations'"):
        assert_plugin_conforms(ChangesWeights, skip=["mutations"])


@pytest.mark.parametrize(
    ("one", "two", "is_same"),
    [
        pytest.param(float("nan"), float("nan"), True, id="NaN is itself"),
        pytest.param(float("nan"), 0.0, False, id="NaN is not 0"),
        pytest.param(True, 1, False, id="True is not 1"),
        pytest.param(1, 1.0, False, id="1 is not 1.0"),
        pytest.param({1: "a"}, {"1": "a"}, False, id="keys of other types"),
        pytest.param({"a": 1, "b": 2}, {"b": 2, "a": 1}, True, id="keys in any order"),
        pytest.param({"seconds": 1}, {"seconds": 2}, False, id="a clock of its own"),
        pytest.param(
            torch.tensor([math.inf]),
            torch.tensor([torch.finfo(torch.float32).max]),
            False,
            id="infinite is not large",
        ),
        pytest.param(
            torch.tensor([math.nan]), torch.tensor([0.0]), False, id="NaN in a tensor"
        ),
        pytest.param(
            torch.tensor([math.nan]), torch.tensor([math.nan]), True, id="both NaN"
        ),
    ],
)
def test_a_difference_is_seen_to_the_bit(one: Any, two: Any, is_same: bool) -> None:
    assert (difference(one, two) == "") == is_same
    assert (difference(two, one) == "") == is_same


def test_the_events_of_a_plugin_come_in_order_with_their_step(run_events: Any) -> None:
    heard = run_events(Good(), num_epochs=1, num_batches=2)
    assert heard.hooks == ["on_setup", "on_step_end", "on_step_end"]
    assert [event.step for event in heard.calls] == [0, 1, 2]


def test_metrics_can_be_prescribed(tiny_trainer: Any) -> None:
    trainer = tiny_trainer(metrics={"val_loss": [3.0, 1.0]}, num_epochs=3)
    trainer.train()
    assert [row["val_loss"] for row in trainer.history] == [3.0, 1.0, 1.0]


def test_a_wrapper_of_evaluate_is_no_source_of_metrics(tiny_trainer: Any) -> None:
    class Scope(Callback):
        @hookimpl(wrapper=True)
        def evaluate(self) -> Any:
            yield

    trainer = tiny_trainer(Scope(), num_epochs=1)
    trainer.train()
    assert "val_loss" in trainer.history[0]


def test_the_pytest_plugin_imports_torch_only_when_used() -> None:
    code = "import sys, training.testing.fixtures\nprint('torch' in sys.modules)"
    assert printed_by(code) == "False"
