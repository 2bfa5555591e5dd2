"""What a classifier predicts: the labels of its highest logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from training.errors import ConfigError
from training.messages.tables import count

__all__ = ["likeliest"]


def likeliest(
    logits: Tensor, labels: Sequence[Any], otherwise: Any = None
) -> list[Any]:
    """Return the label of the highest logit of each row.

    To torch a NaN is the highest of all, so that its label would be right by chance:
    a row that holds one gets ``otherwise``, which no label should equal.

    Args:
        logits: (B, len(labels)), of any floating dtype; reading them waits for the
            device.
        labels: what is predicted, by the number of its logit.
        otherwise: what is predicted of a row with a NaN.

    Raises:
        ConfigError: there are more or fewer logits than labels.
    """
    if logits.shape[-1] != len(labels):
        raise ConfigError(
            f"a row has {count(logits.shape[-1], 'logit')} for "
            f"{count(len(labels), 'label')}: give the model's head as many "
            "outputs as there are labels"
        )
    best = logits.argmax(dim=-1).where(~logits.isnan().any(dim=-1), len(labels))
    names = [*labels, otherwise]
    return [names[number] for number in best.tolist()]
