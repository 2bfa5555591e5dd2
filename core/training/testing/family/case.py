"""One model family under test: its task, some rows, and a model that has learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from training.modules.train_mode import evaluating


def loss_of(outputs: Any) -> Any:
    """Return the loss among a model's outputs, None if it has none."""
    if isinstance(outputs, Mapping):
        return outputs.get("loss")
    return getattr(outputs, "loss", None)


def without_target(task: Any, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row as it is when nobody knows what is to be predicted."""
    return {name: value for name, value in row.items() if name != task.target}


@dataclass
class FamilyCase:
    """What the checks of a family share.

    Attributes:
        family: the instance under test.
        task: what it is to do.
        rows: some rows, targets included.
        make: returns (model, processor), which random weights will do for.
        num_steps: optimizer steps in which the model learns the rows.
        lr: of these steps.
    """

    family: Any
    task: Any
    rows: Sequence[Mapping[str, Any]]
    make: Callable[[], tuple[Any, Any]]
    num_steps: int
    lr: float
    losses: list[float] = field(default_factory=list)

    @cached_property
    def parts(self) -> tuple[Any, Any]:
        """The model as it was made, and its processor."""
        model, processor = self.make()
        return model, processor

    @property
    def processor(self) -> Any:
        """The processor of every model here."""
        return self.parts[1]

    @cached_property
    def learnt(self) -> Any:
        """A model in eval mode that was trained on the rows, all of them in each step.

        What a random one predicts is often the same whatever it is shown.
        """
        model, processor = self.make()
        batch = self.family.collate(processor, list(self.rows))
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.lr)
        model.train()
        for _ in range(self.num_steps):
            loss = loss_of(model(**batch))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            self.losses.append(float(loss.detach()))
        return model.eval()

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Return the family's batch of ``rows``."""
        return self.family.collate(self.processor, list(rows))

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return what the model that has learnt predicts for ``rows``, in one batch."""
        return self.predict_batch(self.collate(rows))

    def predict_batch(self, batch: Any) -> list[Any]:
        """Return what the model that has learnt predicts for a batch."""
        return self.predict_by(self.learnt, batch)

    def predict_by(self, model: Any, batch: Any) -> list[Any]:
        """Return what a model predicts for a batch."""
        with evaluating(model):
            return list(self.family.predict(model, self.processor, batch))

    def answer_batch(self, model: Any, batch: Any) -> list[tuple[Any, float]]:
        """Return what a model predicts for a batch, each with how sure it is."""
        answer = self.family.predict_with_confidence
        with evaluating(model):
            return list(answer(model, self.processor, batch))

    def bare(self) -> list[dict[str, Any]]:
        """Return the rows without what is to be predicted."""
        return [without_target(self.task, row) for row in self.rows]
