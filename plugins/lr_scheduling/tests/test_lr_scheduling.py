"""What the learning-rate plugin promises, one claim a case."""

import functools
import logging

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from trainbus_lr_scheduling import LearningRateSchedulerCallback, Schedule
from training import ConfigError, MetricError

from .fakes import begin, fake_trainer, make_optimizer, run

NAN, INF = float("nan"), float("inf")


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
    trainer = fake_trainer(optimizer)
    begin(callback, trainer)
    for value in values:
        metrics = {"train_loss": 1.0} if value is None else {"val_loss": value}
        callback.on_metrics(trainer, metrics)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1**drops)


def test_a_plateau_whose_metric_nobody_produces_is_refused():
    def refuse(name, owner, mode):
        raise MetricError(f"{owner} watches {name}")

    trainer = fake_trainer(make_optimizer(1.0))
    trainer.require_metric = refuse
    callback = LearningRateSchedulerCallback(type="plateau", monitor="val_los")
    with pytest.raises(MetricError, match=r"lr_scheduling\.monitor watches val_los"):
        begin(callback, trainer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({}, r"got neither; .* \{type: cosine\}", id="neither"),
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
            {"type": "linear", "warmup": NAN},
            "must be a finite number",
            id="warmup NaN",
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


COSINE = r"\.type is 'cosine', "
FRACTION = r"\.warmup is 0\.1, a fraction of the run, "
EPOCHS = (
    r".*epochs, but max_steps is set .*; use interval 'step', or num_epochs in place"
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "cosine", "warmup": 0.1}, COSINE + ".*; set max_steps, or use type"),
        (
            {"type": "constant", "warmup": 0.1},
            FRACTION + ".*; set max_steps, or use a whole warmup",
        ),
        ({"type": "cosine", "interval": "epoch"}, COSINE + EPOCHS),
        (
            {"type": "constant", "interval": "epoch", "warmup": 0.1},
            FRACTION + EPOCHS,
        ),
    ],
)
def test_what_needs_the_length_is_named_with_a_way_that_helps(options, message):
    most = 8 if "interval" in options else None
    trainer = fake_trainer(make_optimizer(1.0), steps_per_epoch=None, max_steps=most)
    with pytest.raises(ConfigError, match=message):
        LearningRateSchedulerCallback(**options).on_setup(trainer)
    ways = {"interval": "step"} if most else {"type": "constant", "warmup": 1}
    LearningRateSchedulerCallback(**options | ways).on_setup(trainer)


@pytest.mark.parametrize("kind", ["cosine", "linear", "plateau"])
def test_a_floor_above_every_rate_is_refused_since_none_would_move(kind):
    callback = LearningRateSchedulerCallback(type=kind, min_lr=0.5)
    with pytest.raises(ConfigError, match=r"min_lr is 0.5, above .* rate of 0.1, "):
        callback.on_setup(fake_trainer(make_optimizer(0.1, 0.01)))
    # Of one group only: it keeps its rate, and the other one moves.
    callback.on_setup(fake_trainer(make_optimizer(0.5, 0.1)))


def test_a_constant_rate_has_no_floor():
    callback = LearningRateSchedulerCallback(type="constant", min_lr=0.5)
    callback.on_setup(fake_trainer(make_optimizer(0.1)))


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
            lambda o: CosineAnnealingWarmRestarts(o, 11),
            "step",
            ["cycle of the CosineAnnealingWarmRestarts is 11 advances long"],
            id="a cycle that is longer than the run",
        ),
        pytest.param(
            lambda o: CosineAnnealingWarmRestarts(o, 10), "step", [], id="one cycle"
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


def test_skipped_updates_are_reported_at_the_end(caplog):
    trainer = fake_trainer(make_optimizer(1.0))
    callback = begin(LearningRateSchedulerCallback(type="cosine"), trainer)
    run(callback, trainer, [True, False, False])
    with caplog.at_level(logging.INFO):
        callback.on_train_end(trainer)
    assert "2 updates short" in caplog.text
