"""What plugins may ask of the state that a loss keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn


class LossState(Protocol):
    """What the loss keeps beside the model: what ``loss_fn`` or ``step_fn`` holds.

    Attributes:
        generators: random generators among it, by place.
    """

    generators: dict[str, Any]

    def modules(self) -> dict[str, nn.Module]:
        """Return ``{"loss": module}`` for a loss that is a module, else nothing."""

    def held_modules(self) -> dict[str, nn.Module]:
        """Return every module that it is or holds, by place below ``loss``."""

    def tensors(self) -> dict[str, Any]:
        """Return its parameters and buffers (the objects) and extra state, by name."""

    def state_dict(self) -> dict[str, Any]:
        """Return the values by name; tensors are not copied."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over values, in place, of the names and shapes of ``tensors()``."""
