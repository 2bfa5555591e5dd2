"""R8: a random generator that a loss or a model keeps is in no checkpoint, and told."""

from __future__ import annotations

import functools
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from toy import regression_batches

from training import Callback, Trainer

SENTENCE = "keeps a random generator of its own"


class Noisy(nn.Linear):
    """May keep a generator."""


class Saving(Noisy):
    """Saves what it keeps."""

    def get_extra_state(self) -> Any:
        return {}

    def set_extra_state(self, state: Any) -> None:
        pass


class Draws:
    """A callable object with a generator."""

    def __init__(self, generator: Any) -> None:
        self.noise = generator

    def __call__(self, model: Any, batch: Any) -> Tensor:
        return loss_of(model, batch)


class Keeps(Callback):
    """Has the generator, and its state."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator


def loss_of(model: Any, batch: Any, *rest: Any) -> Tensor:
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def closing(generator: Any) -> Any:
    return lambda model, batch: loss_of(model, batch, generator)


def defaulting(generator: Any) -> Any:
    def step(model: Any, batch: Any, drawn: Any = generator) -> Tensor:
        return loss_of(model, batch)

    return step


def told(caplog: Any, step: Any, model: Any = None, **options: Any) -> list[str]:
    model = nn.Linear(4, 1) if model is None else model
    given = {"train_dataloader": regression_batches(), "device": "cpu", **options}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Trainer(model, optimizer=optimizer, step_fn=step, max_steps=1, **given).train()
    return [r.message for r in caplog.records if SENTENCE in r.message]


GENERATORS = [
    torch.Generator(),
    np.random.default_rng(0),
    np.random.RandomState(0),
    random.Random(0),
]


@pytest.mark.parametrize(
    "generator",
    GENERATORS,
    ids=lambda each: type(each).__name__,
)
@pytest.mark.parametrize(
    ("place", "holding"),
    [
        ("generator", closing),
        ("default0", defaulting),
        ("noise", Draws),
        ("0", lambda each: functools.partial(lambda g, m, b: loss_of(m, b), each)),
    ],
)
def test_r8_a_generator_that_a_step_function_keeps_is_told_with_its_place(
    generator: Any, place: str, holding: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (message,) = told(caplog, holding(generator))
    assert f"({place})" in message


@pytest.mark.parametrize(("kind", "count"), [(Noisy, 1), (Saving, 0)])
def test_r8_a_generator_of_a_module_is_told_unless_the_module_saves_it(
    kind: Any, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.Sequential(kind(4, 1))
    model[0].noise = torch.Generator()
    messages = told(caplog, loss_of, model)
    assert [SENTENCE + " (model.0.noise)" in each for each in messages] == [
        True
    ] * count


def test_r8_a_generator_that_the_loader_or_a_callback_has_is_none_to_tell_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    both = torch.Generator()
    rows = TensorDataset(torch.ones(6, 4), torch.ones(6, 1))
    loader = DataLoader(rows, 2, shuffle=True, generator=both)
    assert not told(caplog, closing(both), train_dataloader=loader)
    assert not told(caplog, closing(both), callbacks=[Keeps(both)])
