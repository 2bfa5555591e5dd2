"""Whether what a plugin answers, when it is asked, is what the hook says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from training.errors import PluginError
from training.planned.planned_run import PlannedRun
from training.testing.case import Case
from training.testing.equality import difference, state_of, without
from training.trainer import Trainer


def check_answers(case: Case) -> list[str]:
    """Whether the hooks that others call in their own time answer as they promise."""
    plugin = case.make()
    trainer = case.trainer("run", plugin)
    trainer.train()
    name, bus = case.name_of(plugin), trainer.bus
    run = PlannedRun(
        *(4, 2, None, 1, case.folder, 0.1, trainer.plugins), evaluations=[4, 8]
    )
    before = state_of(trainer, name)
    asked: dict[str, dict[str, Any]] = {
        "metric_names": {"trainer": trainer},
        "plan_evaluations": {"run": run},
        "plan": {"run": run},
        "resume_candidates": {"trainer": trainer},
        "summary": {"trainer": trainer},
        "needed_checkpoints": {"trainer": trainer},
        "find_checkpoint": {"trainer": trainer, "step": trainer.step},
        "make_window": {
            "trainer": trainer,
            "module": trainer.model,
            "default": type(trainer._run.window),
        },
    }
    problems = []
    for hook, arguments in asked.items():
        try:
            answers = dict(bus.collect(hook, **arguments))
        except PluginError as error:
            problems.append(str(error))
            continue
        path = answers.get(name) if hook == "find_checkpoint" else None
        if path is not None and not path.exists():
            problems.append(f"find_checkpoint returned {str(path)!r}, which is no file")
        if hook == "metric_names" and answers.get(name) is not None:
            may_wait = hasattr(plugin, "plan_evaluations")
            problems += _misnamed(set(answers[name]), trainer, name, may_wait)
    after = state_of(trainer, name)
    if found := case.compared(
        lambda own: difference(without(before, own), without(after, own))
    ):
        problems.append(f"being asked changes its state: {found}")
    return problems


def _misnamed(
    told: set[str], trainer: Trainer, name: str, may_wait: bool
) -> Iterator[str]:
    """Yield how the metrics that a run got are others than those it was told of.

    Args:
        told: what the plugin ``name`` says that it delivers.
        trainer: after its run.
        name: of the plugin.
        may_wait: whether it need not have measured by now.
    """
    own = {key for key, value in trainer.metrics.items() if value.producer == name}
    if unknown := sorted(own - told):
        yield (
            f"evaluate delivers {', '.join(unknown)}, which metric_names does not "
            "tell: who watches it is refused; name what evaluate returns"
        )
    missing = sorted(told - own)
    if missing and (own or not may_wait):
        yield (
            f"metric_names tells {', '.join(missing)}, which evaluate has not given "
            "by a run's end: who watches it ends the run; name what evaluate returns"
        )
