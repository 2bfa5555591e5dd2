"""Whether what a plugin answers, when it is asked, is what the hook says."""

from __future__ import annotations

from typing import Any

from training.errors import PluginError
from training.planned.planned_run import PlannedRun
from training.testing.case import Case
from training.testing.equality import difference, state_of

__all__ = ["check_answers"]


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
    if found := difference(before, state_of(trainer, name)):
        problems.append(f"being asked changes its state: {found}")
    return problems
