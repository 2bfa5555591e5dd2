"""A module that a loss merely uses is in eval mode in evaluations, and then as before.

Such as a frozen teacher whose owner left it in train mode.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from trainbus_evaluation import EvaluationCallback, Evaluator
from training import Trainer
from training.callbacks import EarlyStoppingCallback

TEACHER = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)).requires_grad_(False)
PLACES = ["global", "closure", "attribute", "partial", "callback", "loss_fn"]


def distance(model, batch, teacher):
    x, _ = batch
    return {"loss": (model(x) - teacher(x)).square().mean(), "weight": len(x)}


def by_global(model, batch):
    return distance(model, batch, TEACHER)


class Keeps:
    """A plugin that holds a teacher, which nobody else does."""

    def __init__(self, teacher):
        self.teacher = teacher

    def state_dict(self):
        return self.teacher.state_dict()

    def load_state_dict(self, state):
        self.teacher.load_state_dict(state)


def loss_of(place, holder):
    """Return a loss that has ``holder.teacher`` at ``place``, as an option."""
    teacher = holder.teacher
    if place == "global":
        return {"step_fn": by_global}
    if place == "closure":
        return {"step_fn": lambda model, batch: distance(model, batch, teacher)}
    if place == "partial":
        return {"step_fn": functools.partial(distance, teacher=teacher)}
    if place == "loss_fn":
        return {"loss_fn": lambda output, x: (output - teacher(x)).square().mean()}
    return {"step_fn": lambda model, batch: distance(model, batch, holder.teacher)}


def rows(scale):
    generator = torch.Generator().manual_seed(0)
    return [(x, x) for x in (scale * torch.randn(12, 4, generator=generator)).split(4)]


def fresh_teacher():
    TEACHER[1].reset_running_stats()
    TEACHER.train()
    return TEACHER


def trained(place, validation, callbacks=(), mode=True):
    torch.manual_seed(0)
    holder = (Keeps if place == "callback" else SimpleNamespace)(
        teacher=fresh_teacher()
    )
    holder.teacher[1].train(mode)
    added = [*callbacks, *([holder] if place == "callback" else [])]
    model = nn.Linear(4, 2)
    trainer = Trainer(
        model,
        rows(1),
        validation,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        num_epochs=2,
        callbacks=added,
        device="cpu",
        seed=0,
        plugins=["no:progress", "no:run_record"],
        **loss_of(place, holder),
    )
    trainer.train()
    return trainer, holder


def numbers_of(module):
    return [value.clone() for value in module.state_dict().values()]


def is_same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("place", PLACES)
def test_an_evaluation_moves_no_teacher_and_gives_it_its_mode_back(place, mode):
    ends = []
    for validation in (None, rows(5)):
        trainer, holder = trained(place, validation, mode=mode)
        ends.append([*numbers_of(holder.teacher), *numbers_of(trainer.model)])
        assert [m.training for m in holder.teacher.modules()] == [True, True, mode]
    assert is_same(*ends)


@pytest.mark.parametrize("place", PLACES)
def test_the_loss_of_an_evaluation_is_that_of_a_teacher_in_eval_mode(place):
    trainer, holder = trained(place, rows(5))
    holder.teacher.eval()
    with torch.no_grad():
        losses = [
            (trainer.model.eval()(x) - holder.teacher(x)).square().mean()
            for x, _ in rows(5)
        ]
    expected = torch.stack(losses).mean().item()
    assert trainer.history[-1]["val_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("place", PLACES)
def test_an_evaluator_alone_measures_a_teacher_in_eval_mode_too(place):
    model, holder = nn.Linear(4, 2), SimpleNamespace(teacher=fresh_teacher())
    before = numbers_of(holder.teacher)
    evaluator = Evaluator(model, **loss_of(place, holder))
    measured = evaluator.evaluate(rows(5))
    assert is_same(before, numbers_of(holder.teacher))
    assert holder.teacher[1].training
    holder.teacher.eval()
    assert measured == evaluator.evaluate(rows(5))


def test_the_evaluator_of_a_trainer_alone_measures_it_so_too():
    trainer, holder = trained("closure", None)
    before = numbers_of(holder.teacher)
    evaluator = Evaluator(trainer.model, compute_loss=trainer.compute_loss)
    evaluator.evaluate(rows(5))
    assert is_same(before, numbers_of(holder.teacher))
    assert holder.teacher[1].training


def average():
    from trainbus_ema import EmaCallback

    return EmaCallback()


@pytest.mark.parametrize("callback", [average, EarlyStoppingCallback])
def test_whoever_listens_to_evaluations_the_teacher_stays(
    callback, repository, monkeypatch
):
    # The examples are not installed.
    monkeypatch.syspath_prepend(str(repository / "examples" / "ema" / "src"))
    ends = []
    for validation in (None, rows(5)):
        given = [callback()] if validation else []
        _, holder = trained("closure", validation, given)
        ends.append(numbers_of(holder.teacher))
    assert is_same(*ends)


def test_the_look_before_training_moves_no_teacher_and_is_no_other_measurement():
    ends = []
    for count in (0, 2):
        given = [EvaluationCallback(sanity_batches=count)]
        trainer, holder = trained("closure", rows(5), given)
        ends.append((trainer.history[-1]["val_loss"], numbers_of(holder.teacher)))
    assert ends[0][0] == ends[1][0]
    assert is_same(ends[0][1], ends[1][1])


def test_a_teacher_that_torch_exported_and_that_knows_no_modes_is_left_alone():
    example = (torch.randn(4, 4),)
    teacher = torch.export.export(nn.Linear(4, 2), example).module()
    holder = SimpleNamespace(teacher=teacher)
    evaluator = Evaluator(nn.Linear(4, 2), **loss_of("closure", holder))
    assert evaluator.evaluate(rows(1))["loss"] > 0


def test_a_teacher_that_torch_froze_and_that_has_no_mode_is_left_alone():
    scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 2), nn.Dropout()).eval())
    holder = SimpleNamespace(teacher=torch.jit.freeze(scripted))
    evaluator = Evaluator(nn.Linear(4, 2), **loss_of("closure", holder))
    assert evaluator.evaluate(rows(1))["loss"] > 0
