"""Gradients that the engine does not exchange, or that came to differ after it has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainbus_distributed.group import Group


def average(parameters: Sequence[nn.Parameter], group: Group) -> None:
    """Replace each gradient by its mean over all processes.

    A parameter that some processes have not used counts there with 0; one that none
    has used keeps no gradient.

    Args:
        parameters: the same ones, in the same order, on each process.
        group: the processes.
    """
    own = [float(p.grad is not None) for p in parameters]
    used = group.sum(own, "of used gradients")
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for parameter, count in zip(parameters, used, strict=True):
        if count:
            kind = parameter.device, parameter.dtype
            kinds.setdefault(kind, []).append(_dense_gradient(parameter))
    for gradients in kinds.values():
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        group.average(torch.view_as_real(flat) if flat.is_complex() else flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def fingerprint(parameters: Sequence[nn.Parameter]) -> float:
    """Return a number that gradients which differ hardly share: their 2-norm.

    On CUDA a read, which waits.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    dense = [g.coalesce().values() if g.is_sparse else g for g in gradients]
    return nn.utils.get_total_norm(dense).item() if dense else 0.0


def follow_main(parameters: Sequence[nn.Parameter], group: Group) -> None:
    """Replace each gradient by that of the main process."""
    used = group.on_main(
        lambda: [p.grad is not None for p in parameters], "of used gradients"
    )
    for parameter, is_used in zip(parameters, used, strict=True):
        if is_used:
            group.share_main(_dense_gradient(parameter).detach())
        else:
            parameter.grad = None


def _dense_gradient(parameter: nn.Parameter) -> Tensor:
    """Give it a gradient that other processes have; with all rows, as theirs differ."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    elif parameter.grad.is_sparse:
        parameter.grad = parameter.grad.to_dense()
    return parameter.grad
