"""What the learning-rate plugin promises, one claim a case."""

import functools
import logging
import math
from types import SimpleNamespace

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from trainbus_lr_scheduling import LearningRateSchedulerCallback, Schedule
from training.errors import CheckpointError, ConfigError, MetricError

NAN, INF = float("nan"), float("inf")


def make_optimizer(*rates):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": r} for r in rates]
    return SGD(groups or [torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def fake_trainer(optimizer, num_epochs=2, steps_per_epoch=5, max_steps=None):
    total = None if steps_per_epoch is None else num_epochs * steps_per_epoch
    return SimpleNamespace(
        optimizer=optimizer,
        group_places=[],
        num_epochs=num_epochs,
        steps_per_epoch=steps_per_epoch,
        max_steps=max_steps,
        gradient_accumulation_steps=1,
        total_steps=max_steps or total,
        epoch=0,
        step=0,
        update=0,
        require_metric=lambda name, owner: None,
    )


def begin(callback, trainer, resumed=False):
    callback.on_setup(trainer)
    callback.on_train_begin(trainer, resumed)
    return callback


def run(callback, trainer, applied):
    """Fire the events of windows whose updates were ``applied``; return rates used."""
    used = []
    for is_applied in applied:
        used.append([group["lr"] for group in trainer.optimizer.param_groups])
        trainer.optimizer.step()
        trainer.step += 1
        trainer.update += is_applied
        callback.on_step_end(is_applied)
    return used


@pytest.mark.parametrize(
    ("schedule", "advances", "expected"),
    [
        pytest.param(Schedule("cosine", 10), 0, 1.0, id="cosine starts at the rate"),
        pytest.param(Schedule("cosine", 10), 5, 0.5, id="cosine halves half-way"),
        pytest.param(Schedule("cosine", 10), 10, 0.0, id="cosine ends at zero"),
        pytest.param(Schedule("cosine", 10), 99, 0.0, id="cosine stays at its end"),
        pytest.param(
            Schedule("cosine", 10, min_lr=0.2), 5, 0.6, id="cosine falls to min_lr"
        ),
        pytest.param(
            Schedule("linear", 10, min_factor=0.5), 5, 0.75, id="linear to min_factor"
        ),
        pytest.param(Schedule("constant"), 10**6, 1.0, id="constant stays"),
        pytest.param(
            Schedule("step", step_size=3), 2, 1.0, id="step waits for step_size"
        ),
        pytest.param(Schedule("step", step_size=3), 3, 0.1, id="step drops by gamma"),
        pytest.param(
            Schedule("step", step_size=1, min_lr=0.05), 9, 0.05, id="step has a floor"
        ),
        pytest.param(
            Schedule("linear", 10, warmup=4), 0, 0.2, id="the first update is not idle"
        ),
        pytest.param(Schedule("linear", 10, warmup=4), 4, 1.0, id="warmup reaches it"),
        pytest.param(
            Schedule("linear", 10, warmup=4), 7, 0.5, id="decay starts after warmup"
        ),
        pytest.param(
            Schedule("linear", 10, min_lr=2.0), 5, 1.0, id="no floor above the rate"
        ),
    ],
)
def test_closed_forms_have_these_values(schedule, advances, expected):
    assert schedule.lr_at(advances, 1.0) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("total", [1, 7, 100])
def test_cosine_equals_torch(total):
    optimizer = make_optimizer(0.3)
    theirs = CosineAnnealingLR(optimizer, T_max=total, eta_min=0.01)
    ours = Schedule("cosine", total, min_lr=0.01)
    for advances in range(total + 1):
        rate = optimizer.param_groups[0]["lr"]
        assert ours.lr_at(advances, 0.3) == pytest.approx(rate, abs=1e-12)
        optimizer.step()
        theirs.step()


def test_a_skipped_update_does_not_advance_the_schedule():
    trainer = fake_trainer(make_optimizer(1.0), num_epochs=1, steps_per_epoch=4)
    callback = begin(LearningRateSchedulerCallback(type="linear"), trainer)
    used = run(callback, trainer, [True, False, False, True])
    assert used == [[1.0], [0.75], [0.75], [0.75]]


def test_every_group_follows_from_its_own_rate_and_a_later_group_joins():
    optimizer = make_optimizer(1.0, 0.1)
    trainer = fake_trainer(optimizer, num_epochs=1, steps_per_epoch=4)
    callback = begin(LearningRateSchedulerCallback(type="linear"), trainer)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 4})
    run(callback, trainer, [True, True])
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([0.5, 0.05, 2.0])


