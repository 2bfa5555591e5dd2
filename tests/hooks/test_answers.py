"""What plugins may answer where they are asked: taken, or refused by name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from training import Bus, Callback, PluginError, hookspecs
from training.hooks.answers import ANSWERS, checked_answer
from training.hookspecs import HOOKS
from training.plugin import Plan

MODEL, PLAN, LOADER = nn.Linear(1, 1), Plan(), DataLoader(range(1))


def test_every_hook_that_returns_something_has_its_answers_checked() -> None:
    signatures = {hook: inspect.signature(getattr(hookspecs, hook)) for hook in HOOKS}
    asked = {n for n, s in signatures.items() if s.return_annotation != "None"}
    assert set(ANSWERS) == asked


@pytest.mark.parametrize(
    ("hook", "answer", "taken"),
    [
        *((hook, None, None) for hook in ANSWERS),
        ("wrap_dataloader", LOADER, LOADER),
        ("wrap_dataloader", [1], [1]),
        ("wrap_model", MODEL, MODEL),
        ("metric_names", (name for name in "ab"), ["a", "b"]),
        ("evaluate", {"a": torch.tensor([0.5]), "b": 2}, {"a": 0.5, "b": 2.0}),
        ("plan_evaluations", (step for step in (2, 4)), [2, 4]),
        ("plan_evaluations", range(3), [0, 1, 2]),
        ("plan_evaluations", np.array([2, 4]), [2, 4]),
        ("needed_checkpoints", [np.int64(7)], [7]),
        ("plan", PLAN, PLAN),
        ("resume_candidates", iter([("a.pt", None)]), [(Path("a.pt"), None)]),
        ("resume_candidates", [(Path("a"), "torn")], [(Path("a"), "torn")]),
        ("needed_checkpoints", {7}, [7]),
        ("needed_checkpoints", (step for step in [7]), [7]),
        ("find_checkpoint", "a.pt", Path("a.pt")),
        ("summary", {}, {}),
        ("summary", {"best": {"a": 1}, "b": [1]}, {"best": {"a": 1}, "b": [1]}),
        ("on_setup", "ignored", "ignored"),
    ],
)
def test_an_answer_is_taken(hook: str, answer: Any, taken: Any) -> None:
    assert checked_answer(hook, "p", answer) == taken


@pytest.mark.parametrize(
    ("hook", "answer", "told"),
    [
        ("wrap_dataloader", True, "returned True from wrap_dataloader; return a re-it"),
        ("wrap_dataloader", 5, "returned 5 from wrap_dataloader; return a re-iterable"),
        ("wrap_dataloader", "x", "returned 'x' from wrap_dataloader; return a re-iter"),
        ("wrap_dataloader", {}, "returned {} from wrap_dataloader; return a re-itera"),
        ("wrap_dataloader", iter([]), "returned <list_iterator object at 0x"),
        ("wrap_dataloader", (each for each in "a"), "returned <generator object <gene"),
        ("wrap_model", nn.Linear, "returned type from wrap_model; return a torch mod"),
        ("metric_names", 5, "returned 5 from metric_names; return a list of names"),
        ("metric_names", "loss", "returned 'loss' from metric_names; return a list"),
        ("metric_names", ["lr"], "returned a metric named 'lr'; use a text other than"),
        ("evaluate", [1.0], "returned list from evaluate; return a mapping of metric"),
        ("evaluate", {"a": "1"}, "returned '1' as metric 'a'; return a number"),
        ("evaluate", {"step": 1.0}, "returned a metric named 'step'; use a text"),
        ("plan_evaluations", 5, "returned 5 from plan_evaluations; return step num"),
        ("plan_evaluations", [1.5], "returned [1.5] from plan_evaluations; return"),
        ("plan_evaluations", [True], "returned [True] from plan_evaluations; return"),
        ("plan_evaluations", b"12", "returned b'12' from plan_evaluations; return"),
        ("plan_evaluations", {1: 2}, "returned {1: 2} from plan_evaluations; return"),
        ("needed_checkpoints", [-1], "returned [-1] from needed_checkpoints; return"),
        # numpy 1 shows it as True.
        ("evaluate", {"a": np.True_}, f"returned {np.True_!r} as metric 'a'; return"),
        ("evaluate", {"a": torch.tensor(True)}, "returned tensor(True) as metric 'a'"),
        ("summary", [], "returned [] from summary; return JSON values by name"),
        ("summary", False, "returned False from summary; return JSON values by name"),
        ("plan", {}, "returned {} from plan; return a training.plugin.Plan, or None"),
        ("resume_candidates", 5, "returned 5 from resume_candidates; return pairs of"),
        ("resume_candidates", ["a.pt"], "returned ['a.pt'] from resume_candidates"),
        ("resume_candidates", [(5, None)], "returned [(5, None)] from resume_cand"),
        ("needed_checkpoints", 5, "returned 5 from needed_checkpoints; return step"),
        ("needed_checkpoints", "12", "returned '12' from needed_checkpoints; return"),
        ("find_checkpoint", 5, "returned 5 from find_checkpoint; return a path"),
        ("summary", [1], "returned [1] from summary; return JSON values by name"),
        ("summary", {"paths": {"a": 1}}, "returned 1 from summary as the path 'a'"),
    ],
)
def test_another_answer_is_refused(hook: str, answer: Any, told: str) -> None:
    with pytest.raises(PluginError) as caught:
        checked_answer(hook, "odd", answer)
    assert str(caught.value).startswith(f"plugin 'odd' {told}")


class Finds(Callback):
    hook_api = ">=1.1,<2"

    def __init__(self, name: str, answer: Any) -> None:
        self.name = name  # type: ignore[misc]
        self.answer = answer

    def find_checkpoint(self) -> Any:
        return self.answer


def test_of_several_who_look_for_a_file_the_one_at_fault_is_named() -> None:
    bus = Bus()
    found = [("a", None), ("odd", 5), ("z", "z.pt")]
    bus.register_all([(None, Finds(*each)) for each in found])
    with pytest.raises(PluginError, match="plugin 'odd' returned 5") as caught:
        bus.find_checkpoint(None, 1)
    assert "raised by plugin 'odd'" in caught.value.__notes__[0]
    bus.unregister("odd")
    assert bus.find_checkpoint(None, 1) == Path("z.pt")
