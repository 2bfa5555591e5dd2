"""What is said about a measurement: one sentence each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from training.messages.tables import count
from training.weighing.fit import LIMIT
from training.weighing.later_looks import CLEARLY
from training.weighing.subject import Look
from training.weighing.units import in_words

#: Of two parts.
Shares = tuple[float, ...]
#: From here on the residual is worth a word.
WORTH_A_WORD = 1e-4
WAYS_OUT = "say with loss_per what it is a mean over"


def verdict(look: Look) -> str:
    """Return what one batch tells, whatever anybody says."""
    if look.said is not None:
        if look.belies_said:
            return disagreement(look)
        is_compared = "said" in look.shares
        agrees = "as its gradients weigh" if is_compared else "which was not compared"
        return f"loss: a mean over the weight that step_fn says, {agrees}"
    if look.is_none:
        return none(look)
    return found(look, look.units) if look.units else unknown(look.reasons)


def found(look: Look, units: Sequence[str]) -> str:
    """Return what the loss is a mean over, or may be, and how that was seen."""
    what = "a sum" if units[0] == "sum" else f"a mean over {_any_of(units)}"
    what += ", which weigh alike so far" if len(units) > 1 else ""
    how = " by losses" if look.by_losses else ""
    told = f"loss: {what}, measured on {count(sum(look.sizes), 'sample')}{how}"
    if look.fit is None:
        return told
    rest = look.fit.residual
    if rest > WORTH_A_WORD and not look.is_half:
        return (
            f"{told}; {100 * rest:.1f} % of a batch's gradient depends on what else is "
            "in the batch, which no weight mends"
        )
    samples = look.shares.get("samples")
    told += f" (two parts weigh {look.fit.x:.3f} and {look.fit.y:.3f}"
    if samples is not None and not {"samples", "sum"}.intersection(units):
        told += f"; by samples {samples[0]:.3f} and {samples[1]:.3f}"
    return told + ")"


def defined(unit: str) -> str:
    """Return what torch's own cross entropy is a mean over."""
    return f"loss: a mean over {in_words(unit)}, as torch defines its cross entropy"


def none(look: Look) -> str:
    """Return why no weight does, without a way out."""
    why = "the loss is no mean over samples, labels or elements, and no sum"
    if look.fit is None:
        return why
    told = look.fit.x, look.fit.y
    nearest = min(look.shares, key=lambda unit: _off(look.shares[unit], told))
    own, theirs = _apart(told, look.shares[nearest])
    why += f": two parts of {look.sizes[0]} and {look.sizes[1]} samples weigh {own}"
    if look.fit.residual > LIMIT:
        why += (
            f", and {100 * look.fit.residual:.0f} % of a batch's gradient belongs to "
            "neither part, as in contrastive losses or with random numbers"
        )
    elif _off(told, look.shares[nearest]) <= CLEARLY:
        what = "a sum" if nearest == "sum" else f"a mean over {in_words(nearest)}"
        why += (
            f", and {theirs} in {what}, which rounding or random numbers may hide: "
            f"loss_per={nearest!r} if it is one"
        )
    return why


def _apart(one: Shares, other: Shares) -> tuple[str, str]:
    """Return two pairs of shares in as many digits as tell them apart, 3 at least."""
    off = _off(one, other)
    digits = max(3, 1 - math.floor(math.log10(off))) if off > 0.0 else 3
    first, second = (f"{x:.{digits}f} and {y:.{digits}f}" for x, y in (one, other))
    return first, second


def _off(one: Shares, other: Shares) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def belied(look: Look, unit: str) -> str:
    """Return that a later batch is weighed otherwise than the first was."""
    assert look.fit is not None
    why = (
        f"a later batch is not weighed by {unit}, as the first was: two parts of "
        f"{look.sizes[0]} and {look.sizes[1]} samples weigh {look.fit.x:.2f} and "
        f"{look.fit.y:.2f}"
    )
    if look.fit.residual > LIMIT:
        why += (
            f", and {100 * look.fit.residual:.0f} % of its gradient belongs to neither "
            "part, as where a loss has parts that are means over other items"
        )
    return why


def another(expected: str, found: str) -> str:
    """Return that a checkpoint was of a run whose loss had another unit."""
    return (
        f"the checkpoint is of another run: loss_per was {expected!r}, is {found!r}: "
        "use the old loss, or accept the new one with allow_changes=['loss_per'] "
        "(--allow-change loss_per)"
    )


def unknown(reasons: list[str]) -> str:
    """Return why nothing is known, without a way out."""
    told = "; ".join(dict.fromkeys(reasons)) or "no batch told"
    return f"what the loss is a mean over could not be measured: {told}"


def late(unit: str) -> str:
    """Return that only a later batch told the unit."""
    words = in_words(unit)
    return f"the loss is a mean over {words}, which the first batch did not tell"


def undecided(units: Iterable[str], reasons: list[str]) -> str:
    """Return that a batch holds other shares of units that all fitted so far."""
    told = "; ".join(dict.fromkeys(reasons)) or "parts weigh alike"
    what = _any_of(units)
    return f"whether the loss is a mean over {what} could not be measured: {told}"


def _any_of(units: Iterable[str]) -> str:
    return " or ".join(in_words(unit) for unit in units)


def divided(processes: int, why: str) -> str:
    """Return the error for windows of several processes' parts."""
    return (
        f"each batch is divided among {processes} processes, but {why}; return "
        f"loss_sum and weight from step_fn, or {WAYS_OUT}"
    )


def refusal(accumulation: int, why: str) -> str:
    """Return the error for windows of several batches."""
    return (
        f"gradient_accumulation_steps is {accumulation}, but {why}; use 1 and a larger "
        f"batch_size, return loss_sum and weight from step_fn, or {WAYS_OUT}"
    )


def warning(why: str, counted: str) -> str:
    """Return what is said where each batch is a step of its own."""
    return (
        f"{why}; each batch is a step of its own, so training is right; train_loss and "
        f"val_loss count {counted}: {WAYS_OUT}, to have them exact"
    )


def guessed(unit: str, why: str) -> str:
    """Return what is said of an evaluation whose batches differ from the run's."""
    return f"evaluation counts by {unit}: {why}; {WAYS_OUT}, to have it exact"


def mixed(unit: str, before: str) -> str:
    """Return why a mean over the batches that were evaluated is none of one unit."""
    own, theirs = in_words(unit), in_words(before)
    return f"this batch tells {own}, and batches before it were counted by {theirs}"


def evaluated(why: str, counted: str) -> str:
    """Return what is said of an evaluation without a trainer."""
    return f"{why}; the loss is the mean over {counted}: {WAYS_OUT}, to have it exact"


def disagreement(look: Look) -> str:
    """Return that the weights of ``step_fn`` are not those of its loss."""
    assert look.fit is not None
    theirs, own = _apart(look.shares["said"], (look.fit.x, look.fit.y))
    return (
        f"step_fn says weights of which two parts of {look.sizes[0]} and "
        f"{look.sizes[1]} samples have {theirs}, but their gradients weigh {own}; "
        "return the number of items that the loss is a mean over"
    )
