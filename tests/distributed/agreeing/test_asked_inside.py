"""What is asked where no hook fires: inside of a backward pass, or of a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ranks import Ranks
from toy import make_trainer, regression_batches

from training import Callback, Trainer

pytestmark = pytest.mark.distributed


class AsksInside(Callback):
    """Asks once, on the last process, from where no hook fires.

    Args:
        kind: what for.
        backward: whether inside of a backward pass; else in an optimizer's step.
        at: the least step.
    """

    name = "Asks"

    def __init__(self, kind: str, backward: bool, at: int) -> None:
        self.kind, self.backward, self.at = kind, backward, at
        self.left = 1
        self.granted: list[tuple[int, str]] = []

    def on_setup(self, trainer: Trainer) -> None:
        def ask(*_: Any) -> None:
            is_last = trainer.rank == trainer.world_size - 1
            if is_last and self.left and trainer.step >= self.at:
                self.left -= 1
                getattr(trainer, f"request_{self.kind}")("please")

        if self.backward:
            next(trainer.model.parameters()).register_hook(ask)
        else:
            trainer.optimizer.register_step_post_hook(ask)

    def evaluate(self, trainer: Trainer, reason: str) -> dict[str, float]:
        self.granted.append((trainer.step, reason.replace(" (rank 1)", "")))
        return {"val_loss": 1.0}


class Unsized:
    """Batches of which nobody knows how many there are."""

    def __iter__(self) -> Iterator[Any]:
        return iter(regression_batches(5, 4))


def asked_inside(
    kind: str, backward: bool, at: int, is_sized: bool = True, **options: Any
) -> Any:
    """Return where the run ended, and what was evaluated, and why.

    Args:
        kind: as of ``AsksInside``.
        backward: likewise.
        at: likewise.
        is_sized: whether the length of an epoch is known.
        options: of the trainer.
    """
    asks = AsksInside(kind, backward, at)
    trainer = make_trainer(
        *(None, regression_batches(5, 4) if is_sized else Unsized(), asks),
        plugins=[{"distributed": {}}],
        num_epochs=2,
        **options,
    )
    trainer.train()
    owner = trainer.stop_owner
    return trainer.epoch, trainer.step, owner, len(trainer.requests), asks.granted


@pytest.mark.parametrize("kind", ["stop", "evaluation"])
@pytest.mark.parametrize("at", [0, 2, 4, 9])
def test_d18_what_is_asked_inside_of_a_backward_pass_is_granted_behind_it(
    two: Ranks, kind: str, at: int
) -> None:
    alone = asked_inside(kind, True, at)
    assert two.run(asked_inside, kind, True, at) == [alone, alone]


@pytest.mark.parametrize("kind", ["stop", "evaluation"])
@pytest.mark.parametrize("at", [4, 9])
def test_d18_so_is_what_is_asked_in_the_last_step_of_an_epoch(
    two: Ranks, kind: str, at: int
) -> None:
    alone = asked_inside(kind, False, at)
    assert two.run(asked_inside, kind, False, at) == [alone, alone]


def ending_early(kind: str) -> Any:
    return asked_inside(kind, False, 2, max_steps=3)


def with_a_tail(kind: str) -> Any:
    return asked_inside(
        kind,
        False,
        2,
        is_sized=False,
        gradient_accumulation_steps=2,
        loss_per="samples",
    )


def of_unknown_length(kind: str) -> Any:
    return asked_inside(kind, False, 4, is_sized=False)


@pytest.mark.parametrize("kind", ["stop", "evaluation"])
def test_d18_so_is_what_is_asked_in_a_last_step_that_nobody_knew_for_that(
    two: Ranks, kind: str
) -> None:
    assert two.run(of_unknown_length, kind) == [of_unknown_length(kind)] * 2


@pytest.mark.parametrize("kind", ["stop", "evaluation"])
def test_d18_so_is_what_is_asked_in_the_last_step_of_a_run(
    two: Ranks, kind: str
) -> None:
    assert two.run(ending_early, kind) == [ending_early(kind)] * 2


@pytest.mark.parametrize("kind", ["stop", "evaluation"])
def test_d18_so_is_what_is_asked_as_a_tail_of_unknown_length_is_stepped(
    two: Ranks, kind: str
) -> None:
    assert two.run(with_a_tail, kind) == [with_a_tail(kind)] * 2


def test_d18_what_is_asked_in_another_step_of_the_optimizer_is_granted_a_window_later(
    two: Ranks,
) -> None:
    assert asked_inside("stop", False, 2)[1] == 3
    first, second = two.run(asked_inside, "stop", False, 2)
    assert first == second
    assert first[:4] == (0, 4, "user", 1)


def heard_by_hooks() -> list[float]:
    """Return the norms that a hook on an accumulated gradient hears in two steps."""
    heard: list[float] = []

    class Listens(Callback):
        name = "Listens"

        def on_setup(self, trainer: Trainer) -> None:
            weight = next(trainer.model.parameters())
            weight.register_post_accumulate_grad_hook(
                lambda p: heard.append(float(p.grad.norm()))
            )

    trainer = make_trainer(
        *(None, regression_batches(2, 4), Listens()), plugins=[{"distributed": {}}]
    )
    trainer.train()
    return heard


def test_d18_a_hook_on_a_gradient_hears_those_of_steps_alone(two: Ranks) -> None:
    for heard in two.run(heard_by_hooks):
        assert len(heard) == 2
        assert all(heard)
