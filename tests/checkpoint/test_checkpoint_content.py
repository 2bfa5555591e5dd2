"""What may enter a checkpoint, and what one must hold to be taken over."""

from __future__ import annotations

import enum
from collections import defaultdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy import Regression, make_trainer

from training import Callback, CheckpointError, ConfigError, PluginError, Trainer
from training.checkpoint.storable import foreign_value
from training.checkpoint_io import UnreadableError


class Colour(enum.IntEnum):
    RED = 1


class Keeps(Callback):
    """Keeps one value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"best": {"scores": [1.0, self.value]}}

    def load_state_dict(self, state: Any) -> None: ...


FOREIGN = {
    "a numpy number": np.float64(1.5),
    "an array": np.ones(2),
    "a path": Path("x"),
    "an enum": Colour.RED,
    "a defaultdict": defaultdict(int),
    "a view": MappingProxyType({}),
    "a class": Keeps,
}


@pytest.mark.parametrize("value", FOREIGN.values(), ids=FOREIGN)
def test_a_plugin_that_keeps_what_cannot_be_read_back_is_named_with_the_place(
    tmp_path: Path, value: Any
) -> None:
    trainer = make_trainer(None, None, Keeps(value))
    with pytest.raises(
        PluginError,
        match=r"plugin 'Keeps' returned .* best\['scores'\]\[1\] is .*cannot hold",
    ):
        trainer.save_checkpoint(tmp_path / "a.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", FOREIGN.values(), ids=FOREIGN)
def test_what_is_called_foreign_could_indeed_not_be_read(
    tmp_path: Path, value: Any
) -> None:
    """The negative control: without the check the loss would show on resuming."""
    assert foreign_value(value) is not None
    try:
        torch.save(value, tmp_path / "a.pt")
    except (TypeError, AttributeError):
        return
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        torch.load(tmp_path / "a.pt", weights_only=True)


def test_a_state_that_holds_itself_is_named_and_not_saved(tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(PluginError, match=r"'Keeps' .*inside of more than 100 lists"):
        make_trainer(None, None, Keeps(endless)).save_checkpoint(tmp_path / "a.pt")
    assert not list(tmp_path.iterdir())


def nested(levels: int) -> list[Any]:
    lists: list[Any] = []
    for _ in range(levels):
        lists = [lists]
    return lists


@pytest.mark.parametrize(("of", "deepest"), [("a plugin", 95), ("metadata", 98)])
def test_what_is_saved_however_deep_is_loaded(
    of: str, deepest: int, tmp_path: Path
) -> None:
    def holding(value: Any) -> Trainer:
        if of == "metadata":
            return make_trainer(None, None, metadata={"x": value})
        return make_trainer(None, None, Keeps(value))

    file = tmp_path / "a.pt"
    for levels in range(90, 105):
        if levels > deepest:
            with pytest.raises(ConfigError, match="inside of more than 100 lists"):
                holding(nested(levels)).save_checkpoint(file)
            continue
        holding(nested(levels)).save_checkpoint(file)
        holding(0).load_checkpoint(file)


def test_a_tuple_as_a_key_is_named_and_not_said_to_be_too_deep(tmp_path: Path) -> None:
    with pytest.raises(
        PluginError, match=r"a key of best.* is builtins.tuple \('a', 1\), .* as keys"
    ):
        make_trainer(None, None, Keeps({("a", 1): 2})).save_checkpoint(tmp_path / "a")


PLAIN = [
    None,
    True,
    2**70,
    1.5,
    1j,
    "text",
    b"bytes",
    (1, 2),
    {1, 2},
    {"a": [torch.ones(2)], 3: nn.Parameter(torch.ones(1))},
    torch.Size([2]),
    torch.float16,
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_what_is_called_plain_is_read_back(tmp_path: Path, value: Any) -> None:
    assert foreign_value(value) is None
    torch.save(value, tmp_path / "a.pt")
    torch.load(tmp_path / "a.pt", weights_only=True)


def test_foreign_metadata_and_extra_state_are_named(tmp_path: Path) -> None:
    class Extra(Regression):
        def get_extra_state(self) -> Any:
            return np.float64(1)

        def set_extra_state(self, state: Any) -> None:
            raise AssertionError

    trainer = make_trainer(Extra(), None)
    with pytest.raises(CheckpointError, match=r"model\['_extra_state'\] is numpy"):
        trainer.save_checkpoint(tmp_path / "a.pt")
    trainer = make_trainer(None, None)
    trainer.metadata["root"] = tmp_path  # passed, it is refused at once
    with pytest.raises(CheckpointError, match=r"metadata\['root'\] is pathlib"):
        trainer.save_checkpoint(tmp_path / "a.pt")


def damaged(state: dict[str, Any], change: str) -> None:
    """Remove a part, or put something of another type in its place."""
    path, _, value = change.partition("=")
    *outer, last = path.split(".")
    for name in outer:
        state = state[name]
    if value:
        state[last] = {"none": None, "text": "x"}[value]
    else:
        del state[last]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("rng", "rng is missing"),
        ("rng.python", "rng.python is missing"),
        ("rng.torch=text", "rng.torch is str"),
        ("progress.step", "progress.step is missing"),
        ("progress.batch=none", "progress.batch is NoneType"),
        ("optimizer=none", "optimizer is NoneType"),
        ("optimizer.param_groups", "optimizer.param_groups is missing"),
        ("plugins", "plugins is missing"),
        ("history=none", "history is NoneType"),
        ("format_version=text", "format 'x', which is no number"),
    ],
)
def test_a_file_of_ours_that_lacks_a_part_is_unreadable_and_nothing_is_touched(
    tmp_path: Path, change: str, problem: str
) -> None:
    path = tmp_path / "a.pt"
    make_trainer(None, None).save_checkpoint(path)
    state = torch.load(path, weights_only=True)
    damaged(state, change)
    torch.save(state, path)
    trainer = make_trainer(None, None)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.zero_()
    with pytest.raises(UnreadableError, match=problem):
        trainer.load_checkpoint(path)
    assert all(not parameter.any() for parameter in trainer.model.parameters())
