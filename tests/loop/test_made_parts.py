"""A failed run names the plugin whose window, engine or wrapper has raised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from toy import make_trainer

from training import Callback, ConfigError, Trainer
from training.plugin import Strategy, Window


def broken() -> None:
    """Raise, as a helper does that a part calls."""
    raise OSError("broken")


class OddWindow(Window):
    """Fails by itself in the second step."""

    def step(self, *given: Any) -> Any:
        if self.steps:
            broken()
        self.steps += 1
        return super().step(*given)

    steps = 0


class PlainWindow(Window):
    """Passes everything on."""

    def backward(self, *given: Any) -> Any:
        return super().backward(*given)


class OddStrategy(Strategy):
    """Cannot place a model."""

    def place(self, *given: Any) -> Any:
        broken()


class OddEngine(Strategy):
    """Fails when the forward pass is set up."""

    def wrap_forward(self, *given: Any) -> Any:
        broken()


class Wrapper(nn.Module):
    """Fails, or lets the model fail."""

    def __init__(self, module: nn.Module, fails: bool) -> None:
        super().__init__()
        self.module, self.fails = module, fails

    def forward(self, batch: Any) -> Any:
        if self.fails:
            broken()
        return self.module(batch)


class OddModel(nn.Linear):
    """Fails by itself."""

    def forward(self, batch: Any) -> Any:
        broken()


def wrapping(fails: bool) -> Callback:
    """Return a plugin that wraps the model."""

    class Wraps(Callback):
        name = "makes"

        def wrap_model(self, model: nn.Module) -> nn.Module:
            return Wrapper(model, fails)

    return Wraps()


def making(hook: str, part: Any) -> Callback:
    """Return a plugin that answers ``hook`` with ``part``."""

    def method(self: Callback) -> Any:
        return part

    body = {hook: method, "name": "makes", "hook_api": ">=1.1,<2"}
    return type("Makes", (Callback,), body)()


def notes_of(*plugins: Callback, model: nn.Module | None = None, **options: Any) -> str:
    """Train until it fails; return what stands on the error."""
    x, y = torch.randn(4, 3), torch.randn(4, 1)
    with pytest.raises(OSError, match="broken") as caught:
        make_trainer(
            model or nn.Linear(3, 1),
            [(x, y)] * 3,
            *plugins,
            loss_fn=nn.functional.mse_loss,
            **options,
        ).train()
    return "\n".join(getattr(caught.value, "__notes__", ()))


@pytest.mark.parametrize(
    ("plugin", "told"),
    [
        (
            lambda: making("make_window", OddWindow),
            "OddWindow.step, which its make_window has made, at step 1",
        ),
        (
            lambda: making("make_strategy", OddStrategy()),
            "OddStrategy.place, which its make_strategy has made, at step 0",
        ),
        (
            lambda: making("make_strategy", OddEngine()),
            "OddEngine.wrap_forward, which its make_strategy has made, at step 0",
        ),
        (
            lambda: wrapping(fails=True),
            "Wrapper.forward, which its wrap_model has made, at step 0",
        ),
    ],
    ids=["a window", "an engine that is built", "an engine in a run", "a wrapper"],
)
def test_the_maker_of_a_part_that_raises_is_named(
    plugin: Callable[[], Callback], told: str
) -> None:
    found = notes_of(plugin())
    assert "raised by plugin 'makes' (" in found
    assert told in found
    assert found.count("raised by plugin") == 1


class Raises(Callback):
    """Fails in a hook that is called inside of a window."""

    def on_before_step(self) -> None:
        broken()


@pytest.mark.parametrize(
    ("plugins", "model"),
    [
        (lambda: [making("make_window", PlainWindow)], OddModel),
        (lambda: [wrapping(fails=False)], OddModel),
    ],
    ids=["in a window", "in a wrapper"],
)
def test_a_model_that_raises_inside_of_a_part_blames_nobody(
    plugins: Callable[[], list[Callback]], model: type[nn.Module]
) -> None:
    assert "raised by plugin" not in notes_of(*plugins(), model=model(3, 1))


class Asks(Callback):
    """Lets main do what fails."""

    def on_batch_end(self, trainer: Trainer) -> None:
        trainer.strategy.on_main(broken)


def test_what_a_plugin_lets_an_engine_do_is_its_own() -> None:
    class Engine(Strategy):
        def on_main(self, work: Callable[[], Any]) -> Any:
            return work()

    found = notes_of(making("make_strategy", Engine()), Asks())
    assert "raised by plugin 'Asks'" in found
    assert "makes" not in found


def test_a_hook_that_raises_inside_of_a_part_is_blamed_itself() -> None:
    found = notes_of(making("make_window", PlainWindow), Raises())
    assert "raised by plugin 'Raises'" in found
    assert "makes" not in found


def test_what_a_part_refuses_in_a_sentence_stands_alone() -> None:
    class Refuses(Strategy):
        def place(self, *given: Any) -> Any:
            raise ConfigError("two GPUs are needed")

    with pytest.raises(ConfigError) as caught:
        make_trainer(None, None, making("make_strategy", Refuses()))
    assert not getattr(caught.value, "__notes__", ())


class Rows(Dataset[Any]):
    """Eight rows; the sixth is broken, or raises inside of another data set."""

    def __init__(self, inner: Any = None) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        if self.inner is not None:
            return self.inner[index]
        if index == 5:
            broken()
        return torch.zeros(3), torch.zeros(1)


class PassesOn:
    """Gives out the batches of a loader inside."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Any:
        yield from self.loader


