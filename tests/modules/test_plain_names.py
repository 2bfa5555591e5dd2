"""Weights go by the names they have where nothing is wrapped or compiled."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from toy import Regression, make_trainer

from training import ConfigError
from training.modules.plain_names import as_plain, plain_name, weights_of
from training.modules.unsaved_holders import UnsavedHolders
from training.modules.unsaved_numbers import UnsavedNumbers


def plain() -> nn.Module:
    return Regression()


def part_compiled() -> nn.Module:
    model = Regression()
    model.layers[0] = torch.compile(model.layers[0], backend="eager")
    return model


def part_compiled_in_place() -> nn.Module:
    model = Regression()
    model.layers[0].compile(backend="eager")
    return model


def part_parallel() -> nn.Module:
    model = Regression()
    # As torch makes it without a GPU, also beside one, where it would move the layer.
    wrapper: Any = nn.DataParallel.__new__(nn.DataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module, wrapper.device_ids = model.layers[3], []
    model.layers[3] = wrapper
    return model


def whole_compiled() -> nn.Module:
    return torch.compile(part_compiled(), backend="eager")  # type: ignore[return-value]


def twice() -> nn.Module:
    model = part_parallel()
    model.layers = torch.compile(model.layers, backend="eager")
    return model


WAYS: list[Callable[[], nn.Module]] = [
    plain,
    part_compiled,
    part_compiled_in_place,
    part_parallel,
    whole_compiled,
    twice,
]


@pytest.mark.parametrize("saved", WAYS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("loaded", WAYS, ids=lambda make: make.__name__)
def test_a_run_is_resumed_however_its_parts_are_wrapped(
    tmp_path: Path, saved: Callable[[], nn.Module], loaded: Callable[[], nn.Module]
) -> None:
    before, after = make_trainer(saved(), seed=1), make_trainer(loaded(), seed=1)
    before.train()
    before.save_checkpoint(tmp_path / "a.pt")
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    Regression().load_state_dict(state["model"])
    assert state["model"].keys() == Regression().state_dict().keys()
    names = [n for n, _ in Regression().named_parameters()]
    assert state["optimizer"]["names"] == [[f"model.{name}" for name in names]]
    after.load_checkpoint(tmp_path / "a.pt")
    weights = weights_of(after.model)
    assert all(torch.equal(weights[n], v) for n, v in state["model"].items())


#: Names of compiled parts are read by all; those of parallel parts by the same model.
OLDER = [
    *itertools.product([part_compiled, whole_compiled, plain], WAYS),
    (part_parallel, part_parallel),
]


@pytest.mark.parametrize(("saved", "loaded"), OLDER, ids=lambda make: make.__name__)
def test_names_in_an_older_file_are_read(
    saved: Callable[[], nn.Module], loaded: Callable[[], nn.Module]
) -> None:
    old = saved().state_dict()
    assert as_plain(loaded(), old).keys() == Regression().state_dict().keys()


def test_a_part_that_is_called_like_a_wrappers_is_left_alone() -> None:
    inner = nn.Module()
    inner.module = nn.Linear(1, 1)
    model = nn.DataParallel(inner, device_ids=[])
    assert plain_name(model, "module.module.weight") == "module.weight"
    saved = weights_of(model)
    assert as_plain(model, saved).keys() == {"module.weight", "module.bias"}


class Expanded(Regression):
    """Has a frozen parameter and a mask whose elements share memory."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1).expand(3), requires_grad=False)
        self.register_buffer("mask", torch.ones(1, 3).expand(2, 3))


def test_what_is_expanded_is_loaded_into_memory_of_its_own(tmp_path: Path) -> None:
    before, after = make_trainer(Expanded()), make_trainer(Expanded())
    before.model.mask = torch.arange(6.0).view(2, 3)
    before.train()
    before.save_checkpoint(tmp_path / "a.pt")
    mask, scale = after.model.mask, after.model.scale
    after.load_checkpoint(tmp_path / "a.pt")
    assert after.model.mask is mask
    assert after.model.scale is scale
    assert torch.equal(mask, before.model.mask)
    assert torch.equal(scale, torch.ones(3))


def test_an_expanded_parameter_stands_while_the_loss_is_measured() -> None:
    trainer = make_trainer(Expanded(), gradient_accumulation_steps=3)
    trainer.train()
    assert trainer.model.scale.stride() == (0,)


def test_an_expanded_parameter_to_train_is_refused_when_it_is_passed() -> None:
    model = Expanded()
    model.scale.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"shape \(3,\) .* share memory.* clone\(\)"):
        make_trainer(model)
    model.scale.data = model.scale.data.clone()
    make_trainer(model)


class Cools(nn.Linear):
    """Moves a number that no checkpoint holds."""

    heat = 1.0

    def forward(self, x: Tensor) -> Tensor:
        self.heat *= 0.9
        return super().forward(x * self.heat)


def test_a_number_of_a_wrapped_model_is_warned_of_by_the_name_that_it_has_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = nn.DataParallel(Cools(1, 1))
    numbers = UnsavedNumbers(UnsavedHolders({"model": model}, SGD(model.parameters())))
    for _ in range(4):
        model(torch.ones(1, 1))
        numbers.warn_of_moved()
    assert "attributes or variables: model.heat;" in caplog.text
