"""Buffers that passes move in training: they follow the main process."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainbus_distributed.group import Group
from training.plugin import is_same_tensor

log = logging.getLogger(__name__)

#: How buffers part.
BY_PASSES = "move in training, by each process's part of a batch"
UNSEEN = "have come to differ, by a plugin, an evaluation or a pass without a trace"


class MovingBuffers:
    """Finds the modules whose buffers move in training, and keeps them the same.

    Each process's passes move them by its own part of a batch, so they would part. In
    the first window values are compared, as BatchNorm and ``buffer.data`` count no
    version; then versions, at about 3 us a buffer and window.

    Args:
        modules: the model and the modules of the loss, the same on each process.
        group: the processes.
    """

    def __init__(self, modules: Iterable[nn.Module], group: Group) -> None:
        parts = (part for module in modules for part in module.modules())
        self._parts = [part for part in dict.fromkeys(parts) if part._buffers]
        self._group = group
        #: Place of a module -> names, shapes and types, as all have agreed on.
        self._following: dict[int, Any] = {}
        self._left: set[int] = set()
        self._before: list[dict[str, Any]] = []
        self._values: list[dict[str, Tensor]] | None = None
        self._is_first = True
        self._moved: list[int] = []

    def begin(self) -> None:
        """Note what there is before the passes of a window."""
        self._before = list(map(_versions, self._parts))
        if self._is_first:
            self._values = [
                {
                    n: b.detach().clone()
                    for n, b in part._buffers.items()
                    if b is not None
                }
                for part in self._parts
            ]
            self._is_first = False

    @property
    def modules(self) -> set[nn.Module]:
        """Those of which passes have moved a buffer."""
        return {self._parts[place] for place in (*self._following, *self._left)}

    def have_news(self) -> bool:
        """Whether all are to ``agree`` on what follows: passes moved something new."""
        self._moved = [
            place
            for place, part in enumerate(self._parts)
            if (
                self._following[place] != _kinds(part)
                if place in self._following
                else self._has_moved(place)
            )
        ]
        self._values = None
        return bool(self._moved)

    def follow(self, parts: Sequence[nn.Module]) -> None:
        """Let main's hold where buffers have parted unseen; all call it with the same.

        Torch counts no version of what observers of quantisation write, among others.
        """
        self._parts += [part for part in parts if part not in self._parts]
        self._moved = [self._parts.index(part) for part in parts]
        self.agree(UNSEEN)
        self.share()

    def agree(self, how: str = BY_PASSES) -> None:
        """Let what has moved on any process follow main; all call it."""
        own = self._moved, list(map(_kinds, self._parts))
        found = self._group.gather(own, "of buffers")
        for place in sorted(set().union(*(moved for moved, _ in found))):
            kinds = [each[place] for _, each in found]
            is_same = all(kind == kinds[0] for kind in kinds)
            if not is_same:  # a cache, as wide as the part was
                self._following.pop(place, None)
            if is_same or place not in self._left:
                self._tell(place, how, is_same)
            if is_same:
                self._following[place] = kinds[0]
            else:
                self._left.add(place)

    def share(self) -> None:
        """Give all main's."""
        for place in self._following:
            buffers = self._parts[place]._buffers
            for name, buffer in buffers.items():
                if buffer is not None:
                    if not buffer.is_contiguous():  # a pass has put a view there
                        buffers[name] = buffer = buffer.contiguous()
                    self._group.share_main(buffer)

    def _has_moved(self, place: int) -> bool:
        before, now = self._before[place], _versions(self._parts[place])
        if before.keys() != now.keys() or any(
            then[0] is not now[name][0] or then[1] != now[name][1]
            for name, then in before.items()
        ):
            return True
        if self._values is None:
            return False
        values, part = self._values[place], self._parts[place]
        return not all(is_same_tensor(v, part.get_buffer(n)) for n, v in values.items())

    def _tell(self, place: int, how: str, is_same: bool) -> None:
        part = self._parts[place]
        if self._group.rank or isinstance(part, _BatchNorm):  # told of at the start
            return
        log.warning(
            "buffers of %s (%s) %s: "
            + (
                "they follow the main process, so they may differ from those of one "
                "process"
                if is_same
                else "their shapes differ between processes, so each keeps its own"
            ),
            type(part).__name__,
            ", ".join(part._buffers),
            how,
        )


def _versions(part: nn.Module) -> dict[str, tuple[Tensor | None, int]]:
    return {
        name: (b, 0 if b is None or b.is_inference() else b._version)
        for name, b in part._buffers.items()
    }


def _kinds(part: nn.Module) -> list[Any]:
    return [
        (name, None if b is None else (tuple(b.shape), str(b.dtype)))
        for name, b in part._buffers.items()
    ]
