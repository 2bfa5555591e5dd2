"""What is asked for inside of a window, or at the end of an epoch."""

from __future__ import annotations

from typing import Any

import pytest
from toy import make_trainer, regression_batches

from training import Callback, Trainer


def test_evaluation_inside_an_epoch_never_sees_a_window_half_done() -> None:
    class Looks(Callback):
        seen: list[bool]

        def on_batch_end(self, trainer: Trainer) -> None:
            trainer.request_evaluation("every batch")

        def evaluate(self, trainer: Trainer) -> dict[str, float]:
            parameters = trainer.model.parameters()
            self.seen.append(all(p.grad is None for p in parameters))
            return {"val_loss": 1.0}

    looks = Looks()
    looks.seen = []
    make_trainer(
        None, regression_batches(5), looks, gradient_accumulation_steps=2
    ).train()
    assert looks.seen == [True] * 3  # two windows, and the epoch's end for its tail


@pytest.mark.parametrize("has_length", [True, False], ids=["a length", "none"])
@pytest.mark.parametrize("asks", ["evaluation", "checkpoint"])
def test_what_is_asked_for_at_the_last_step_of_an_epoch_comes_once(
    asks: str, has_length: bool
) -> None:
    class Endless:
        def __iter__(self) -> Any:
            return iter(regression_batches(4))

    class Asks(Callback):
        heard: list[tuple[str, int, str]]

        def on_step_end(self, trainer: Trainer) -> None:
            if trainer.step % 2 == 0:
                getattr(trainer, f"request_{asks}")("even step")

        def evaluate(self, trainer: Trainer, reason: str) -> dict[str, float]:
            self.heard.append(("evaluation", trainer.step, reason))
            return {"val_loss": 1.0}

        def on_checkpoint(self, trainer: Trainer, reason: str) -> None:
            self.heard.append(("checkpoint", trainer.step, reason))

    listener = Asks()
    listener.heard = []
    loader: Any = regression_batches(4) if has_length else Endless()
    make_trainer(None, loader, listener).train()
    heard = [(step, reason) for kind, step, reason in listener.heard if kind == asks]
    expected = {
        "evaluation": [(2, "even step"), (4, "epoch_end; even step")],
        "checkpoint": [(2, "even step"), (4, "epoch_end"), (4, "even step")],
    }
    assert heard == expected[asks]