def test_a_rate_that_is_a_tensor_stays_that_tensor():
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=torch.tensor(1.0))
    tensor = optimizer.param_groups[0]["lr"]
    trainer = fake_trainer(optimizer, num_epochs=1, steps_per_epoch=4)
    callback = begin(LearningRateSchedulerCallback(type="linear"), trainer)
    run(callback, trainer, [True, True])
    assert optimizer.param_groups[0]["lr"] is tensor
    assert tensor.item() == pytest.approx(0.5)


def test_a_bare_scheduler_advances_once_an_epoch():
    optimizer = make_optimizer(1.0)
    scheduler = CosineAnnealingLR(optimizer, T_max=2)
    trainer = fake_trainer(optimizer)
    callback = begin(LearningRateSchedulerCallback(scheduler), trainer)
    run(callback, trainer, [True] * 5)
    assert optimizer.param_groups[0]["lr"] == 1.0
    trainer.epoch = 1
    callback.on_epoch_end(trainer)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("applied", "completed", "rate"),
    [
        pytest.param([True, False], 1, 0.5, id="some skipped updates do not matter"),
        pytest.param([False, False], 1, 1.0, id="an epoch without update is not one"),
        pytest.param([True], 0, 1.0, id="nor is an epoch that did not complete"),
    ],
)
def test_what_advances_a_schedule_per_epoch(applied, completed, rate):
    optimizer = make_optimizer(1.0)
    trainer = fake_trainer(optimizer)
    callback = LearningRateSchedulerCallback(type="linear", interval="epoch")
    begin(callback, trainer)
    run(callback, trainer, applied)
    trainer.epoch = completed
    callback.on_epoch_end(trainer)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)


@pytest.mark.parametrize(
    ("values", "drops"),
    [
        pytest.param([3.0, 3.0, 3.0], 1, id="patience 1 lets one miss pass"),
        pytest.param([3.0, 3.0, 2.0, 2.0], 0, id="an improvement resets the count"),
        pytest.param([3.0, NAN, NAN], 1, id="NaN is a miss"),
        pytest.param([3.0, -INF, 2.9, 2.8], 0, id="an infinite value is never best"),
        pytest.param([3.0, None, None, 3.0], 0, id="a missing value is not a check"),
    ],
)
@pytest.mark.parametrize("is_object", [False, True], ids=["by type", "as an object"])
def test_a_plateau_counts_fresh_values_only(values, drops, is_object):
    optimizer = make_optimizer(1.0)
    if is_object:
        scheduler = ReduceLROnPlateau(optimizer, patience=1)
        callback = LearningRateSchedulerCallback(scheduler)
    else:
        callback = LearningRateSchedulerCallback(type="plateau", patience=1)
    begin(callback, fake_trainer(optimizer))
    for value in values:
        callback.on_metrics(
            {"train_loss": 1.0} if value is None else {"val_loss": value}
        )
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1**drops)


