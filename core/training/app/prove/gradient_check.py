"""Compare the gradients of a run's first window in two splits, before it trains.

Both must be those of one large batch. They differ when a model's loss is not the mean
over what its batches say they weigh, or when it depends on what else is in the batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from training.errors import ConfigError
from training.feed.batches import batch_to_device
from training.loop.forward import Forward
from training.loop.precision import Precision
from training.loop.window import Window
from training.messages.tables import count, table
from training.modules.train_mode import in_eval_mode
from training.weighing import fit, sentences
from training.weighing.counts import Contents

if TYPE_CHECKING:
    from training.trainer import Trainer

__all__ = ["LIMIT", "Comparison", "Split", "compare_splits", "require_agreement"]

#: Largest relative difference: rounding stays below 1e-5, wrong weights above 1e-3.
LIMIT = 1e-4


@dataclass(frozen=True, slots=True)
class Split:
    """One way to cut the window into batches.

    Attributes:
        label: its batch sizes, for a reader.
        norm: 2-norm of the gradient.
        difference: 2-norm of what differs from the first split, over that one's norm.
    """

    label: str
    norm: float
    difference: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The first window in several splits.

    Attributes:
        num_rows: rows of the window.
        configured: as the run would cut it.
        other: the same rows in batches of unequal size.
        unweighted: as ``other``, but with every batch counted alike.
        verdict: what the loss is a mean over, as measured on the first batch.
        no_weight_mends: whether they differ by weights of that unit, too.
    """

    num_rows: int
    configured: Split
    other: Split
    unweighted: Split
    verdict: str = ""
    no_weight_mends: bool = False

    @property
    def agrees(self) -> bool:
        """Whether the splits have the same gradient up to rounding."""
        return self.other.difference <= LIMIT

    def lines(self) -> list[str]:
        """Return a table for people."""
        head = ["split", "gradient norm", "difference"]
        splits = (self.configured, self.other, self.unweighted)
        rows = [
            [each.label, f"{each.norm:.6g}", f"{each.difference:.1e}"]
            for each in splits
        ]
        rows[0][2] = "-"
        title = f"first window: {count(self.num_rows, 'row')}, in fp32, dropout off"
        lines = [title, *table(head, rows)]
        lines += [self.verdict] if self.verdict else []
        if self.unweighted.difference <= LIMIT:
            lines.append(
                "note: these batches weigh alike, so wrong weights would not show; "
                "raise data.batch_size"
            )
        return lines


def compare_splits(trainer: Trainer) -> Comparison:
    """Return the gradients of the first window in two splits; nothing is trained.

    Everything is computed in eval mode (two splits draw other dropout masks, and have
    other BatchNorm statistics) and in fp32, whatever the run's precision.

    Args:
        trainer: its loader must be torch's, over a data set with numbered rows.
    Raises:
        ConfigError: another loader, or a window without two rows or without weight.
        NonFiniteError: a loss or gradient is NaN or infinite.
    """
    loader = trainer.train_dataloader
    sampler = getattr(loader, "batch_sampler", None)
    collate = getattr(loader, "collate_fn", None)
    if sampler is None or collate is None:
        raise ConfigError(
            f"train_dataloader is a {type(loader).__name__}, whose rows cannot be cut "
            "into other batches; use torch's DataLoader over a map-style data set"
        )
    window = list(itertools.islice(sampler, trainer.gradient_accumulation_steps))
    sizes = [len(batch) for batch in window]
    rows = [index for batch in window for index in batch]
    if len(rows) < 2:
        raise ConfigError(
            f"the first window holds {count(len(rows), 'row')}, which cannot be split; "
            "give it at least two"
        )
    dataset: Any = loader.dataset  # type: ignore[attr-defined]
    others = _uneven(len(rows), max(sizes))

    def batches(cut: Sequence[int]) -> list[tuple[Any, list[Any]]]:
        numbers = iter(rows)
        pieces = [list(itertools.islice(numbers, size)) for size in cut]
        return [(collate([dataset[i] for i in piece]), piece) for piece in pieces]

    trainer.state.weigher.prepare(trainer.model, trainer.device, loader)
    weigh = trainer.state.weigher
    batch, indices = batches(sizes)[0]
    look = weigh.look(Contents(weigh.counts, batch, issued=indices))
    first = _gradient(trainer, batches(sizes), trainer._forward, weigh)
    second = _gradient(trainer, batches(others), trainer._forward, weigh)
    alike = _gradient(trainer, batches(others), _unweighted(trainer._forward), weigh)
    label = _label(others)

    def is_mended_by(unit: str) -> bool:
        def by_unit(batch: Any, indices: Any) -> float:
            return weigh.counts(unit, batch, len(indices)) or 0.0

        one, other = (
            _gradient(trainer, batches(cut), trainer._forward, by_unit)
            for cut in (sizes, others)
        )
        return _split(label, other, one).difference <= LIMIT

    found = Comparison(
        len(rows),
        _split(_label(sizes), first, first),
        _split(label, second, first),
        _split(f"{label}, all counted alike", alike, first),
        sentences.verdict(look),
    )
    if found.agrees or look.said is not None or "sum" in look.units:
        return found
    if look.is_none:
        is_mended = look.fit is None or (
            look.fit.residual <= fit.LIMIT
            and not _is_right(look.fit, weigh, batches(look.sizes))
        )
    else:
        is_mended = not look.units or any(map(is_mended_by, look.units))
    return replace(found, no_weight_mends=not is_mended)


