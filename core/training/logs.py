"""Logs that cost a device read only when somebody looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from training.hardware.readback import Readback

if TYPE_CHECKING:
    from torch import Tensor


class LazyLogs(Mapping[str, float]):
    """A read-only mapping of names to floats whose tensors are read on look-up.

    Args:
        values: 0-d tensors, on any device, or floats. A tensor is replaced by its
            float at the first look-up; on CUDA that one read makes the CPU wait,
            which ``later`` avoids.
    """

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, Tensor | float]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> float:
        value = self._values[name]
        if not isinstance(value, float):
            value = self._values[name] = float(value)
        return value

    def later(self, name: str) -> Readback:
        """Return the value of ``name`` on its way, for one who need not know it now.

        It never makes the CPU wait: ask ``is_here`` at a later event, and then read
        ``value()``. On a CPU it is here at once.
        """
        return Readback(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(dict(self))