def test_a_plateau_whose_metric_nobody_produces_is_refused():
    def refuse(name, owner):
        raise MetricError(f"{owner} watches {name}")

    trainer = fake_trainer(make_optimizer(1.0))
    trainer.require_metric = refuse
    callback = LearningRateSchedulerCallback(type="plateau", monitor="val_los")
    with pytest.raises(MetricError, match=r"lr_scheduling\.monitor watches val_los"):
        begin(callback, trainer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({}, "needs a scheduler object or a type", id="neither"),
        pytest.param({"type": "cosin"}, "did you mean 'cosine'", id="misspelt type"),
        pytest.param({"scheduler": object()}, "is no scheduler", id="no scheduler"),
        pytest.param(
            {"type": "cosine", "interval": "epochs"},
            "did you mean 'epoch'",
            id="misspelt interval",
        ),
        pytest.param({"type": "linear", "warmup": -1}, "warmup is -1", id="warmup < 0"),
        pytest.param(
            {"type": "linear", "warmup": 1.5}, "whole number", id="warmup 1.5"
        ),
        pytest.param(
            {"type": "linear", "warmup": NAN}, "must be finite", id="warmup NaN"
        ),
        pytest.param({"type": "step"}, "needs step_size", id="step without step_size"),
        pytest.param(
            {"type": "cosine", "step_size": 3}, "only type 'step'", id="ignored option"
        ),
        pytest.param(
            {"type": "plateau", "interval": "step"}, "leave interval out", id="plateau"
        ),
        pytest.param(
            {"type": "plateau", "warmup": 5}, "a plateau takes none", id="its warmup"
        ),
        pytest.param({"type": "plateau", "factor": 1.0}, "factor is 1.0", id="factor"),
        pytest.param({"type": "cosine", "min_lr": -1}, "min_lr is -1", id="min_lr"),
    ],
)
def test_options_that_cannot_work_are_refused_on_construction(options, message):
    with pytest.raises(ConfigError, match=message):
        LearningRateSchedulerCallback(**options)


@pytest.mark.parametrize(
    ("options", "is_refused"),
    [
        pytest.param({"type": "cosine"}, True, id="cosine needs the length"),
        pytest.param(
            {"type": "constant", "warmup": 0.1}, True, id="so does a fraction"
        ),
        pytest.param({"type": "constant", "warmup": 9}, False, id="constant does not"),
        pytest.param({"type": "step", "step_size": 9}, False, id="step does not"),
    ],
)
def test_a_run_of_unknown_length_is_refused_where_it_matters(options, is_refused):
    trainer = fake_trainer(make_optimizer(1.0), steps_per_epoch=None)
    callback = LearningRateSchedulerCallback(**options)
    if is_refused:
        with pytest.raises(ConfigError, match="set max_steps"):
            callback.on_setup(trainer)
    else:
        callback.on_setup(trainer)


def test_a_warmup_fraction_is_a_fraction_of_the_planned_updates():
    trainer = fake_trainer(make_optimizer(1.0), num_epochs=4, steps_per_epoch=5)
    callback = LearningRateSchedulerCallback(type="cosine", warmup=0.1)
    assert callback.schedule(trainer) == Schedule("cosine", total=20, warmup=2)


def test_max_steps_shortens_the_plan_in_both_units():
    trainer = fake_trainer(make_optimizer(1.0), 4, 5, max_steps=12)
    for interval, total in (("step", 12), ("epoch", 3)):
        callback = LearningRateSchedulerCallback(type="linear", interval=interval)
        assert callback.schedule(trainer).total == total


@pytest.mark.parametrize(
    ("length", "interval", "hint"),
    [
        pytest.param(10, "epoch", "pass interval='step'", id="updates, but per epoch"),
        pytest.param(2, "step", "pass interval='epoch'", id="epochs, but per update"),
        pytest.param(7, None, "make it 2", id="neither"),
        pytest.param(2, None, None, id="a length that fits is silent"),
    ],
)
def test_a_length_that_does_not_fit_the_run_is_warned_of(
    caplog, length, interval, hint
):
    optimizer = make_optimizer(1.0)
    scheduler = CosineAnnealingLR(optimizer, T_max=length)
    callback = LearningRateSchedulerCallback(scheduler, interval=interval)
    with caplog.at_level(logging.WARNING):
        callback.on_setup(fake_trainer(optimizer))
    assert (hint in caplog.text) if hint else not caplog.records


