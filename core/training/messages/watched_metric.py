"""How a run comes to report a metric that is watched and that it lacks."""

from __future__ import annotations

from collections.abc import Sequence

from training.errors import did_you_mean

__all__ = ["way_to"]

#: What ``EvaluationCallback`` measures only where it is asked to.
ASKED_FOR = ("accuracy", "f1")


def way_to(name: str, names: Sequence[str]) -> str:
    """Return what to do, as the end of a sentence, or the nearest of ``names``.

    Args:
        name: what is watched.
        names: what the run reports, in order.
    """
    if names == ["train_loss"] and name.startswith("val_"):
        return "; pass validation data"
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
