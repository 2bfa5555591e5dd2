"""What a step costs over a bare loop, counted: limits that only go down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from training import Callback, ProgressBarCallback

#: Kernels over the bare loop: the check of the gradients, the undoing of what a fused
#: optimizer counts, the loss's note, three for sums; less what torch makes without us.
MOST_KERNELS = 5
#: The same under fp16, where the device has to tell overflows from bad values.
MOST_UNDER_FP16 = 13
#: Python calls over the bare loop: alone, clipping, with the six plugins, of four
#: batches. Below 0: that of a bare loop calls ``zero_grad``, which calls more.
MOST_CALLS, MOST_CLIPPING, MOST_WITH_PLUGINS, MOST_OF_FOUR = -6, -4, -2, 24


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the benchmarks be found, which print the same counts."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))


class Listens(Callback):
    """Makes the loop prepare the logs of each step."""

    def on_step_end(self, logs: Any) -> None:
        """Do nothing."""


class Launches(Listens):
    """As ``Listens``, and launches a kernel at each step."""

    def on_step_end(self, trainer: Any) -> None:
        torch.zeros_like(next(trainer.model.parameters()))


def over_bare(count: Callable[..., Counter[str]], **options: Any) -> float:
    """Return how many more of what ``count`` counts a step of a ``Trainer`` makes."""
    from counting import Settings, bare_steps, our_steps
    from workload import Workload

    names = ("accumulation", "max_norm", "precision")
    settings = Settings(**{n: options.pop(n) for n in names if n in options})
    work = Workload.create(1, 1)
    bare = count(bare_steps, work, settings)
    return count(our_steps, work, settings, **options).total() - bare.total()


def kernels_over_bare(folder: Path, *callbacks: Callback, **settings: Any) -> float:
    from counting import kernels_of_a_step

    return over_bare(
        kernels_of_a_step, callbacks=callbacks, save_dir=folder, **settings
    )


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("max_norm", [None, 1.0], ids=["no clipping", "clipping"])
@pytest.mark.parametrize(
    ("precision", "most"),
    [("fp32", MOST_KERNELS), ("fp16", MOST_UNDER_FP16)],
)
def test_a_step_launches_few_kernels_more_than_a_bare_one(
    accumulation: int,
    max_norm: float | None,
    precision: str,
    most: int,
    tmp_path: Path,
) -> None:
    settings = {"max_norm": max_norm, "precision": precision}
    found = kernels_over_bare(
        tmp_path, Listens(), accumulation=accumulation, **settings
    )
    assert 0 < found <= most


def test_logs_that_nobody_hears_cost_no_kernel(tmp_path: Path) -> None:
    assert kernels_over_bare(tmp_path) == kernels_over_bare(tmp_path, Listens()) - 1


def test_a_kernel_more_is_noticed(tmp_path: Path) -> None:
    assert kernels_over_bare(tmp_path, Launches()) == MOST_KERNELS + 1


def test_to_clip_costs_no_pass_over_gradients_beside_that_of_torch(
    tmp_path: Path,
) -> None:
    from counting import Settings, bare_steps, kernels_of_a_step, our_steps
    from workload import Workload

    work, clipped = Workload.create(1, 1), Settings(max_norm=1.0)
    ours = kernels_of_a_step(our_steps, work, clipped, save_dir=tmp_path)
    bare = kernels_of_a_step(bare_steps, work, clipped)
    over_gradients = {name for name in ours if "foreach" in name}
    # The look at the norm, and the count of steps that the optimizer takes back.
    looks = {"_amp_foreach_non_finite_check_and_unscale_": 1, "_foreach_sub_": 1}
    more = {name: ours[name] - bare[name] for name in over_gradients}
    assert {name: n for name, n in more.items() if n} == looks


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        pytest.param({}, MOST_CALLS, id="alone"),
        pytest.param({"max_norm": 1.0}, MOST_CLIPPING, id="clipping"),
        pytest.param({"accumulation": 4}, MOST_OF_FOUR, id="four batches"),
    ],
)
def test_a_step_calls_few_functions_more_than_a_bare_one(
    settings: dict[str, Any], most: int, tmp_path: Path
) -> None:
    from counting import calls_of_a_step

    assert over_bare(calls_of_a_step, save_dir=tmp_path, **settings) <= most


def test_a_call_more_is_noticed(tmp_path: Path) -> None:
    from counting import calls_of_a_step

    alone = over_bare(calls_of_a_step, save_dir=tmp_path)
    heard = over_bare(calls_of_a_step, save_dir=tmp_path, callbacks=[Listens()])
    assert heard > alone


def test_six_plugins_cost_few_calls_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How often the bar looks at its clock depends on how fast the machine is: this one
    # stands still, at float(), and is looked at seldom.
    monkeypatch.setattr(ProgressBarCallback, "clock", staticmethod(float))
    from contestants import trainbus_full
    from counting import calls_of_a_contestant
    from workload import bare

    bare_calls = calls_of_a_contestant(bare, tmp_path).total()
    calls = calls_of_a_contestant(trainbus_full, tmp_path).total()
    # Both end in the same operations; where torch is old, the bare loop's have more.
    assert calls > bare_calls / 2 > 0
    assert round(calls - bare_calls) <= MOST_WITH_PLUGINS
