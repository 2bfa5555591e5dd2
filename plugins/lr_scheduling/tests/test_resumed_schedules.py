"""A schedule goes on where it was, and a changed one as told."""

import math
import re

import pytest
import torch
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import CheckpointError

from .fakes import begin, fake_trainer, make_optimizer, run


def sequential(optimizer):
    parts = [ConstantLR(optimizer, 0.5, 2), LinearLR(optimizer, 1.0, 0.1, 8)]
    return SequentialLR(optimizer, parts, milestones=[2])


KINDS = {
    "cosine": lambda o: {"type": "cosine", "warmup": 3},
    "step": lambda o: {"type": "step", "step_size": 2},
    "CosineAnnealingLR": lambda o: {"scheduler": CosineAnnealingLR(o, T_max=10)},
    "MultiStepLR": lambda o: {"scheduler": MultiStepLR(o, [3, 6])},
    "LambdaLR": lambda o: {"scheduler": LambdaLR(o, lambda n: 1 / (n + 1))},
    "OneCycleLR": lambda o: {"scheduler": OneCycleLR(o, max_lr=1.0, total_steps=10)},
    "SequentialLR": lambda o: {"scheduler": sequential(o)},
}


def make(kind, rate=1.0):
    optimizer = make_optimizer(rate, rate / 2)
    options = KINDS[kind](optimizer)
    callback = LearningRateSchedulerCallback(**options, interval="step")
    trainer = fake_trainer(optimizer)
    begin(callback, trainer)
    return callback, trainer


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", [0, 1, 4, 9])
def test_a_resumed_run_uses_the_rates_of_an_uninterrupted_one(tmp_path, kind, split):
    whole, trainer = make(kind)
    expected = run(whole, trainer, [True] * 10)

    first, trainer = make(kind)
    used = run(first, trainer, [True] * split)
    path = tmp_path / "state.pt"
    torch.save([first.state_dict(), trainer.optimizer.state_dict()], path)
    state, optimizer_state = torch.load(path, weights_only=True)

    second, resumed = make(kind)
    resumed.optimizer.load_state_dict(optimizer_state)
    second.load_state_dict(state)
    second.on_train_begin(resumed, True)
    assert used + run(second, resumed, [True] * (10 - split)) == expected


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("kind", KINDS)
def test_a_second_train_starts_afresh(kind):
    callback, trainer = make(kind)
    first = run(callback, trainer, [True] * 10)
    callback.on_close()
    trainer.step = trainer.update = 0
    begin(callback, trainer)
    assert run(callback, trainer, [True] * 10) == first


def changed(choice, **options):
    """Save after 4 of 10 updates at rate 1.0; resume at 0.5 into a run of 20."""
    old = begin(
        LearningRateSchedulerCallback(type="linear"),
        trainer := fake_trainer(make_optimizer(1.0)),
    )
    run(old, trainer, [True] * 4)
    new = LearningRateSchedulerCallback(
        type="linear", on_schedule_change=choice, **options
    )
    resumed = fake_trainer(make_optimizer(0.5), num_epochs=4)
    resumed.step = resumed.update = resumed.batches_seen = 4
    begin(new, resumed, resumed=True)
    new.load_state_dict(old.state_dict())
    return new, resumed


@pytest.mark.parametrize(
    ("choice", "rate", "later"),
    [
        pytest.param("keep", 0.6, 0.2, id="keep: the saved 10 updates from 1.0"),
        pytest.param("new", 0.5, 0.375, id="new: 16 updates are left, from 0.5"),
        pytest.param("rescale", 0.4, 0.3, id="rescale: update 4 of 20, from 0.5"),
    ],
)
def test_a_changed_schedule_goes_on_as_told(choice, rate, later):
    callback, trainer = changed(choice)
    used = run(callback, trainer, [True] * 5)
    assert used[0] == pytest.approx([rate])
    assert used[4] == pytest.approx([later])


@pytest.mark.parametrize("choice", ["keep", "new", "rescale"])
def test_a_choice_once_made_survives_the_next_resume(choice):
    callback, trainer = changed(choice)
    expected = run(callback, trainer, [True] * 8)
    callback, trainer = changed(choice)
    run(callback, trainer, [True] * 3)
    follower = LearningRateSchedulerCallback(type="linear", on_schedule_change=choice)
    resumed = fake_trainer(make_optimizer(0.5), num_epochs=4)
    begin(follower, resumed, resumed=True)
    follower.load_state_dict(callback.state_dict())
    used = run(follower, resumed, [True] * 5)
    assert [rate for (rate,) in used] == pytest.approx(
        [rate for (rate,) in expected[3:]]
    )