def require_agreement(comparison: Comparison, family: str) -> None:
    """Raise ``ConfigError`` that names the model family if the splits differ."""
    if comparison.agrees:
        return
    way = (
        "make batch.loss_weight the number of items that the model's loss is a mean "
        "over"
    )
    if comparison.no_weight_mends:
        way = (
            "no weight mends it, since a row's loss depends on more than the row: on "
            "the others of its batch (padding, positions, a mean over the batch) or on "
            "random numbers; mend that"
        )
    raise ConfigError(
        f"model family {family!r}: the gradient of {comparison.configured.label} rows "
        f"and that of {comparison.other.label} differ by "
        f"{comparison.other.difference:.1e} of its norm (limit {LIMIT:.0e}), so "
        "gradient accumulation would change what is learnt; "
        f"{way}, or train with gradient_accumulation_steps 1 and batches of one size"
    )


def _gradient(
    trainer: Trainer,
    batches: list[tuple[Any, list[Any]]],
    forward: Forward,
    weigh: Callable[[Any, Any], float],
) -> Tensor:
    """Return the gradient of one window as a vector (P,), float32, on the CPU.

    Args:
        trainer: its model is used.
        batches: each with the indices of its rows.
        forward: ``(model, batch, weight) -> (0-d mean loss, weight, parts)``.
        weigh: ``(batch, indices) -> weight``.
    """
    groups = trainer.optimizer.param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    optimizer = torch.optim.SGD(parameters, lr=0.0)  # never moves a weight
    window = Window(
        trainer.model,
        optimizer,
        forward,
        Precision("fp32", trainer.device),
        accumulation=len(batches),
    )
    found: list[Tensor] = []

    def keep() -> None:
        grads = [p.grad for p in parameters if p.grad is not None]
        found.append(torch.cat([grad.detach().float().cpu().ravel() for grad in grads]))

    with in_eval_mode(trainer.model), _exact(trainer.device):
        for batch, indices in batches:
            weight = weigh(batch, indices)
            window.sums_losses = trainer.state.weigher.is_sum
            window.backward(batch_to_device(batch, trainer.device), weight)
        window.step(keep)
    if not found:
        raise ConfigError("the first window has no item with a loss; check the labels")
    return found[0]


def _is_right(
    found: fit.Fit,
    weigh: Callable[[Any, Any], float],
    parts: list[tuple[Any, list[Any]]],
) -> bool:
    """Whether the parts of a batch weigh what their gradients were found to."""
    weights = [weigh(batch, indices) for batch, indices in parts]
    whole = sum(weights) or 1.0
    return found.off(tuple(weight / whole for weight in weights)) <= found.near


def _exact(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without TF32: its 10 bits would hide a small difference."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(allow_tf32=False)


def _unweighted(forward: Forward) -> Forward:
    return lambda model, batch, weight: (forward(model, batch, weight)[0], 1.0, {})


def _uneven(num_rows: int, most: int) -> list[int]:
    """Return unequal batch sizes of at most ``most`` rows, or of 2 where that is 1."""
    few = max(1, most * 3 // 8)
    sizes = itertools.cycle([few, max(1, most - few)] if most > 1 else [2])
    cut: list[int] = []
    while (rest := num_rows - sum(cut)) > 0:
        cut.append(min(rest, next(sizes)))
    return cut


def _split(label: str, gradient: Tensor, first: Tensor) -> Split:
    norm = float(gradient.double().norm())
    scale = float(first.double().norm()) or 1.0
    return Split(label, norm, float((gradient - first).double().norm()) / scale)


def _label(sizes: Sequence[int]) -> str:
    """Return ``"4 x 2"`` for equal sizes, else ``"3 + 5"``; long ones shortened."""
    if len(set(sizes)) == 1:
        return f"{len(sizes)} x {sizes[0]}"
    shown = [str(size) for size in sizes[:4]]
    return " + ".join([*shown, "..."] if len(sizes) > 4 else shown)
