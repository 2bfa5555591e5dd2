"""Whether an evaluator that was given goes with its options, and with the run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from torch import nn

from trainbus_evaluation.task_evaluator import TaskEvaluator
from training import ConfigError

if TYPE_CHECKING:
    from training import Trainer

logger = logging.getLogger(__name__)


def check_given(evaluator: Any, keep_predictions: bool, **options: Any) -> None:
    """Raise ``ConfigError`` for what is no evaluator, or options that it lacks."""
    if not callable(getattr(evaluator, "evaluate", None)):
        raise ConfigError(
            f"evaluator is {evaluator!r}, which has no evaluate(dataloader) method"
        )
    for option, value in options.items():
        if value is not None:
            raise ConfigError(
                f"evaluation.{option} is given beside an evaluator; set them on the "
                "evaluator"
            )
    if keep_predictions and not isinstance(evaluator, TaskEvaluator):
        raise ConfigError(
            "evaluation.keep_predictions needs a TaskEvaluator or a VQAEvaluator"
        )


def warn_of_another_model(evaluator: Any, trainer: Trainer) -> None:
    """Warn of an evaluator whose ``model`` nobody trains, as far as can be seen.

    A copy that follows the trained one, as an average does, is no mistake: the loss or
    a plugin has it, since somebody has to move it.
    """
    model = getattr(evaluator, "model", None)
    if not isinstance(model, nn.Module) or next(model.parameters(), None) is None:
        return
    moved = [trainer.model, *trainer.criterion.held_modules().values()]
    moved += [each for plugin in trainer.plugins.values() for each in _held_by(plugin)]
    if _parts([model, *_held_by(evaluator)]).isdisjoint(_parts(moved)):
        logger.warning(
            "the evaluator's model, a %s, shares no parameter with the %s that is "
            "trained, so that it seems to measure weights which training leaves alone; "
            "build the evaluator with the trained model, or keep a copy that follows "
            "it in an attribute of the callback that moves it",
            *(type(model).__name__, type(trainer.model).__name__),
        )


def _held_by(holder: Any) -> list[nn.Module]:
    attributes = getattr(holder, "__dict__", {}).values()
    return [each for each in attributes if isinstance(each, nn.Module)]


def _parts(modules: list[nn.Module]) -> set[int]:
    """Return modules, too: where weights are sharded, the parameters are others."""
    return {id(p) for m in modules for p in (*m.modules(), *m.parameters())}
