"""What the kit says of a state that is wrong or missing helps to mend it."""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import torch

from training import Callback, hookimpl
from training.testing import CHECKS


class Named(Callback):
    name = "tried"
    hook_api = ">=1.0,<2"

    def load_state_dict(self, state: Any) -> None: ...


class HoldsALock(Named):
    def state_dict(self) -> dict[str, Any]:
        return {"inner": {"lock": threading.Lock()}}


class ReturnsAList(Named):
    def state_dict(self) -> Any:
        return [1, 2]


class KeepsNoState(Named):
    """Moves weights by what it counts."""

    mutates = ("parameters",)

    def on_setup(self) -> None:
        self.steps = 0

    def on_step_end(self, trainer: Any) -> None:
        self.steps += 1
        with torch.no_grad():
            next(trainer.model.parameters()).add_(self.steps)


class AveragesEpochs(Named):
    """Averages the weights of what it takes for ends of epochs, also of half a one."""

    mutates = ("parameters",)

    def on_setup(self) -> None:
        self.count, self.mean = 0, torch.zeros(())

    @torch.no_grad()
    def on_epoch_end(self, trainer: Any) -> None:
        weight = next(trainer.model.parameters())
        self.count += 1
        self.mean = self.mean + (weight - self.mean) / self.count

    @torch.no_grad()
    def on_train_end(self, trainer: Any) -> None:
        next(trainer.model.parameters()).copy_(self.mean)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state: Any) -> None:
        self.count, self.mean = state["count"], state["mean"]


class AveragesWholeEpochs(AveragesEpochs):
    def on_epoch_end(self, trainer: Any) -> None:
        if not trainer.is_extra_evaluation:
            super().on_epoch_end(trainer)


class AveragesWhatIsNotExtra(AveragesEpochs):
    """Asks too early: who decides by metrics counts what was asked for in a part."""

    def on_metrics(self, trainer: Any) -> None:
        self.is_extra = trainer.is_extra_evaluation

    def on_epoch_end(self, trainer: Any) -> None:
        if not self.is_extra:
            super().on_epoch_end(trainer)


class AveragesByLosses(AveragesEpochs):
    """Knows a whole epoch by its training loss, and looks at the latest one, too."""

    def on_epoch_end(self, trainer: Any) -> None:
        pass

    def on_metrics(self, trainer: Any, metrics: Any) -> None:
        if "train_loss" in metrics or self.is_fresh(trainer):
            super().on_epoch_end(trainer)

    def is_fresh(self, trainer: Any) -> bool:
        latest = trainer.metrics.get("train_loss")
        return latest is not None and latest.step == trainer.step


class MeasuresZeros(Named):
    """Swaps weights for an evaluation, and back where that comes to its end."""

    mutates = ("parameters",)

    @hookimpl(wrapper=True)
    def evaluate(self, trainer: Any) -> Any:
        own = self.swap(trainer.model)
        answers = yield
        trainer.model.load_state_dict(own)
        return answers

    def swap(self, model: Any) -> dict[str, Any]:
        own = copy.deepcopy(model.state_dict())
        for value in model.state_dict().values():
            value.zero_()
        return own


class PutsThemBack(MeasuresZeros):
    @hookimpl(wrapper=True)
    def evaluate(self, trainer: Any) -> Any:
        own = self.swap(trainer.model)
        try:
            return (yield)
        finally:
            trainer.model.load_state_dict(own)


