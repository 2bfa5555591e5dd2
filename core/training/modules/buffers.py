"""Running statistics that took a bad value in, which nobody can take out again."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from training.errors import NonFiniteError

COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def has_finite(value: Any) -> bool:
    """Whether no number of a tensor is NaN or infinite; reads all of them.

    What is no tensor, or has no numbers that can be read, has no bad one.
    """
    if not isinstance(value, Tensor) or value.device.type == "meta":
        return True
    if not (value.is_floating_point() or value.is_complex()):
        return True
    if value.is_nested:
        return all(map(has_finite, value.unbind()))
    if value.layout is torch.sparse_coo:
        value = value._values()
    elif value.layout in COMPRESSED:
        value = value.values()
    elif value.layout is not torch.strided:
        return True
    try:
        return bool(value.isfinite().all())
    except NotImplementedError:  # of 8 bits or fewer, and of a kind without infinities
        return not bool(value.isnan().any())


def nonfinite_buffers(model: nn.Module) -> list[str]:
    """Return the names of buffers that hold a NaN or an infinity.

    Some do from the beginning, such as an attention mask of minus infinities. One read
    for each buffer: a sync on CUDA.
    """
    return [name for name, buffer in model.named_buffers() if not has_finite(buffer)]


def check_buffers(model: nn.Module, known: Collection[str], what: str) -> None:
    """Raise ``NonFiniteError`` if a buffer not in ``known`` took a bad value in."""
    spoilt = [name for name in nonfinite_buffers(model) if name not in known]
    if spoilt:
        raise NonFiniteError(
            f"{what}, and the running statistics {spoilt[0]!r} took it in, which "
            "nonfinite='skip' cannot undo: keep such values out of the inputs, and go "
            "on from the last checkpoint"
        )
