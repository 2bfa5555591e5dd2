"""Running statistics that took a bad value in, which nobody can take out again."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from training.errors import NonFiniteError


def nonfinite_buffers(model: nn.Module) -> list[str]:
    """Return the names of float buffers that hold a NaN or an infinity.

    Some do from the beginning, such as an attention mask of minus infinities. One read
    for each buffer: a sync on CUDA.
    """
    return [
        name
        for name, buffer in model.named_buffers()
        if buffer.is_floating_point() and not bool(buffer.isfinite().all())
    ]


def check_buffers(model: nn.Module, known: Collection[str], what: str) -> None:
    """Raise ``NonFiniteError`` if a buffer not in ``known`` holds such a value.

    Args:
        model: has just met one.
        known: names of buffers that held one before.
        what: it was, for the message.
    """
    spoilt = [name for name in nonfinite_buffers(model) if name not in known]
    if spoilt:
        raise NonFiniteError(
            f"{what}, and the running statistics {spoilt[0]!r} took it in, which "
            "nonfinite='skip' cannot undo: keep such values out of the inputs, and go "
            "on from the last checkpoint"
        )