class Kept:
    """Reads another loader once, and gives out the same batches in each epoch."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.batches: list[Any] = []

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Any:
        self.batches = self.batches or list(self.inner)
        return iter(self.batches)


class KeepsTheFirstEpoch(Named):
    alters_training = True

    def wrap_dataloader(self, dataloader: Any) -> Any:
        return Kept(dataloader)


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (HoldsALock, r"state: .* inner\['lock'\] is _thread.lock .* cannot hold; keep"),
        (KeepsTheFirstEpoch, "resume: after a resume at epoch_1_step_4.*, weights"),
        (AveragesEpochs, "resume: after an end by max_steps inside an epoch, weights"),
        (AveragesWhatIsNotExtra, "resume: after an end by max_steps .* too: ask"),
        (
            MeasuresZeros,
            "neighbours: an evaluation that is left, .* weights, .*finally",
        ),
        (KeepsNoState, "resume: .* in what state_dict returns, and load_state_dict"),
    ],
)
def test_it_is_said_what_is_wrong_and_where_it_belongs(
    plugin: type[Any], words: str, assert_plugin_conforms: Callable[..., None]
) -> None:
    with pytest.raises(AssertionError, match=words):
        assert_plugin_conforms(plugin)


class Tracks(Named):
    """Has an id of its own in each run, and keeps the time."""

    def on_setup(self) -> None:
        self.id: str | None = None
        self.start, self.spent = time.perf_counter(), 0.0

    def on_train_begin(self) -> None:
        self.id = self.id or uuid.uuid4().hex

    def state_dict(self) -> dict[str, Any]:
        spent = self.spent + time.perf_counter() - self.start
        return {"id": self.id, "spent": spent}

    def load_state_dict(self, state: Any) -> None:
        self.id, self.spent = state["id"], state["spent"]


class TracksAnew(Tracks):
    def load_state_dict(self, state: Any) -> None:
        self.spent = state["spent"]


class ForgetsItsCount(Tracks):
    """Keeps beside the id what each equal run has alike, and forgets that."""

    def on_train_begin(self) -> None:
        super().on_train_begin()
        self.steps = 0

    def on_step_end(self) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "steps": getattr(self, "steps", 0)}


def test_what_each_run_has_its_own_of_is_compared_with_no_other_run(
    assert_plugin_conforms: Callable[..., None],
) -> None:
    assert_plugin_conforms(Tracks, skip=["cost", "processes"])


@pytest.mark.parametrize(
    ("plugin", "words"), [(TracksAnew, "value.id is '"), (ForgetsItsCount, "value.ste")]
)
def test_a_resumed_run_goes_on_with_the_id_and_the_rest_that_were_saved(
    plugin: type[Any], words: str, assert_plugin_conforms: Callable[..., None]
) -> None:
    with pytest.raises(AssertionError, match=f"resume: after .*state: {words}"):
        assert_plugin_conforms(plugin, skip=set(CHECKS) - {"signatures", "resume"})


class Nudges(Named):
    mutates = ("parameters",)

    @torch.no_grad()
    def on_step_end(self, trainer: Any) -> None:
        next(trainer.model.parameters()).add_(0.01)


class HalvesTheRate(Named):
    mutates = ("optimizer",)

    def on_epoch_begin(self, trainer: Any) -> None:
        trainer.optimizer.param_groups[0]["lr"] = 0.01 / 2**trainer.epoch


@pytest.mark.parametrize("plugin", [Nudges, HalvesTheRate])
def test_what_changes_training_says_so_beside_what_it_mutates(
    plugin: type[Any], assert_plugin_conforms: Callable[..., None]
) -> None:
    others = set(CHECKS) - {"signatures", "mutation"}
    with pytest.raises(
        AssertionError, match=r"otherwise: .*; say `alters_training = T"
    ):
        assert_plugin_conforms(plugin, skip=others)
    says = type("Says", (plugin,), {"alters_training": True})
    assert_plugin_conforms(says, skip=others)


class EndsBeforeAStep(Named):
    def on_train_begin(self, trainer: Any) -> None:
        trainer.request_stop("nothing is left to do")


def test_who_ends_a_run_before_its_first_step_conforms(
    assert_plugin_conforms: Callable[..., None],
) -> None:
    others = set(CHECKS) - {"signatures", "resume"}
    assert_plugin_conforms(EndsBeforeAStep, skip=others)


class FailsByItself(Named):
    def on_step_end(self) -> None:
        raise ConnectionError("nobody listens")


class FailsBesideOne(Named):
    @hookimpl(wrapper=True)
    def evaluate(self) -> Any:
        try:
            return (yield)
        except BaseException:
            raise ConnectionError("nobody listens") from None


@pytest.mark.parametrize("plugin", [FailsByItself, FailsBesideOne])
def test_what_a_plugin_raises_by_itself_is_told_once_and_hides_no_neighbour_s(
    plugin: type[Any], assert_plugin_conforms: Callable[..., None]
) -> None:
    checks = {"signatures", "state", "neighbours"}
    with pytest.raises(AssertionError) as raised:
        assert_plugin_conforms(plugin, skip=set(CHECKS) - checks)
    told = str(raised.value).splitlines()[1:]
    if plugin is FailsByItself:
        assert len(told) == 1
        assert told[0].startswith("state: ConnectionError: nobody listens raised by")
    else:
        words = "neighbours: when a neighbour raises in evaluate: then its wrapper"
        assert all(each.startswith(words) for each in told)


def test_a_state_that_is_no_mapping_is_told_once(
    assert_plugin_conforms: Callable[..., None],
) -> None:
    with pytest.raises(AssertionError) as raised:
        # Who saves is told by the save.
        assert_plugin_conforms(ReturnsAList, skip=["resume", "neighbours"])
    assert str(raised.value).split("\n")[1:] == [
        "state: state_dict returned list; return a mapping"
    ]


class AddsNoise(Callback):
    """Changes its batches in place, and carries nothing."""

    name = "noise"
    hook_api = ">=1.0,<2"
    mutates = ("rng",)
    alters_training = True

    def on_batch_begin(self, inputs: Any) -> None:
        inputs[0].add_(torch.randn_like(inputs[0]))


def test_a_batch_that_is_changed_in_place_is_no_state(
    assert_plugin_conforms: Callable[..., None],
) -> None:
    assert_plugin_conforms(AddsNoise)


@pytest.mark.parametrize(
    "plugin", [AveragesWholeEpochs, AveragesByLosses, PutsThemBack]
)
def test_who_leaves_out_parts_of_epochs_or_swaps_in_a_try_conforms(
    plugin: type[Any], assert_plugin_conforms: Callable[..., None]
) -> None:
    assert_plugin_conforms(plugin)


class Deaf(Callback):
    """Means a hook, and has the name of another trainer's."""

    hook_api = ">=1.0,<2"

    def train_begin(self) -> None: ...


@pytest.mark.parametrize(
    "words", ["'train_begin', which is no hook and is never called", "hears nothing"]
)
def test_what_the_bus_warns_of_is_remarked_on(
    words: str, assert_plugin_conforms: Callable[..., None]
) -> None:
    with pytest.warns(
        UserWarning, match="the plugin conforms, but plugin 'Deaf'"
    ) as told:
        assert_plugin_conforms(Deaf, skip=set(CHECKS) - {"signatures"})
    assert words in "\n".join(str(each.message) for each in told)
