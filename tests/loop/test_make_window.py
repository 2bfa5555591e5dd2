"""A plugin may choose what accumulates batches and steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from toy import make_trainer, regression_batches, weights_of

from training import Callback, PluginError, Trainer, hookimpl
from training.hardware.optimizer_kernels import prepare_momentum
from training.loop.single_window import SingleWindow
from training.plugin import Strategy, UnreadWindow, Window, why_not_deferred


class Counting(Window):
    """Steps as the kernel's window does, and counts."""

    steps = 0

    def step(self, before_step: Any = None) -> Any:
        self.steps += 1
        return super().step(before_step)


class Chooses(Callback):
    """Answers with what it was given, and notes what it was asked."""

    hook_api = ">=1.1,<2"

    def __init__(self, name: str, made: Any = None) -> None:
        self.name, self.made = name, made  # type: ignore[misc]
        self.asked: list[Any] = []

    def make_window(self, trainer: Trainer, module: nn.Module, default: Any) -> Any:
        self.asked.append((trainer, module, default))
        return self.made


def trained(*plugins: Any) -> Trainer:
    trainer = make_trainer(None, regression_batches(3), *plugins)
    trainer.train()
    return trainer


def test_the_first_plugin_that_answers_chooses_the_window() -> None:
    silent, first, last = Chooses("a"), Chooses("b", Counting), Chooses("c", Window)
    trainer = trained(last, first, silent)
    window = trainer._run.window
    assert isinstance(window, Counting)
    assert window.steps == trainer.step == 3
    assert silent.asked == first.asked == [(trainer, trainer.model, SingleWindow)]
    assert last.asked == []


def test_who_was_not_asked_for_a_window_is_named(caplog: Any) -> None:
    trained(Chooses("a"), Chooses("b", Counting), Chooses("c", Window))
    (said,) = [r.message for r in caplog.records if "make_window" in r.message]
    assert said.endswith("of plugin 'b', which comes first; not asked: c")


class MayFail(Chooses):
    failure = "isolate"


def test_where_a_window_that_may_fail_cannot_be_made_the_next_one_is(
    caplog: Any,
) -> None:
    def fails(*arguments: Any) -> Any:
        raise ZeroDivisionError

    for made in (fails, lambda *arguments: None):
        trainer = trained(MayFail("a", made), Chooses("b", Counting))
        assert isinstance(trainer._run.window, Counting)
    assert "the window is" not in caplog.text


def test_a_window_of_one_plugin_needs_no_word(caplog: Any) -> None:
    trained(Chooses("a"), Chooses("b", Counting))
    assert "the window is" not in caplog.text


class Two(Strategy):
    """Two processes, whose window counts."""

    window = Counting

    @property
    def size(self) -> int:
        return 2


class Divides(Callback):
    """Lets two processes compute a run."""

    hook_api = ">=1.1,<2"

    def make_strategy(self) -> Two:
        return Two()


def test_a_window_that_knows_of_no_other_process_is_refused() -> None:
    for of_window in (Chooses("a", Window), MayFail("a", Window)):
        with pytest.raises(
            PluginError, match=r"'a' has made the window.*1 of 2 processes"
        ):
            trained(Divides(), of_window, Chooses("b", Counting))
    trained(Divides(), Chooses("a", Counting))
    with pytest.raises(
        PluginError, match=r"no plugin has made the window .* a Counting"
    ):
        trained(Divides())


def test_where_none_answers_the_window_is_the_kernels_own() -> None:
    asked = trained(Chooses("a"))
    assert type(asked._run.window) is type(trained()._run.window) is SingleWindow


def test_a_window_that_does_the_same_ends_in_the_same_weights() -> None:
    runs = [weights_of(trained(*plugins).model) for plugins in ((), (Chooses("a"),))]
    runs.append(weights_of(trained(Chooses("a", Counting)).model))
    for left, *others in zip(*runs, strict=True):
        assert all(torch.equal(left, other) for other in others)


