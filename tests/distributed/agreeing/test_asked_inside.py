"""What is asked where no hook fires: inside of a backward pass, or of a step."""

from __future__ import annotations

from typing import Any

import pytest
from ranks import Ranks
from toy import make_trainer, regression_batches

from training import Callback, Trainer

pytestmark = pytest.mark.distributed


class AsksInside(Callback):
    """Asks once, on the last process, from where no hook fires.

    Args:
        backward: whether inside of a backward pass; else in an optimizer's step.
        at: the least step.
    """

    name = "Asks"

    def __init__(self, backward: bool, at: int) -> None:
        self.backward, self.left, self.at = backward, 1, at

    def on_setup(self, trainer: Trainer) -> None:
        def ask(*_: Any) -> None:
            is_last = trainer.rank == trainer.world_size - 1
            if is_last and self.left and trainer.step >= self.at:
                self.left -= 1
                trainer.request_stop("please")

        if self.backward:
            next(trainer.model.parameters()).register_hook(ask)
        else:
            trainer.optimizer.register_step_post_hook(ask)


def asked_inside(backward: bool, at: int) -> Any:
    """Return where the run ended, and what was asked of it."""
    trainer = make_trainer(
        *(None, regression_batches(5, 4), AsksInside(backward, at)),
        plugins=[{"distributed": {}}],
        num_epochs=2,
    )
    trainer.train()
    made = [(r.kind, r.reason.removesuffix(" (rank 1)")) for r in trainer.requests]
    return trainer.epoch, trainer.step, made


@pytest.mark.parametrize("at", [0, 2, 4, 9])
def test_d18_what_is_asked_inside_of_a_backward_pass_is_granted_behind_it(
    two: Ranks, at: int
) -> None:
    alone = asked_inside(True, at)
    assert alone[1] == at + 1
    assert two.run(asked_inside, True, at) == [alone, alone]


@pytest.mark.parametrize(
    ("at", "ends"),
    [
        pytest.param(2, 4, id="at the boundary after"),
        pytest.param(4, 5, id="at an epoch's end all agree anyway"),
        pytest.param(9, 10, id="at the run's end, too"),
    ],
)
def test_d18_what_is_asked_while_the_optimizer_steps_is_granted_by_all_at_one_boundary(
    two: Ranks, at: int, ends: int
) -> None:
    assert asked_inside(False, at)[1] == at + 1
    first, second = two.run(asked_inside, False, at)
    assert first == second
    assert first[1:] == (ends, [("stop", "please")])