def collate(rows: Any) -> Any:
    broken()


def loading(make: Callable[[Any], Any], loader: Any) -> str:
    """Train on what a plugin makes of ``loader``; return what stands on the error."""

    class Wraps(Callback):
        name = "makes"

        def wrap_dataloader(self, dataloader: Any) -> Any:
            return make(dataloader)

    loss = nn.functional.mse_loss
    with pytest.raises(OSError, match="broken") as caught:
        make_trainer(nn.Linear(3, 1), loader, Wraps(), loss_fn=loss).train()
    return "\n".join(getattr(caught.value, "__notes__", ()))


MADE_OF_USERS: dict[str, Callable[[Any], Any]] = {
    "batches that are passed on": PassesOn,
    "another loader over the data set": lambda o: DataLoader(o.dataset, batch_size=2),
    "a data set around it": lambda o: DataLoader(Rows(o.dataset), batch_size=2),
    "the loader itself": lambda o: o,
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("make", MADE_OF_USERS.values(), ids=MADE_OF_USERS.keys())
def test_the_users_data_that_raise_inside_of_a_part_blame_no_plugin(
    make: Callable[[Any], Any], workers: int
) -> None:
    found = loading(make, DataLoader(Rows(), batch_size=2, num_workers=workers))
    assert "raised by plugin" not in found
    # What hides its indices tells no batch.
    assert ("while batch 2 of the epoch, samples" in found) is (make is not PassesOn)


MADE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a data set": (lambda _: DataLoader(Rows(), batch_size=2), "Rows.__getitem__"),
    "one in a worker": (
        lambda _: DataLoader(Rows(), batch_size=2, num_workers=1),
        "Rows",
    ),
    "a collate function": (
        lambda o: DataLoader(o.dataset, batch_size=2, collate_fn=collate),
        "collate",
    ),
}


@pytest.mark.parametrize(("make", "told"), MADE.values(), ids=MADE.keys())
def test_the_maker_of_a_loader_is_named_where_its_data_set_or_collation_raises(
    make: Callable[[Any], Any], told: str
) -> None:
    x, y = torch.zeros(8, 3), torch.zeros(8, 1)
    pairs: Any = list(zip(x, y, strict=True))
    found = loading(make, DataLoader(pairs, batch_size=2))
    assert "raised by plugin 'makes' (" in found
    assert f"{told}, which its wrap_dataloader has made, at step" in found