def test_it_is_told_the_window_for_a_device_that_answers_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.hardware.readback.reads_wait", lambda device: True)
    chooses, trainer = Chooses("a"), make_trainer(None, regression_batches(2))
    options = {"lr": 0.1, "fused": True}
    optimizer = torch.optim.SGD(trainer.model.parameters(), **options)
    Trainer(
        trainer.model, regression_batches(2), optimizer=optimizer, callbacks=[chooses]
    ).train()
    assert chooses.asked[0][2] is UnreadWindow


def test_it_is_asked_between_setup_and_metric_names_of_the_module_in_its_wrappers() -> (
    None
):
    heard: list[Any] = []

    class Hears:
        @hookimpl
        def wrap_model(self, model: nn.Module) -> nn.Module:
            heard.append("wrap_model")
            return Wraps(model)

        @hookimpl
        def wrap_dataloader(self, stage: str) -> None:
            heard.append("wrap_dataloader")

        @hookimpl
        def on_setup(self) -> None:
            heard.append("on_setup")

        @hookimpl
        def make_window(self, module: nn.Module) -> None:
            heard.append(f"make_window {type(module).__name__}")

        @hookimpl
        def metric_names(self) -> None:
            heard.append("metric_names")

        @hookimpl
        def on_train_begin(self) -> None:
            heard.append("on_train_begin")

    trained(Hears())
    assert heard == [
        *("wrap_model", "wrap_dataloader", "on_setup", "make_window Wraps"),
        *("metric_names", "on_train_begin"),
    ]


class Wraps(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Any) -> Any:
        return self.inner(*inputs)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param("fast", id="a name"),
        pytest.param(object(), id="an object"),
        pytest.param(lambda *given: given, id="a function that makes another thing"),
    ],
)
def test_what_makes_no_window_is_refused_by_name_before_a_step(made: Any) -> None:
    class Closes(Chooses):
        closed = False

        def on_close(self) -> None:
            self.closed = True

    plugin = Closes("fast", made)
    trainer = make_trainer(None, regression_batches(3), plugin)
    with pytest.raises(PluginError, match=r"'fast' returned .* make_window"):
        trainer.train()
    assert trainer.step == 0
    assert plugin.closed


def test_an_error_in_the_choice_or_in_making_it_names_the_plugin_and_the_hook() -> None:
    class Fails(Chooses):
        def make_window(self, trainer: Any, module: Any, default: Any) -> Any:
            raise ValueError("no room")

    class MakesNone(Window):
        def __init__(self, *parts: Any) -> None:
            raise ValueError("no room")

    silent, greedy = Chooses("silent"), Chooses("greedy", MakesNone)
    for plugins in ((Fails("greedy"),), (silent, greedy), (greedy, silent)):
        with pytest.raises(ValueError, match="no room") as caught:
            trained(*plugins)
        assert "'greedy'" in caught.value.__notes__[0]
        assert "in make_window" in caught.value.__notes__[0]


def test_of_a_plugin_that_may_fail_the_window_is_left_to_the_next() -> None:
    class MayFail(Chooses):
        failure = "isolate"

    fails, next_one = MayFail("fails", "fast"), Chooses("next", Counting)
    assert isinstance(trained(fails, next_one)._run.window, Counting)
    assert type(trained(MayFail("fails", "fast"))._run.window) is SingleWindow


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        pytest.param("AdamW", {}, "build it with fused=True", id="not built so"),
        pytest.param("RMSprop", {}, "has no fused kernel", id="none there is"),
        pytest.param(
            *("SGD", {"momentum": 0.9, "dampening": 0.1, "fused": True}),
            "its dampening forbids",
            id="one that cannot be kept",
        ),
        pytest.param("AdamW", {"fused": True}, None, id="fused"),
    ],
)
def test_why_the_host_waits_for_an_optimizer_is_said_with_what_to_do(
    kind: str, options: dict[str, Any], says: str | None
) -> None:
    optimizer = getattr(torch.optim, kind)(nn.Linear(1, 1).parameters(), **options)
    prepare_momentum(optimizer)
    why = why_not_deferred(optimizer, "stop")
    assert why is None if says is None else says in (why or "")
