"""Name what modules, an optimizer or a loss count in Python: in no checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from training.modules.plain_names import plain_name, some

__all__ = ["UnsavedNumbers"]

log = logging.getLogger(__name__)


class UnsavedNumbers:
    """The numbers among plain attributes, as they are when it is made.

    Not those of torch's own classes, nor of a module that has a ``get_extra_state``, or
    an optimizer that has a ``state_dict`` of its own.

    Args:
        modules: part -> module, such as the model.
        optimizer: that of the run.
        beside: returns what tells whether others have moved, by name and object.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        optimizer: Optimizer | None = None,
        beside: Callable[[], Mapping[tuple[str, int], Any]] = dict,
    ) -> None:
        self._modules, self._optimizer, self._beside = dict(modules), optimizer, beside
        self._before = self._numbers()
        self._moved: set[tuple[str, int]] = set()

    def warn_of_moved(self) -> None:
        """Warn, once, of those that have moved between saves, twice in a row.

        Once alone may be a cache that has been filled; it is filled again.
        """
        now = self._numbers()
        moved = {
            name for name, value in now.items() if self._before.get(name) != value
        } & self._before.keys()
        self._before = now
        if not moved:  # nothing was trained since the last save
            return
        if again := sorted({name for name, _ in moved & self._moved}):
            log.warning(
                "training moves numbers that no checkpoint holds, since they are plain "
                "attributes or variables: %s; a resumed run begins with others; keep "
                "each of a module in a buffer, or return it from get_extra_state(), "
                "each of the optimizer in a group or in its state, and each of a "
                "step_fn or loss_fn in a buffer of a module that it uses",
                some(again),
            )
            self._modules, self._optimizer, self._beside = {}, None, dict
        self._moved = moved

    def _numbers(self) -> dict[tuple[str, int], Any]:
        numbers: dict[tuple[str, int], Any] = {
            (f"{holder}.{name}", 0): value
            for holder, attributes in self._holders()
            for name, value in attributes.items()
            if type(value) in (int, float)
        }
        # NaN, which differs from itself, is none.
        return {
            name: value
            for name, value in (numbers | dict(self._beside())).items()
            if value == value
        }

    def _holders(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield name and attributes of each that no checkpoint asks for its numbers."""
        for part, whole in self._modules.items():
            for path, module in whole.named_modules():
                is_saved = _is_own(module, nn.Module, "get_extra_state")
                if not is_saved and not _is_of_torch(module):
                    name = f"{part}.{plain_name(whole, path)}" if path else part
                    yield name, vars(module)
        optimizer = self._optimizer
        if not isinstance(optimizer, Optimizer) or _is_of_torch(optimizer):
            return
        if not _is_own(optimizer, Optimizer, "state_dict"):
            yield "optimizer", vars(optimizer)


def _is_own(holder: Any, base: type, method: str) -> bool:
    return getattr(type(holder), method) is not getattr(base, method)


def _is_of_torch(holder: Any) -> bool:
    return type(holder).__module__.startswith("torch.")
