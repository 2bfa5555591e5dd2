"""R3: what is set between loading and training is compared, and never lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.runs import (
    SavesEverywhere,
    assert_same_end,
    build,
    end_of,
    loader_of,
)
from toy import Regression, assert_equal_weights, make_trainer

from training import Callback, CheckpointError, Trainer
from training.checkpoint.compare import first_difference

Change = Callable[[Trainer], object]


def sets(name: str, value: Any) -> Change:
    return lambda trainer: setattr(trainer, name, value)


def gives(**loading: Any) -> Change:
    return lambda trainer: setattr(trainer, "train_dataloader", loader_of(**loading))


def freezes(trainer: Trainer) -> None:
    layer: Any = trainer.model.get_submodule("layers.0")
    layer._is_frozen = True


class Alters(Callback):
    """Training without it is another one."""

    name = "alters"
    alters_training = True


ANOTHER_RUN: dict[str, Change] = {
    "seed was 3, is 4": sets("seed", 4),
    "gradient_accumulation_steps was 1, is 2": sets("gradient_accumulation_steps", 2),
    "max_grad_norm was None, is 1.0": sets("max_grad_norm", 1.0),
    "batch_size was 2, is 3": gives(batch_size=3),
    "sampler was 'RandomSampler', is 'SequentialSampler'": gives(shuffle=False),
    "drop_last was False, is True": gives(drop_last=True),
    "frozen was [], is 'layers.0'": freezes,
    "plugins.alters was 'active', is 'not active'": (
        lambda trainer: trainer.bus.unregister("alters")
    ),
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    build(SavesEverywhere(tmp_path), Alters()).train()
    return tmp_path / "0-4.pt"


def loaded(path: Path, *allowed: str) -> Trainer:
    trainer = build(Alters())
    trainer.load_checkpoint(path, allow_changes=allowed)
    return trainer


def refused(trainer: Trainer) -> str:
    """Return why ``train`` refuses; nothing has moved."""
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        trainer.train()
    assert trainer.step == 4
    assert first_difference(dict(trainer.model.state_dict()), before) is None
    return str(caught.value)


@pytest.mark.parametrize("told", ANOTHER_RUN)
def test_r3_another_setting_is_refused_as_it_would_have_been_on_loading(
    saved: Path, told: str
) -> None:
    trainer = loaded(saved)
    ANOTHER_RUN[told](trainer)
    message = refused(trainer)
    assert told in message
    assert f"--allow-change {told.partition(' ')[0]}" in message


def test_r3_no_checkpoint_is_saved_of_another_setting_before_training_either(
    saved: Path, tmp_path: Path
) -> None:
    trainer = loaded(saved)
    trainer.gradient_accumulation_steps = 2
    with pytest.raises(CheckpointError, match="accumulation_steps was 1, is 2"):
        trainer.save_checkpoint(tmp_path / "other.pt")
    assert not (tmp_path / "other.pt").exists()
    trainer.gradient_accumulation_steps = 1
    trainer.save_checkpoint(tmp_path / "same.pt")
    assert loaded(tmp_path / "same.pt").step == 4


def test_r3_once_it_is_set_back_the_run_goes_on_as_if_nothing_had_been(
    saved: Path,
) -> None:
    whole = build(Alters())
    whole.train()
    trainer = loaded(saved)
    trainer.gradient_accumulation_steps = 2
    refused(trainer)
    trainer.gradient_accumulation_steps = 1
    trainer.train()
    assert_same_end(end_of(trainer), end_of(whole), "set back")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda trainer: None, id="nothing"),
        pytest.param(sets("num_epochs", 3), id="more epochs"),
        pytest.param(sets("max_steps", 9), id="a bound"),
        pytest.param(gives(workers=1), id="an equal loader with workers"),
    ],
)
def test_r3_what_may_change_freely_may_after_loading(
    saved: Path, change: Change
) -> None:
    trainer = loaded(saved)
    change(trainer)
    trainer.train()
    assert trainer.step > 4


def test_r3_what_was_consented_to_on_loading_may_be_set_after_it(saved: Path) -> None:
    trainer = loaded(saved, "gradient_accumulation_steps")
    trainer.gradient_accumulation_steps = 2
    trainer.train()
    assert trainer.step == 4 + 1 + 3


def test_r3_a_place_in_the_data_that_was_found_in_another_loader_is_not_used(
    saved: Path,
) -> None:
    trainer = loaded(saved, "batch_size")
    gives(batch_size=3)(trainer)
    assert "batch_size was 2, is 3: load it again" in refused(trainer)
    trainer.load_checkpoint(saved, allow_changes=["batch_size"])
    trainer.train()
    first = [i for e, *rows in trainer.plugins["ids"].seen if e == 0 for i in rows]
    assert set(first) == set(range(11))


def test_r3_between_two_epochs_there_is_no_place_to_lose(tmp_path: Path) -> None:
    build(SavesEverywhere(tmp_path), Alters()).train()
    trainer = loaded(tmp_path / "1-6.pt", "batch_size")
    gives(batch_size=3)(trainer)
    trainer.train()
    assert trainer.step == 6 + 4


@pytest.mark.parametrize("name", ["lr", "weight_decay", "betas"])
def test_r3_an_option_of_the_optimizer_that_would_be_lost_is_named(
    saved: Path, name: str
) -> None:
    trainer = loaded(saved)
    value: Any = (0.5, 0.5) if name == "betas" else 0.5
    trainer.optimizer.param_groups[0][name] = value
    message = refused(trainer)
    assert f"optimizer.{name} was " in message
    assert f"is {value}" in message
    assert f"allow_changes=['optimizer.{name}']" in message


def test_r3_an_optimizer_that_was_not_there_on_loading_is_named(saved: Path) -> None:
    trainer = loaded(saved)
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
    with pytest.raises(CheckpointError, match=r"trainer\.optimizer was replaced after"):
        trainer.train()


def test_r3_a_seed_of_its_own_is_the_order_of_the_data(saved: Path) -> None:
    """Without a checkpoint it may be set until the run begins, and then holds whole."""
    set_later, given = build(seed=None), build(seed=7)
    set_later.seed = 7
    for trainer in (set_later, given):
        trainer.train()
    assert set_later.order_seed == 7
    assert set_later.plugins["ids"].seen == given.plugins["ids"].seen


def test_r3_a_run_without_a_seed_takes_that_of_the_file(tmp_path: Path) -> None:
    saved = build(SavesEverywhere(tmp_path), seed=None, ambient=11)
    saved.train()
    trainer = build(seed=None, ambient=12)
    assert trainer.order_seed != saved.order_seed
    trainer.load_checkpoint(tmp_path / "0-4.pt")
    assert trainer.order_seed == saved.order_seed
    trainer.train()


def between_epochs(folder: Path, **options: Any) -> Trainer:
    """Return a trainer that was saved between two epochs, and loaded what it saved."""
    trainer = make_trainer(Regression(dropout=0.5), seed=0, **options)
    trainer.train()
    path = trainer.save_checkpoint(folder / "end.pt")
    again = make_trainer(Regression(dropout=0.5), seed=0, num_epochs=2, **options)
    again.load_checkpoint(path)
    return again


def test_r3_a_rate_in_a_tensor_that_is_filled_after_loading_is_refused(
    tmp_path: Path,
) -> None:
    trainer = between_epochs(tmp_path, lr=torch.tensor(0.1))
    trainer.optimizer.param_groups[0]["lr"].fill_(0.5)
    with pytest.raises(CheckpointError, match=r"optimizer\.lr was 0\.1.*, is 0\.5"):
        trainer.train()


@pytest.mark.parametrize(
    "switch",
    [
        pytest.param(lambda model: model.layers[2].eval(), id="a module put to rest"),
        pytest.param(
            lambda model: model.layers[0].weight.requires_grad_(False), id="frozen"
        ),
    ],
)
def test_r3_what_is_switched_after_loading_is_put_back_between_epochs_too(
    tmp_path: Path, switch: Callable[[Any], object], caplog: pytest.LogCaptureFixture
) -> None:
    left_alone = between_epochs(tmp_path)
    left_alone.train()
    trainer = between_epochs(tmp_path)
    switch(trainer.model)
    trainer.train()
    assert "as in the checkpoint, not as this run set them" in caplog.text
    assert_equal_weights(trainer.model, left_alone.model)
