"""A run whose process of one rank fails in one way in one phase; torchrun starts it.

It saves itself with the means that any plugin has, and resumes as a job's next life.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from toy import Regression, regression_batches

from training import Callback, Trainer
from training.builtin.resume import started_at
from training.hardware.launch import job, number_of_restarts

#: The file whose time is that of the failure; it names the process.
MARK = "failed"
#: Bytes that a file may have once the disk is full; a checkpoint has more of them.
FULL = 50_000


class Keeps(Callback):
    """Saves after every second step and at each end of an epoch."""

    name = "keeps"
    hook_api = ">=1.1,<2"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step % 2 == 0:
            trainer.request_checkpoint("every second step")

    def on_checkpoint(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.step:03d}.pt")

    def resume_candidates(self) -> list[tuple[Path, str | None]]:
        found = sorted(self.folder.glob("[0-9]*.pt"), reverse=True)
        return [(path, None) for path in found]


class Fails(Callback):
    """Fails once a life, as it is told.

    Args:
        how: raise, kill, exit, hang or full.
        phase: setup, forward, between, evaluate, save or end.
        rank: of the process that fails.
        lives: how many lives fail.
    """

    name = "fails"
    before = ("keeps",)

    def __init__(self, how: str, phase: str, rank: int, lives: int) -> None:
        self.how, self.phase, self.rank = how, phase, rank
        self.is_due = number_of_restarts() < lives
        self.first_step = 0

    def fail(self, trainer: Trainer, phase: str) -> None:
        """Do it, if this is the phase, the process and the time."""
        is_far = trainer.step >= self.first_step + 3 or phase == "setup"
        if phase != self.phase or trainer.rank != self.rank or not is_far:
            return
        if not self.is_due:
            return
        self.is_due = False
        (Path(sys.argv[1]) / MARK).write_text(str(os.getpid()))
        if self.how == "raise":
            raise OSError(f"broken in {phase}")
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "exit":
            os._exit(3)
        if self.how == "hang":
            time.sleep(3600)
        if self.how == "full":
            # The system's own refusal: every file that is written is too large.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, FULL))

    def on_setup(self, trainer: Trainer) -> None:
        self.fail(trainer, "setup")

    def on_train_begin(self, trainer: Trainer) -> None:
        self.first_step = trainer.step

    def on_step_end(self, trainer: Trainer) -> None:
        self.fail(trainer, "between")

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        self.fail(trainer, "evaluate")
        return {"mine": 1.0}

    def on_checkpoint(self, trainer: Trainer) -> None:
        self.fail(trainer, "save")

    def on_train_end(self, trainer: Trainer) -> None:
        self.fail(trainer, "end")
        if self.phase == "end":  # the others wait for it
            trainer.strategy.sum([1.0])
            trainer.save_checkpoint(Path(sys.argv[1]) / "end.pt")


def main(folder: str, how: str, phase: str, rank: str, lives: str = "1") -> None:
    """Train; leave the weights in ``final.pt``."""
    keeps, fails = Keeps(Path(folder)), Fails(how, phase, int(rank), int(lives))
    torch.manual_seed(0)
    model = Regression()

    def step(module: Regression, batch: Any) -> torch.Tensor:
        fails.fail(trainer, "forward")
        loss: torch.Tensor = module(*batch)["loss"]
        return loss

    trainer = Trainer(
        model,
        regression_batches(4),
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        step_fn=step,
        loss_per="samples",  # what fails shall not be what measures
        callbacks=[keeps, fails],
        plugins=[{"distributed": {"timeout": 10}}],
        num_epochs=4,
        seed=1,
        device="cpu",
        metadata={"job": job(), "ballast": "x" * 2 * FULL},
    )
    told = started_at(trainer, None)
    if trainer.is_main and told:
        sys.stdout.write(f"{told}\n")
    trainer.train()
    if trainer.is_main:
        torch.save(model.state_dict(), Path(folder) / "final.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