def test_a_state_from_before_its_warmup_was_kept_goes_on_as_it_did():
    """Then the warmup was one of the whole run, wherever the schedule began."""
    callback, trainer = changed("new", warmup=0.5)
    run(callback, trainer, [True] * 3)
    state = callback.state_dict()
    assert state["progress"].pop("warmup") == 8
    follower = LearningRateSchedulerCallback(type="linear", warmup=0.5)
    resumed = fake_trainer(make_optimizer(0.5), num_epochs=4)
    begin(follower, resumed, resumed=True)
    follower.load_state_dict(state)
    used = run(follower, resumed, [True])
    assert used == [[pytest.approx(0.5 * 4 / 11)]]


#: Of a run that is longer and begins at another rate, all that ``changed`` changes.
BOTH = (
    "total is 20 now but 10 in the checkpoint, "
    r"optimizer\.lr is 0\.5 now but 1\.0 in the checkpoint"
)


def test_a_changed_schedule_is_refused_and_both_values_of_each_setting_named():
    with pytest.raises(CheckpointError, match=BOTH):
        changed("error")


def test_a_kept_schedule_warns_of_each_setting_that_it_keeps(caplog):
    changed("keep")
    (warning,) = caplog.messages
    assert re.search(f"{BOTH}; on_schedule_change is 'keep'", warning)


def test_a_saved_t_max_does_not_replace_the_configured_one_silently():
    def make_cosine(length, **options):
        optimizer = make_optimizer(1.0)
        scheduler = CosineAnnealingLR(optimizer, T_max=length)
        callback = LearningRateSchedulerCallback(scheduler, **options)
        trainer = fake_trainer(optimizer, num_epochs=length)
        return begin(callback, trainer), trainer

    old, trainer = make_cosine(5)
    new, _ = make_cosine(50)
    with pytest.raises(
        CheckpointError, match="T_max is 50 now but 5 in the checkpoint"
    ):
        new.load_state_dict(old.state_dict())
    trainer.optimizer.step()
    old.driver.advance()
    rescaled, trainer = make_cosine(50, on_schedule_change="rescale")
    trainer.epoch, trainer.step, trainer.update = 1, 5, 5
    rescaled.load_state_dict(old.state_dict())
    expected = 0.5 * (1 + math.cos(math.pi / 50))
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(expected)


def test_another_kind_of_schedule_is_refused_unless_it_starts_anew():
    old = begin(
        LearningRateSchedulerCallback(type="constant"),
        fake_trainer(make_optimizer(1.0)),
    )
    new = LearningRateSchedulerCallback(type="linear", on_schedule_change="keep")
    begin(new, fake_trainer(make_optimizer(1.0)))
    with pytest.raises(CheckpointError, match="type is 'linear' now but 'constant'"):
        new.load_state_dict(old.state_dict())


def warmed(optimizer, length):
    parts = [ConstantLR(optimizer, 0.5, 2), OneCycleLR(optimizer, 1.0, length - 2)]
    return SequentialLR(optimizer, parts, milestones=[2])


def bare(optimizer, length):
    return OneCycleLR(optimizer, 1.0, length)


def kept(make, interval, length, epochs):
    """Save after an epoch of two; resume, told to keep, into a run of ``epochs``."""
    steps = length // 2 if interval == "step" else 3

    def begun(length, epochs, choice):
        optimizer = make_optimizer(1.0)
        callback = LearningRateSchedulerCallback(
            make(optimizer, length), interval=interval, on_schedule_change=choice
        )
        trainer = fake_trainer(optimizer, num_epochs=epochs, steps_per_epoch=steps)
        return begin(callback, trainer), trainer

    old, trainer = begun(length, 2 if interval == "step" else length, "error")
    if interval == "step" and length < 100:
        run(old, trainer, [True] * steps)
    new, resumed = begun(length * 2, epochs, "keep")
    resumed.step = resumed.update = resumed.batches_seen = trainer.step
    resumed.epoch = trainer.step // steps
    new.load_state_dict(old.state_dict())


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize(
    ("make", "interval", "length", "epochs"),
    [
        pytest.param(bare, "step", 10, 4, id="of updates"),
        pytest.param(bare, "epoch", 10, 20, id="of epochs"),
        pytest.param(warmed, "step", 10, 4, id="inside another"),
        pytest.param(bare, "step", 60_000, 4, id="too long to be tried out"),
    ],
)
def test_one_that_is_kept_and_would_end_inside_a_longer_run_is_refused_before_it(
    make, interval, length, epochs
):
    with pytest.raises(CheckpointError, match=r"ends inside the [\d,]+ adv.*'rescale'"):
        kept(make, interval, length, epochs)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("make", [bare, warmed])
def test_one_that_is_kept_and_lasts_as_long_as_the_run_is_taken(make):
    kept(make, "step", 10, 2)
