"""How sure a model is of the answers that it has generated."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

__all__ = ["WITH_LOGITS", "mean_log_probabilities"]

#: What ``generate`` is asked for; it keeps an answer's logits, (T, B, vocabulary).
WITH_LOGITS = {"return_dict_in_generate": True, "output_logits": True}


def mean_log_probabilities(
    made: Any, num_prompt: int, ends: Collection[int]
) -> list[float]:
    """Return the mean log-probability of each answer's tokens, its end token included.

    By the model's own logits, whatever rules of generation changed them afterwards.

    Args:
        made: what ``generate`` returned ``WITH_LOGITS``; each step's are of B rows, or
            of their beams.
        num_prompt: tokens that stand before an answer.
        ends: the tokens that end one; what follows the first is padding.
    """
    tokens = made.sequences[:, num_prompt:]
    beams = getattr(made, "beam_indices", None)
    found = []
    for place, logits in enumerate(made.logits[: tokens.shape[1]]):
        rows = logits if beams is None else logits[beams[:, place].clamp(min=0)]
        shares = rows.float().log_softmax(dim=-1)
        found.append(shares.gather(1, tokens[:, place, None]))
    is_end = torch.isin(tokens, torch.tensor([*ends], device=tokens.device)).long()
    is_part = is_end.cumsum(dim=1) == is_end
    kept = torch.cat(found, dim=1).masked_fill(~is_part, 0.0)
    means: list[float] = (kept.sum(dim=1) / is_part.sum(dim=1)).tolist()
    return means
