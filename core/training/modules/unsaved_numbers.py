"""Name the numbers that modules count in Python, which no checkpoint holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import nn

from training.modules.plain_names import plain_name, some

__all__ = ["UnsavedNumbers"]

log = logging.getLogger(__name__)


class UnsavedNumbers:
    """The numbers among the plain attributes of modules, as they are when it is made.

    Not those of torch's own modules, nor of one that has a ``get_extra_state``.

    Args:
        modules: part -> module, such as the model.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = dict(modules)
        self._before = self._numbers()
        self._moved: set[str] = set()

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
        if again := sorted(moved & self._moved):
            log.warning(
                "training moves numbers that no checkpoint holds, since they are plain "
                "attributes of modules: %s; a resumed run begins with others; keep "
                "each in a buffer, or return it from get_extra_state()",
                some(again),
            )
            self._modules = {}
        self._moved = moved

    def _numbers(self) -> dict[str, int | float]:
        found = {}
        for part, whole in self._modules.items():
            for path, module in whole.named_modules():
                kind = type(module)
                is_saved = kind.get_extra_state is not nn.Module.get_extra_state
                if is_saved or kind.__module__.startswith("torch."):
                    continue
                for name, value in vars(module).items():
                    # NaN, which differs from itself, is none.
                    if type(value) in (int, float) and value == value:
                        full = f"{path}.{name}" if path else name
                        found[f"{part}.{plain_name(whole, full)}"] = value
        return found
