"""What to say of a metric that is watched: it is lacking, or watched the wrong way."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from training.errors import did_you_mean

__all__ = ["warn_of_smallest", "way_to"]

log = logging.getLogger(__name__)

#: Where a word of a name begins or ends: ``val_f1``, ``BinaryAUROC``, ``rougeL``,
#: ``F1Score``, and never inside of a number.
EDGE = (
    r"(?!(?<=\d)\d)(?:(?<![A-Za-z])|(?![A-Za-z])"
    r"|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]))"
)


def _words(words: str) -> re.Pattern[str]:
    """Return what finds one of ``words`` in a name, whatever their case."""
    return re.compile(f"{EDGE}(?i:{'|'.join(words.split())}){EDGE}")


#: Words in the names of metrics of which the largest value is the best.
LARGER = _words(
    "acc accuracy exact precision recall sensitivity specificity f1 fbeta r2 "
    "auc auroc auprc ap map ndcg mrr iou miou jaccard dice kappa mcc "
    "bleu sacrebleu rouge meteor cider anls psnr ssim"
)
#: Words in the names of those of which it is not, whatever else is in them.
SMALLER = _words("loss error")

#: What ``EvaluationCallback`` measures only where it is asked to.
ASKED_FOR = ("accuracy", "f1", "mae", "mse")


def way_to(name: str, names: Sequence[str], owner: str) -> str:
    """Return what to do, as the end of a sentence, or the nearest of ``names``.

    Args:
        name: what is watched.
        names: what the run reports, in order.
        owner: who watches it, as ``"early_stopping.monitor"``.
    """
    if names == ["train_loss"] and name.startswith("val_"):
        is_monitor = owner.endswith(".monitor")
        other = "monitor='train_loss'" if is_monitor else "name train_loss there"
        data = "val_dataloader=..., data.validation"
        return f"; pass validation data ({data}), or {other}"
    if names == ["train_loss", "val_loss"] and name.removeprefix("val_") in ASKED_FOR:
        name = name.removeprefix("val_")
        return f"; EvaluationCallback(metrics=[{name!r}]) measures {name}"
    is_loss = name.partition("/")[0] == "val_loss"
    if is_loss and not any(each.startswith("val_loss") for each in names):
        return (
            "; val_loss is the 'loss' of what evaluates val_dataloader: pass one, and "
            "return 'loss', too, as in Evaluator(model).evaluate(loader) | own"
        )
    return did_you_mean(name, names)


def warn_of_smallest(name: str, owner: str) -> None:
    """Warn that the smallest value is to be the best, if by its name it is the worst.

    Args:
        name: what is watched.
        owner: who watches it, as ``"early_stopping.monitor"``.
    """
    if LARGER.search(name) and not SMALLER.search(name):
        log.warning(
            "%s watches %r with mode 'min', so that the smallest value counts as the "
            "best; set mode to 'max' if the largest is",
            *(owner, name),
        )
