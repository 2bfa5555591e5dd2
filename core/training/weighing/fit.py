"""Which part of a gradient belongs to which part of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Rounding of one fp32 gradient, relative; of losses, which add up fewer numbers.
ROUNDING = 2e-7
#: Numbers of a gradient that are kept.
MOST = 2**20
#: Past this nothing can be told apart.
BLUNT = 0.02
#: The residual that shares may leave; more means that rows depend on one another.
LIMIT = 1e-2


@dataclass(frozen=True, slots=True)
class Fit:
    """``whole = x * first + y * second``, and what no weight explains.

    Attributes:
        x: share of the first part.
        y: share of the second.
        residual: 2-norm of what remains, over that of the whole.
        near: how far a right share may be off.
        norm: 2-norm of the whole.
        firm: change of the whole that moves each share by 1; 0: not known.
        blur: how far half precision may move each share besides: more for a part whose
            gradient is small, since the whole is rounded by its own size.
    """

    x: float
    y: float
    residual: float
    near: float
    norm: float = 0.0
    firm: tuple[float, float] = (0.0, 0.0)
    blur: tuple[float, float] = (0.0, 0.0)

    def off(self, shares: tuple[float, ...], rounding: float = 0.0) -> float:
        """Return how far two shares are off, but for rounding of the whole.

        Args:
            shares: those of a unit.
            rounding: 2-norm of what rounding may have added to the whole.
        """
        own = (self.x, self.blur[0], self.firm[0]), (self.y, self.blur[1], self.firm[1])
        return max(
            abs(told - share) - blur - (rounding / firm if firm else 0.0)
            for share, (told, blur, firm) in zip(shares, own, strict=True)
        )


def fit(whole: Tensor, first: Tensor, second: Tensor, is_half: bool) -> Fit | None:
    """Return the shares of two parts, None where these gradients tell nothing.

    Args:
        whole: (P,), float64, as the others.
        first: of one part.
        second: of the other.
        is_half: computed in half precision, which rounds to 3 digits.
    """
    norm, one, two = (float(each.norm()) for each in (whole, first, second))
    if not (math.isfinite(norm * one * two) and norm * one * two > 0.0):
        return None
    least, slack = (8e-3, 1.0) if is_half else (1e-5, 0.25)
    coarse = least * norm if is_half else 0.0
    cosine = float(first @ second) / (one * two)
    sine = math.sqrt(max(0.0, 1.0 - cosine * cosine))
    if 4 * ROUNDING / max(sine, 1e-12) < BLUNT / 100 and len(whole) > 1:
        ours, theirs = float(whole @ first) / one, float(whole @ second) / two
        x = (ours - cosine * theirs) / (sine * sine) / one
        y = (theirs - cosine * ours) / (sine * sine) / two
        residual = float((whole - x * first - y * second).norm()) / norm
        near = max(least, residual * slack, 4 * ROUNDING / sine)
        firm = sine * one, sine * two
        blur = coarse / firm[0], coarse / firm[1]
        return Fit(x, y, residual, near, norm, firm, blur)
    return _along_one_line(whole, first, second, least, slack, coarse)


def _along_one_line(
    whole: Tensor,
    first: Tensor,
    second: Tensor,
    least: float,
    slack: float,
    coarse: float,
) -> Fit | None:
    """Fit parallel gradients, or losses: one equation, solved for a sum or a mean."""
    norm = float(whole.norm())
    if float((whole - first - second).norm()) <= 1e-5 * norm:
        return Fit(1.0, 1.0, 0.0, least, norm)
    apart = first - second
    length = float(apart.norm())
    if length <= 1e-3 * norm:  # whatever the shares, the whole is the same
        return None
    x = float((whole - second) @ apart) / length**2
    residual = float((whole - second - x * apart).norm()) / norm
    near = max(least, residual * slack, 10 * ROUNDING * norm / length)
    blur = coarse / length, coarse / length
    firm = length, length
    return Fit(x, 1.0 - x, residual, near, norm, firm, blur) if near < BLUNT else None


def fitting(
    units: list[str],
    shares: dict[str, tuple[float, ...]],
    told: Fit,
    slack: float = 1.0,
) -> list[str]:
    """Return those of ``units`` whose two ``shares`` were told, ``slack`` near."""
    return _within(units, shares, (told.x, told.y), [slack * told.near] * 2)


def confirmed(
    units: list[str],
    shares: dict[str, tuple[float, ...]],
    whole: Tensor,
    parts: Sequence[Tensor],
) -> list[str]:
    """Return those of ``units`` whose ``shares`` of all parts make the whole.

    None where these gradients tell nothing, or the shares too vaguely.

    Args:
        units: names.
        shares: of each in ``parts``.
        whole: (P,), float64, as the others; in fp32 before.
        parts: their gradients.
    """
    norm, own = float(whole.norm()), [float(part.norm()) for part in parts]
    if not (math.isfinite(norm * math.prod(own)) and norm * math.prod(own) > 0.0):
        return []
    apart = torch.stack([part / size for part, size in zip(parts, own, strict=True)])
    gram, aims = (apart @ apart.T).cpu(), (apart @ whole).cpu()
    sine = math.sqrt(max(0.0, float(torch.linalg.eigvalsh(gram)[0])))
    if 4 * ROUNDING / max(sine, 1e-12) > LIMIT / 4:
        return []  # one depends on the others
    found = torch.linalg.solve(gram, aims)
    residual = float((whole - found.to(whole.device) @ apart).norm()) / norm
    near = max(1e-5, residual / 4, 4 * ROUNDING / sine)
    told = [float(each) / size for each, size in zip(found, own, strict=True)]
    # The smaller the gradient of a part beside the whole, the less sure is its share.
    slack = [near * max(1.0, norm / size) for size in own]
    if max(slack) > LIMIT / 4:
        return []
    return _within(units, shares, told, slack)


def _within(
    units: list[str],
    shares: dict[str, tuple[float, ...]],
    told: Sequence[float],
    slack: Sequence[float],
) -> list[str]:
    """Return those of ``units`` each of whose ``shares`` is within ``slack``."""
    return [
        unit
        for unit in units
        if unit in shares
        and all(
            abs(share - each) <= most
            for share, each, most in zip(shares[unit], told, slack, strict=True)
        )
    ]


def sampled(gradients: Sequence[Tensor | None], weights: Sequence[Tensor]) -> Tensor:
    """Return at most MOST numbers of a gradient, (P,), float64, on its device.

    Args:
        gradients: None: zeros.
        weights: that they are of.
    """
    sizes = [w.numel() * (2 if w.is_complex() else 1) for w in weights]
    step = max(1, -(-sum(sizes) // MOST))  # every so many-th number is kept
    device = next((g.device for g in gradients if g is not None), torch.device("cpu"))
    parts = []
    for gradient, size in zip(gradients, sizes, strict=True):
        if gradient is None:
            zeros = torch.zeros(-(-size // step), dtype=torch.float64, device=device)
            parts.append(zeros)
            continue
        flat = gradient.detach()
        flat = flat.to_dense() if flat.is_sparse else flat
        flat = torch.view_as_real(flat).flatten() if flat.is_complex() else flat
        parts.append(flat.reshape(-1)[::step].to(device, torch.float64))
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)
