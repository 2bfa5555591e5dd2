"""Whether what a plugin answers, when it is asked, is what the hook says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.hooks.answers import summary_mistake
from training.planned.planned_run import Plan, PlannedRun
from training.testing.case import Case
from training.testing.equality import difference, state_of

__all__ = ["check_answers"]


def check_answers(case: Case) -> list[str]:
    """Whether the hooks that others call in their own time answer as they promise."""
    plugin = case.make()
    trainer = case.trainer("run", plugin)
    trainer.train()
    name = case.name_of(plugin)
    problems = [*_check_plan(trainer, case.folder), *_check_candidates(trainer)]
    before = state_of(trainer, name)
    for _, answer in trainer.bus.collect("summary", trainer=trainer):
        problems += filter(None, [summary_mistake(answer)])
    problems += [*_check_find(trainer), *_check_needed(trainer)]
    problems += _check_window(trainer)
    if found := difference(before, state_of(trainer, name)):
        problems.append(f"being asked changes its state: {found}")
    return problems


def _check_plan(trainer: Any, folder: Path) -> list[str]:
    run = PlannedRun(4, 2, None, 1, folder, 0.1, trainer.plugins, evaluations=[4, 8])
    problems = []
    for _, steps in trainer.bus.collect("plan_evaluations", run=run):
        if steps is not None and not all(type(step) is int for step in steps):
            problems.append(f"plan_evaluations returned {steps!r}; return step numbers")
    for _, plan in trainer.bus.collect("plan", run=run):
        if not isinstance(plan, Plan | None):
            problems.append(f"plan returned {plan!r}; return a training.plugin.Plan")
    return problems


def _check_candidates(trainer: Any) -> list[str]:
    for _, found in trainer.bus.collect("resume_candidates", trainer=trainer):
        for each in found or ():
            match each:
                case (Path(), None | str()):
                    continue
            return [
                f"resume_candidates offers {each!r}; offer pairs of a path and None "
                "or what is wrong with it"
            ]
    return []


def _check_needed(trainer: Any) -> list[str]:
    for _, steps in trainer.bus.collect("needed_checkpoints", trainer=trainer):
        if steps is not None and not all(type(step) is int for step in steps):
            return [f"needed_checkpoints returned {steps!r}; return step numbers"]
    return []


def _check_window(trainer: Any) -> list[str]:
    """Ask a second time; what the first answer made has trained this model."""
    ask, kind = trainer.bus.make_window, type(trainer._run.window)
    answers = [] if ask is None else [ask(trainer, trainer.model, kind)]
    return [
        f"make_window returned {made!r}; return a subclass of training.plugin.Window"
        for made in answers
        if made is not None and not callable(made)
    ]


def _check_find(trainer: Any) -> list[str]:
    find = trainer.bus.find_checkpoint
    path = None if find is None else find(trainer, trainer.step)
    if path is None or (isinstance(path, Path) and path.is_file()):
        return []
    return [f"find_checkpoint returned {path!r}; return the path of a file, or None"]
