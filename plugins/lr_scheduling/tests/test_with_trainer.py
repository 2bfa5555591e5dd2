"""The plugin inside a real run: order, logged rates, checkpoints."""

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR

from trainbus_lr_scheduling import LearningRateSchedulerCallback
from training import Callback, ConfigError, PluginError, Trainer

BATCHES = [(torch.ones(2, 3), torch.zeros(2, 1))] * 4


class Rates(Callback):
    """Notes the rate that each step reports."""

    def __init__(self):
        self.seen = []

    def on_step_end(self, logs):
        self.seen.append(logs["lr"])


def make_trainer(
    tmp_path, callbacks=(), num_epochs=2, scheduler_length=None, **options
):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = SGD(model.parameters(), lr=0.1)
    if scheduler_length:
        options["scheduler"] = CosineAnnealingLR(optimizer, T_max=scheduler_length)
    return Trainer(
        model,
        BATCHES,
        optimizer=optimizer,
        loss_fn=nn.functional.mse_loss,
        callbacks=list(callbacks),
        num_epochs=num_epochs,
        device="cpu",
        seed=0,
        save_dir=tmp_path,
        **options,
    )


def test_the_logged_rate_is_the_one_that_was_used(tmp_path):
    rates = Rates()
    schedule = LearningRateSchedulerCallback(type="linear")
    make_trainer(tmp_path, [rates, schedule], num_epochs=1).train()
    assert rates.seen == pytest.approx([0.1, 0.075, 0.05, 0.025])


def test_a_scheduler_given_twice_is_stepped_once(tmp_path):
    trainer = make_trainer(tmp_path, scheduler_length=2)
    both = LearningRateSchedulerCallback(trainer.scheduler)
    trainer = Trainer(
        trainer.model,
        BATCHES,
        optimizer=trainer.optimizer,
        scheduler=trainer.scheduler,
        callbacks=[both],
        loss_fn=nn.functional.mse_loss,
        num_epochs=2,
        device="cpu",
    )
    trainer.train()
    assert trainer.scheduler.last_epoch == 2


def test_two_schedules_are_refused(tmp_path):
    with pytest.raises(PluginError, match="lr_scheduling"):
        make_trainer(
            tmp_path,
            [LearningRateSchedulerCallback(type="linear")],
            scheduler_length=2,
        )


@pytest.mark.parametrize("scheduler_length", [None, 2])
def test_two_schedules_are_refused_under_names_of_their_own(tmp_path, scheduler_length):
    names = ["other", "mine"] if scheduler_length is None else ["mine"]
    trainer = make_trainer(
        tmp_path,
        plugins=[
            (name, LearningRateSchedulerCallback(type="linear")) for name in names
        ],
        scheduler_length=scheduler_length,
    )
    with pytest.raises(ConfigError, match="both set learning rates"):
        trainer.train()


@pytest.mark.parametrize("steps", [3, 4, 6])
@pytest.mark.parametrize(
    "options", [{"type": "cosine", "warmup": 2}, {"type": "plateau", "patience": 0}]
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, options, steps):
    if options["type"] == "plateau":
        options = {**options, "monitor": "train_loss", "threshold": 0.5}

    class Save(Callback):
        def on_step_end(self, trainer):
            if trainer.step == steps:
                trainer.request_checkpoint("test")

        def on_checkpoint(self, trainer, reason):
            if reason == "test":
                trainer.save_checkpoint(tmp_path / "half.pt")

    whole = Rates()
    schedule = LearningRateSchedulerCallback(**options)
    make_trainer(tmp_path, [whole, schedule, Save()], num_epochs=3).train()
    rest = Rates()
    resumed = make_trainer(
        tmp_path, [rest, LearningRateSchedulerCallback(**options)], num_epochs=3
    )
    resumed.load_checkpoint(tmp_path / "half.pt")
    resumed.train()
    assert rest.seen == whole.seen[steps:]


class Late:
    """Whether an update was applied, where to ask would make the host wait."""

    def __bool__(self):
        raise AssertionError("the host waited for the device")


SCHEDULES = {
    "each epoch": {"type": "cosine", "interval": "epoch"},
    "a plateau": {"type": "plateau", "monitor": "train_loss"},
}


@pytest.mark.parametrize("options", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_a_schedule_that_does_not_move_at_a_step_does_not_ask_what_it_did(options):
    LearningRateSchedulerCallback(**options).on_step_end(applied=Late())


def test_one_that_moves_at_each_update_has_to_ask():
    with pytest.raises(AssertionError, match="waited"):
        LearningRateSchedulerCallback(type="cosine").on_step_end(applied=Late())
