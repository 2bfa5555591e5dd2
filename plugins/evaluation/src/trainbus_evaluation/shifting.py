"""Whether logit t is of label t, or of label t + 1, as where the next token is told.

And where the classes of logits are, if their shape leaves two places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from training.plugin import LabelUse

IGNORED = LabelUse().ignored
#: Two computations of one cross entropy differ by less, relative and absolute.
SLACK, LEAST = 1e-5, 1e-7
Kind = TypeVar("Kind")
#: Numbers of logits that are looked at in one go, 256 MiB in fp32: the loss may be one
#: that never holds those of a whole batch twice.
AT_ONCE = 2**26


class Shift:
    """Finds out whether labels are shifted against logits, for (B, T, C) and (B, T).

    It is what the user says; else which cross entropy the loss of a first batch is,
    as a mean or a sum: with label t, or t + 1; else, as with label smoothing, what the
    unit of the loss tells. Where nothing does, logits of a decoder that generates are
    taken to be of the next label, also where another module returns them, and others
    not.

    Args:
        model: what returned the logits.
        said: by the user; None: nothing.
    """

    def __init__(self, model: nn.Module, said: bool | None) -> None:
        self.said = said
        self._model = model
        self._width: int | None = None  # of the logits; None: no tokens were seen
        self._places: Sequence[int] = ()  # of classes, those that were compared
        self._seen: list[Tensor] = []  # the loss, and how far it is from each
        self._slack = SLACK

    def look(
        self,
        loss: Tensor | None,
        logits: Mapping[int, Tensor],
        labels: Tensor,
        use: LabelUse,
    ) -> None:
        """Compare the loss of the first batch with the cross entropies that it may be.

        Nothing is waited for. It costs the loss once more for each place, unless all
        is known.

        Args:
            loss: of the batch, 0-d, or None.
            logits: (B, T, C), by the place where the classes were.
            labels: (B, T), -100 where they are ignored.
            use: what is known of the loss.
        """
        if self._width is not None:
            return
        first = next(iter(logits.values()))
        self._width = first.shape[-1]
        is_settled = self.said is not None or use.is_shifted is False
        if loss is None or (
            is_settled and (len(logits) == 1 or use.class_dim is not None)
        ):
            return
        but_first = labels.long().clone()
        but_first[:, :1] = IGNORED
        which = labels, but_first, following(labels)
        self._places = list(logits)
        self._slack = max(SLACK, torch.finfo(loss.dtype).eps)
        own = loss.detach().reshape(()).to(first.device, torch.float32)
        self._seen = [own]
        for each in logits.values():
            gaps = (_cross_entropies(each.detach(), *which) - own).abs()
            self._seen += gaps.nan_to_num(torch.inf, torch.inf).amin(0).unbind()

    def told(self) -> tuple[bool | None, int | None]:
        """Return what the loss of this process's first batch told; None: nothing.

        That is whether labels are shifted, and the place of the classes.
        """
        if not self._seen:
            return None, None
        loss, *gaps = torch.stack(self._seen).tolist()  # the wait
        plain = [min(gaps[n : n + 2]) for n in range(0, len(gaps), 3)]
        shifted = gaps[2::3]
        both = map(min, plain, shifted)
        slack = self._slack * abs(loss) + LEAST
        return (
            _nearest({False: min(plain), True: min(shifted)}, slack),
            _nearest(dict(zip(self._places, both, strict=True)), slack),
        )

    def decided(self, known: Sequence[bool | None]) -> bool:
        """Return whether labels are shifted.

        Args:
            known: what is known of it, the surest first; None: nothing.
        """
        if self._width is None:
            return False
        for each in (self.said, *known):
            if each is not None:
                return each
        return self.is_of_a_decoder()

    def is_of_a_decoder(self) -> bool:
        """Whether the logits seen are a decoder's that generates, (B, T, C) then."""
        return self._width is not None and _is_generated(self._model, self._width)


def following(labels: Tensor) -> Tensor:
    """Return (B, T) the label behind each, -100 for the last one."""
    return nn.functional.pad(labels[:, 1:].long(), (0, 1), value=IGNORED)


def _nearest(gaps: Mapping[Kind, float], slack: float) -> Kind | None:
    """Return what alone is within ``slack``, far from all others; else None."""
    near, *others = sorted(gaps, key=lambda each: gaps[each])
    is_told = gaps[near] <= slack and all(gaps[each] > 10 * slack for each in others)
    return near if is_told and others else None  # never with NaN


def _cross_entropies(logits: Tensor, *targets: Tensor) -> Tensor:
    """Return (4, targets) cross entropies; NaN without any label.

    They are the mean over labels, the sum, that of a sample, and the mean of the rows'
    own means.

    Args:
        logits: (B, T, C).
        targets: (B, T) each; those that are no class are left out.
    """
    kept = torch.stack([each.long() for each in targets])
    is_class = (kept >= 0) & (kept < logits.shape[-1])
    kept = torch.where(is_class, kept, IGNORED)
    of_rows = torch.zeros(kept.shape[:2], device=logits.device)
    num_rows = max(1, AT_ONCE // max(1, logits[:1].numel()))
    for first in range(0, len(logits), num_rows):
        rows = slice(first, first + num_rows)
        scores = logits[rows].flatten(0, 1).float().log_softmax(-1)
        for sums, each in zip(of_rows, kept, strict=True):
            found = nn.functional.nll_loss(
                scores, each[rows].flatten(), reduction="none"
            )
            sums[rows] = found.view_as(each[rows]).sum(1)
    in_rows = is_class.sum(2)
    num_labels = in_rows.sum(1)
    is_empty = num_labels == 0
    total = of_rows.sum(1).masked_fill(is_empty, torch.nan)
    of_means = (of_rows / in_rows.clamp(min=1)).mean(1).masked_fill(is_empty, torch.nan)
    return torch.stack([total / num_labels, total, total / len(logits), of_means])


def _is_generated(model: nn.Module, width: int) -> bool:
    """Whether logits, of ``width`` classes, are a decoder's that generates tokens.

    It may be wrapped in modules that return its logits: as many as its vocabulary has.
    """
    for module in model.modules():
        can_generate = getattr(module, "can_generate", None)
        if not callable(can_generate) or not can_generate():
            continue
        config: Any = getattr(module, "config", None)
        if getattr(config, "is_encoder_decoder", False):
            return False
        vocabulary = getattr(config, "text_config", config)
        return module is model or getattr(vocabulary, "vocab_size", None) == width
    return False
