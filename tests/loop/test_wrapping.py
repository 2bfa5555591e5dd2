"""Two plugins that wrap the model: one around the other, in bus order."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy import Regression, make_trainer

from training import Callback, PluginError, hookimpl
from training.plugin import read_checkpoint


class Wrapper(nn.Module):
    """Calls the module inside, and notes whose it is."""

    def __init__(self, owner: str, inner: nn.Module, heard: list[str]) -> None:
        super().__init__()
        self.owner, self.inner, self.heard = owner, inner, heard

    def forward(self, *arguments: Any) -> Any:
        self.heard.append(self.owner)
        return self.inner(*arguments)


class Wraps(Callback):
    """Puts the model into a wrapper of its own, or leaves it."""

    def __init__(
        self, name: str, heard: list[str], after: tuple[str, ...] = ()
    ) -> None:
        self.name, self.heard = name, heard  # type: ignore[misc]
        self.after = after  # type: ignore[misc]

    def wrap_model(self, model: nn.Module) -> nn.Module | None:
        if self.name.startswith("leaves"):
            return None
        return Wrapper(self.name, model, self.heard)


class Old:
    """As written for hook API 1.0: marked, and of one argument."""

    hook_api = ">=1.0,<2"
    name = "old"

    @hookimpl
    def wrap_model(self, model: nn.Module) -> nn.Module:
        return nn.Sequential(model)  # the loop calls it with one argument


@pytest.mark.parametrize(
    ("plugins", "outside_in"),
    [
        pytest.param({"a": (), "b": ()}, ["b", "a"], id="by name"),
        pytest.param({"a": ("b",), "b": ()}, ["a", "b"], id="as declared"),
        pytest.param({"a": (), "leaves": (), "z": ()}, ["z", "a"], id="None leaves it"),
        pytest.param({"a": ()}, ["a"], id="one alone"),
        pytest.param({"leaves": ()}, [], id="nobody"),
    ],
)
def test_each_wraps_what_the_one_before_returned(
    plugins: dict[str, tuple[str, ...]],
    outside_in: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[str] = []
    model = Regression()
    wraps = [Wraps(name, heard, after) for name, after in plugins.items()]
    trainer = make_trainer(model, None, *reversed(wraps), max_steps=2)
    with caplog.at_level(logging.INFO, "training"):
        trainer.train()
    assert heard == outside_in * 2
    assert trainer.model is model
    told = [line for line in caplog.messages if " puts " in line]
    assert [line.split("'")[1] for line in told] == outside_in[::-1]
    state = read_checkpoint(trainer.save_checkpoint(tmp_path / "c.pt"))
    assert list(state["model"]) == list(Regression().state_dict())


def test_wrapped_twice_it_trains_as_unwrapped() -> None:
    plain, wrapped = Regression(), Regression()
    make_trainer(plain).train()
    make_trainer(wrapped, None, Wraps("a", []), Wraps("b", [])).train()
    for one, other in zip(plain.parameters(), wrapped.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_wrapper_written_for_1_0_takes_part() -> None:
    heard: list[str] = []

    def step(model: nn.Module, batch: Any) -> torch.Tensor:
        assert [type(each).__name__ for each in model.children()][:1] == ["Wrapper"]
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    model = nn.Sequential(nn.Linear(4, 1))
    plugins = Wraps("a", heard), Old()
    make_trainer(model, None, *plugins, step_fn=step, max_steps=1).train()
    assert heard == ["a"]


class Odd(Wraps):
    """Returns a name, or fails."""

    def wrap_model(self, model: nn.Module) -> Any:
        if self.name == "fails":
            raise RuntimeError("cannot wrap")
        return "ddp"


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("odd", PluginError, "plugin 'odd' returned str from wrap_model"),
        ("fails", RuntimeError, "cannot wrap"),
    ],
)
def test_of_several_the_one_at_fault_is_named(
    name: str, error: type[Exception], words: str
) -> None:
    plugins = Wraps("a", []), Odd(name, []), Wraps("z", [])
    with pytest.raises(error, match=words) as caught:
        make_trainer(None, None, *plugins).train()
    assert f"raised by plugin '{name}'" in caught.value.__notes__[0]
    assert "in wrap_model" in caught.value.__notes__[0]


def test_an_isolated_one_that_fails_leaves_the_others_wrapped() -> None:
    heard: list[str] = []
    odd = Odd("fails", [])
    odd.failure = "isolate"  # type: ignore[misc]
    plugins = Wraps("a", heard), odd, Wraps("z", heard)
    make_trainer(None, None, *plugins, max_steps=1).train()
    assert heard == ["z", "a"]


class Adds(Callback):
    """Adds its number to the inputs of every batch, in some stages."""

    def __init__(self, name: str, number: float, *stages: str) -> None:
        self.name, self.number, self.stages = name, number, stages  # type: ignore[misc]
        self.given: list[tuple[str, float]] = []

    def wrap_dataloader(self, dataloader: Any, stage: str) -> Any:
        self.given.append((stage, float(dataloader[0][0][0, 0])))
        if stage not in self.stages:
            return None
        return [(inputs + self.number, targets) for inputs, targets in dataloader]


def test_each_plugin_wraps_the_loader_that_the_one_before_made() -> None:
    batches = [(torch.zeros(2, 4), torch.zeros(2, 1))] * 2
    first, last = Adds("a", 1.0, "train"), Adds("b", 10.0, "train", "validation")
    seen: list[float] = []

    class Sees(Callback):
        def on_batch_begin(self, inputs: Any) -> None:
            seen.append(float(inputs[0][0, 0]))

    trainer = make_trainer(
        None, batches, last, first, Sees(), val_dataloader={"x": batches, "y": batches}
    )
    trainer.train()
    assert first.given == [("train", 0.0), ("validation", 0.0), ("validation", 0.0)]
    assert last.given == [("train", 1.0), ("validation", 0.0), ("validation", 0.0)]
    assert seen == [11.0, 11.0]
    for loader in trainer.val_dataloader.values():
        assert float(loader[0][0][0, 0]) == 10.0