def from_transformers(optimizer, num_warmup, num_training):
    """As transformers' get_linear_schedule_with_warmup makes it."""

    def factor(step, *, num_warmup_steps, num_training_steps):
        if step < num_warmup_steps:
            return step / max(1, num_warmup_steps)
        rest = num_training_steps - step
        return max(0.0, rest / max(1, num_training_steps - num_warmup_steps))

    bound = functools.partial(
        factor, num_warmup_steps=num_warmup, num_training_steps=num_training
    )
    return LambdaLR(optimizer, bound)


@pytest.mark.parametrize(
    ("make", "interval", "hints"),
    [
        pytest.param(
            lambda o: from_transformers(o, 3, 10),
            "epoch",
            ["pass interval='step'", "the first epoch learns nothing", "never gets to"],
            id="a schedule of transformers, per epoch",
        ),
        pytest.param(
            lambda o: from_transformers(o, 3, 10), "step", [], id="it per update"
        ),
        pytest.param(
            lambda o: PolynomialLR(o, total_iters=5), "step", ["make it 10"], id="poly"
        ),
        pytest.param(
            lambda o: LinearLR(o, 0.1, total_iters=5), "step", [], id="a warmup"
        ),
        pytest.param(
            lambda o: LinearLR(o, 0.1, total_iters=10),
            "step",
            ["never gets to the rest"],
            id="a warmup as long as the run",
        ),
        pytest.param(
            lambda o: SequentialLR(
                o,
                [LinearLR(o, 0.1, total_iters=4), CosineAnnealingLR(o, T_max=10)],
                milestones=[4],
            ),
            "step",
            ["is 14 advances long"],
            id="parts that are longer together",
        ),
        pytest.param(
            lambda o: LambdaLR(o, lambda n: 1.0), "step", [], id="one without a length"
        ),
    ],
)
def test_a_schedule_that_does_not_go_with_the_run_is_warned_of(
    caplog, make, interval, hints
):
    optimizer = make_optimizer(1.0)
    callback = LearningRateSchedulerCallback(make(optimizer), interval=interval)
    callback.on_setup(fake_trainer(optimizer))
    assert [hint for hint in hints if hint not in caplog.text] == []
    assert len(caplog.records) == len(hints)


@pytest.mark.parametrize(("warmup", "is_warned_of"), [(9, False), (10, True)])
def test_a_warmup_as_long_as_the_run_is_warned_of(caplog, warmup, is_warned_of):
    callback = LearningRateSchedulerCallback(type="cosine", warmup=warmup)
    callback.on_setup(fake_trainer(make_optimizer(1.0)))
    assert ("the full rate is never reached" in caplog.text) == is_warned_of


def test_a_one_cycle_that_would_end_inside_the_run_is_refused():
    optimizer = make_optimizer(1.0)
    scheduler = OneCycleLR(optimizer, max_lr=1.0, total_steps=9)
    callback = LearningRateSchedulerCallback(scheduler, interval="step")
    with pytest.raises(ConfigError, match="make it 10"):
        callback.on_setup(fake_trainer(optimizer))


def test_a_scheduler_of_another_optimizer_is_refused():
    scheduler = CosineAnnealingLR(make_optimizer(1.0), T_max=2)
    callback = LearningRateSchedulerCallback(scheduler)
    with pytest.raises(ConfigError, match="another optimizer"):
        callback.on_setup(fake_trainer(make_optimizer(1.0)))


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
    begin(new, resumed, resumed=True)
    new.load_state_dict(old.state_dict())
    resumed.step = resumed.update = 4
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


def test_a_changed_schedule_is_refused_and_both_values_named():
    with pytest.raises(
        CheckpointError, match="total is 20 now but 10 in the checkpoint"
    ):
        changed("error")


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


def test_skipped_updates_are_reported_at_the_end(caplog):
    trainer = fake_trainer(make_optimizer(1.0))
    callback = begin(LearningRateSchedulerCallback(type="cosine"), trainer)
    run(callback, trainer, [True, False, False])
    with caplog.at_level(logging.INFO):
        callback.on_train_end(trainer)
    assert "2 updates short" in caplog.text
