"""The kit tells what a hook reads of the device from what it reads of the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from training import Callback
from training.testing import CHECKS, assert_plugin_conforms

#: All checks but the one that this is about.
OTHERS = [name for name in CHECKS if name != "device reads"]


class Reads(Callback):
    name = "reads"
    hook_api = ">=1.0,<2"

    def on_batch_begin(self, trainer: Any, inputs: Any) -> None:
        self.share = float(self.value(trainer, inputs))

    def value(self, trainer: Any, inputs: Any) -> Any:
        raise NotImplementedError


class ADraw(Reads):
    def value(self, trainer: Any, inputs: Any) -> Any:
        return torch.distributions.Beta(0.4, 0.4).sample()


class ADrawOfTheHost(Reads):
    def value(self, trainer: Any, inputs: Any) -> Any:
        return torch.rand(3).to(torch.float64).max().item()


class ADrawOnTheDevice(Reads):
    def value(self, trainer: Any, inputs: Any) -> Any:
        return torch.rand((), device=trainer.device)


class ADrawThatIsMoved(Reads):
    def value(self, trainer: Any, inputs: Any) -> Any:
        return torch.rand(()).to(trainer.device) * 2


class ADrawAndTheBatch(Reads):
    def value(self, trainer: Any, inputs: Any) -> Any:
        return (inputs[0] * torch.rand(())).sum()


class ADrawThatTakesOfTheBatch(Reads):
    def value(self, trainer: Any, inputs: Any) -> Any:
        drawn = torch.zeros(2)
        drawn[0] = inputs[0].sum()
        return drawn.tolist()[0]


@pytest.mark.parametrize("plugin", [ADraw, ADrawOfTheHost])
def test_a_number_that_a_hook_draws_on_the_host_makes_no_gpu_wait(
    plugin: type[Reads], tmp_path: Path
) -> None:
    assert_plugin_conforms(plugin, folder=tmp_path, skip=OTHERS)


@pytest.mark.parametrize(
    "plugin",
    [ADrawOnTheDevice, ADrawThatIsMoved, ADrawAndTheBatch, ADrawThatTakesOfTheBatch],
)
def test_a_number_of_the_device_that_a_hook_reads_is_told(
    plugin: type[Reads], tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match="on_batch_begin reads the device in 30"):
        assert_plugin_conforms(plugin, folder=tmp_path, skip=OTHERS)
