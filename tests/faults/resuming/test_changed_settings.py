"""R3, C11: other settings and absent plugins are refused, or accepted and told."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.runs import (
    SavesEverywhere,
    build,
    loader_of,
)

from training import Callback, CheckpointError, ConfigError, Trainer
from training.checkpoint.compare import first_difference

CHANGED: dict[str, dict[str, Any]] = {
    "seed was 3, is 4": {"seed": 4},
    "dataset_length was 11, is 9": {"rows": 9},
    "dataset was 'a', is 'b'": {"fingerprint": "b"},
    "dataset_source was 'v1', is 'v2'": {"source_fingerprint": "v2"},
    "dataset was 'a', is 'c'": {"fingerprint": "c", "source_fingerprint": "v2"},
    "sampler was 'RandomSampler', is 'SequentialSampler'": {"shuffle": False},
    "batch_size was 2, is 3": {"batch_size": 3},
    "drop_last was False, is True": {"drop_last": True},
    "precision was 'fp32', is 'bf16'": {"precision": "bf16"},
    "gradient_accumulation_steps was 1, is 2": {"gradient_accumulation_steps": 2},
    "max_grad_norm was None, is 1.0": {"max_grad_norm": 1.0},
    "optimizer was 'AdamW', is 'SGD'": {"optimizer": torch.optim.SGD},
    "optimizer.lr was 0.01, is 0.02": {"lr": 0.02},
    "optimizer.weight_decay was 0.01, is 0.5": {"weight_decay": 0.5},
    "frozen was [], is 'layers.0'": {"freeze": "layers.0"},
}


def changed(options: dict[str, Any]) -> Trainer:
    """Return a trainer like ``build()`` with one setting changed."""
    options = dict(options)
    names = ("batch_size", "drop_last", "shuffle")
    loading = {k: options.pop(k) for k in names if k in options}
    loader = loader_of(**loading)
    for name in ("fingerprint", "source_fingerprint"):
        if name in options:
            setattr(loader.dataset, name, options.pop(name))
    rows = options.pop("rows", None)
    if rows is not None:
        loader.dataset.x = loader.dataset.x[:rows]
        loader.sampler.data_source.x = loader.dataset.x
    kind = options.pop("optimizer", torch.optim.AdamW)
    rates = {k: options.pop(k) for k in ("lr", "weight_decay") if k in options}
    trainer = build(loader=loader, **options)
    if rates or kind is not torch.optim.AdamW:
        trainer.optimizer = kind(trainer.model.parameters(), **{"lr": 0.01, **rates})
    return trainer


@pytest.mark.parametrize("told", CHANGED)
def test_r3_a_changed_setting_is_refused_with_both_values_and_the_way_to_accept_it(
    tmp_path: Path, told: str
) -> None:
    build(SavesEverywhere(tmp_path)).train()
    name = told.partition(" ")[0]
    trainer = changed(CHANGED[told])
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        trainer.load_checkpoint(tmp_path / "0-4.pt")
    assert told in str(caught.value)
    assert f"--allow-change {name}" in str(caught.value)
    assert str(caught.value).count(" was ") == 1, "one cause, one line"
    assert first_difference(dict(trainer.model.state_dict()), before) is None
    receipt = trainer.load_checkpoint(tmp_path / "0-4.pt", allow_changes=[name])
    assert receipt is not None
    assert told in str(receipt)
    trainer.train()
    assert trainer.epoch == 2


def test_r3_rows_without_a_fingerprint_are_known_by_their_number_alone(
    tmp_path: Path,
) -> None:
    def resume(was: str | None, now: str | None) -> None:
        """Go on with rows of other values, their data set told of so before and now."""
        folder = tmp_path / f"{was}-{now}"
        before, after = loader_of(), loader_of()
        before.dataset.fingerprint, after.dataset.fingerprint = was, now
        after.dataset.x = after.dataset.x + 1
        build(SavesEverywhere(folder), loader=before).train()
        build(loader=after).load_checkpoint(folder / "0-4.pt")

    resume(None, None)
    resume(None, "v2")  # a checkpoint of before it was set
    with pytest.raises(CheckpointError, match="dataset was 'v1', is 'v2'"):
        resume("v1", "v2")


def test_r3_what_was_accepted_holds(tmp_path: Path) -> None:
    build(SavesEverywhere(tmp_path)).train()
    trainer = changed({"lr": 0.02, "weight_decay": 0.5})
    trainer.load_checkpoint(tmp_path / "0-4.pt", allow_changes=["optimizer"])
    trainer.train()
    group = trainer.optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.5)


def test_r3_a_larger_batch_goes_on_after_the_samples_that_were_seen(
    tmp_path: Path,
) -> None:
    build(SavesEverywhere(tmp_path)).train()
    trainer = changed({"batch_size": 4})
    trainer.load_checkpoint(tmp_path / "0-4.pt", allow_changes=["batch_size"])
    trainer.train()
    first = [i for e, *rows in trainer.plugins["ids"].seen if e == 0 for i in rows]
    assert sorted(first) == list(range(11))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"num_epochs": 3}, id="more epochs"),
        pytest.param({"max_steps": 100}, id="another limit"),
    ],
)
def test_r3_what_may_change_freely_does(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    build(SavesEverywhere(tmp_path)).train()
    trainer = build(**options)
    receipt = trainer.load_checkpoint(tmp_path / "0-4.pt")
    assert receipt is not None
    assert [each.name for each in receipt.changes] == list(options)


@pytest.mark.parametrize("several", [False, True])
def test_r3_other_validation_rows_are_accepted_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, several: bool
) -> None:
    build(SavesEverywhere(tmp_path), val_dataloader=judged_by("a", several)).train()
    trainer = build(val_dataloader=judged_by("b", several))
    receipt = trainer.load_checkpoint(tmp_path / "0-4.pt")
    assert receipt is not None
    assert [each.name for each in receipt.changes] == ["validation"]
    assert "the best values so far" in caplog.text
    assert "measured on other rows" in caplog.text


def test_r3_the_same_validation_rows_are_not_told_nor_those_that_nobody_knows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(SavesEverywhere(tmp_path), val_dataloader=judged_by("a")).train()
    for loader in (judged_by("a"), loader_of(), None):
        receipt = build(val_dataloader=loader).load_checkpoint(tmp_path / "0-4.pt")
        assert receipt is not None
        assert not receipt.changes
    assert "other rows" not in caplog.text


@pytest.mark.parametrize("odd", [len, b"a", object()])
def test_what_another_library_calls_a_fingerprint_of_validation_is_none_here(
    tmp_path: Path, odd: Any
) -> None:
    build(SavesEverywhere(tmp_path), val_dataloader=judged_by(odd)).train()
    receipt = build(val_dataloader=judged_by(odd)).load_checkpoint(tmp_path / "0-4.pt")
    assert receipt is not None
    assert not receipt.changes


def judged_by(fingerprint: Any, several: bool = False) -> Any:
    """Return a validation loader whose data has that fingerprint, or two of them."""
    loader = loader_of()
    loader.dataset.fingerprint = fingerprint
    return {"one": loader, "other": loader_of()} if several else loader


def test_a_setting_that_does_not_exist_cannot_be_accepted(tmp_path: Path) -> None:
    build(SavesEverywhere(tmp_path)).train()
    with pytest.raises(ConfigError, match="did you mean 'batch_size'"):
        build().load_checkpoint(tmp_path / "0-4.pt", allow_changes=["batchsize"])


class Alters(Callback):
    """A plugin without which training is another one."""

    name = "ema"
    alters_training = True


def test_c11_a_plugin_that_alters_training_is_missed(tmp_path: Path) -> None:
    build(Alters(), SavesEverywhere(tmp_path)).train()
    with pytest.raises(CheckpointError, match=r"plugins\.ema was 'active', is 'not"):
        build().load_checkpoint(tmp_path / "0-4.pt")
    receipt = build().load_checkpoint(
        tmp_path / "0-4.pt", allow_changes=["plugins.ema"]
    )
    assert receipt is not None
    assert receipt.removed == ("SavesEverywhere", "ema")


class Changes(Callback):
    name = "changes"


@pytest.mark.parametrize("part", ["gradients", "parameters"])
def test_c11_of_plugins_that_mutate_one_that_changes_gradients_is_missed(
    tmp_path: Path, part: str
) -> None:
    plugin = type("Changing", (Changes,), {"mutates": (part,)})()
    build(plugin, SavesEverywhere(tmp_path)).train()
    if part == "gradients":
        with pytest.raises(CheckpointError, match=r"plugins\.changes was 'active', is"):
            build().load_checkpoint(tmp_path / "0-4.pt")
    allowed = ["plugins.changes"] if part == "gradients" else []
    receipt = build().load_checkpoint(tmp_path / "0-4.pt", allow_changes=allowed)
    told = f"plugin changes, which could change {part}, is no longer active"
    assert told in str(receipt)
    assert "plugin SavesEverywhere is no longer active" in str(receipt)


def absolute(model: Any, batch: Any) -> torch.Tensor:
    return (model.layers(batch[0]) - batch[1]).abs().mean()


class Absolute(torch.nn.Module):
    def forward(self, model: Any, batch: Any) -> torch.Tensor:
        return absolute(model, batch)


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        (lambda m, b: absolute(m, b), absolute, "loss was '<lambda>', is 'absolute'"),
        (absolute, Absolute(), "loss was 'absolute', is 'Absolute'"),
        (partial(absolute), absolute, ""),
    ],
)
def test_r3_another_loss_is_accepted_and_told(
    tmp_path: Path, was: Any, now: Any, told: str
) -> None:
    build(SavesEverywhere(tmp_path), step_fn=was).train()
    receipt = build(step_fn=now).load_checkpoint(tmp_path / "0-4.pt")
    assert receipt is not None
    assert [str(c) for c in receipt.changes] == ([told] if told else [])


def test_r3_what_python_code_says_of_its_model_in_metadata_is_its_own(
    tmp_path: Path,
) -> None:
    was, now = ({"model": {"model": {"note": each}}} for each in ("a", "b"))
    build(SavesEverywhere(tmp_path), metadata=was).train()
    receipt = build(metadata=now).load_checkpoint(tmp_path / "0-4.pt")
    assert receipt is not None
    assert not receipt.changes


class Moves(Callback):
    """Moves options of the groups by their names, once."""

    mutates = ("optimizer",)

    def __init__(self, name: str, **options: float) -> None:
        self.name, self.options = name, options

    def on_train_begin(self, trainer: Trainer, resumed: bool) -> None:
        if not resumed:
            trainer.optimizer.param_groups[0].update(self.options)


def test_r3_options_that_an_absent_plugin_left_are_settings_like_any_other(
    tmp_path: Path,
) -> None:
    gone = Moves("gone", lr=0.003, weight_decay=0.5)
    build(gone, SavesEverywhere(tmp_path)).train()
    told = (
        r"lr was 0\.003 \(as a plugin left it\), is 0\.01; optimizer\.weight_decay was "
        r"0\.5 \(as a plugin left it\), is 0\.01: use the old values"
    )
    with pytest.raises(CheckpointError, match=told):
        build().load_checkpoint(tmp_path / "0-4.pt")
    trainer = build()
    trainer.load_checkpoint(tmp_path / "0-4.pt", allow_changes=["optimizer"])
    trainer.train()
    group = trainer.optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.01, 0.01)
    same = changed({"lr": 0.003, "weight_decay": 0.5})
    receipt = same.load_checkpoint(tmp_path / "0-4.pt")
    assert receipt is not None
    assert not receipt.changes


def test_r3_what_an_absent_plugin_left_beside_one_that_moves_options_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone, stays = Moves("gone", weight_decay=0.5), Moves("stays")
    build(gone, stays, SavesEverywhere(tmp_path)).train()
    build(stays).load_checkpoint(tmp_path / "0-4.pt")
    assert (
        "optimizer.weight_decay stays [0.5], as gone may have left it, not "
        "active now; configured it was [0.01]"
    ) in caplog.text
    assert "optimizer.lr" not in caplog.text


def test_r3_a_counter_that_an_optimizer_keeps_in_its_groups_is_no_option_of_a_plugin(
    tmp_path: Path,
) -> None:
    class Counts(torch.optim.SGD):
        """Counts its steps in its groups, as optimizers without a schedule do."""

        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, lr=0.01)
            self.param_groups[0]["k"] = 0

        def step(self, closure: Any = None) -> Any:
            self.param_groups[0]["k"] += 1
            return super().step(closure)

    def counting(*callbacks: Any) -> Trainer:
        trainer = build(*callbacks)
        trainer.optimizer = Counts(trainer.model.parameters())
        return trainer

    counting(Moves("gone"), SavesEverywhere(tmp_path)).train()
    trainer = counting()
    trainer.load_checkpoint(tmp_path / "0-4.pt")
    trainer.train()
    assert trainer.optimizer.param_groups[0]["k"] == trainer.step


def test_r3_a_norm_that_a_plugin_sets_in_on_setup_is_none_that_a_resume_compares(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Clips(Callback):
        def __init__(self, norm: float = 0.5) -> None:
            self.norm = norm

        def on_setup(self, trainer: Trainer) -> None:
            trainer.max_grad_norm = self.norm

    build(Clips(), SavesEverywhere(tmp_path)).train()
    for given in (None, 0.5):
        trainer = build(Clips(), max_grad_norm=given)
        trainer.load_checkpoint(tmp_path / "0-4.pt")
        trainer.train()
        assert trainer.epoch == 2
    with pytest.raises(CheckpointError, match=r"max_grad_norm was 0\.5, is 1\.0"):
        build(Clips(), max_grad_norm=1.0).load_checkpoint(tmp_path / "0-4.pt")
    trainer = build(Clips(0.7))
    trainer.load_checkpoint(tmp_path / "0-4.pt")
    with pytest.raises(CheckpointError, match=r"max_grad_norm was 0\.5, is 0\.7"):
        trainer.train()
    trainer = build()  # who set it is gone
    trainer.load_checkpoint(tmp_path / "0-4.pt")
    with pytest.raises(CheckpointError, match=r"max_grad_norm was 0\.5, is None"):
        trainer.train()
    trainer = build()
    trainer.load_checkpoint(tmp_path / "0-4.pt", allow_changes=["max_grad_norm"])
    trainer.train()
    assert (trainer.epoch, trainer.max_grad_norm) == (2, None)
    assert "max_grad_norm was 0.5, is None" in caplog.text
    (tmp_path / "none").mkdir()
    build(SavesEverywhere(tmp_path / "none"), max_grad_norm=1.0).train()
    trainer = build(Clips(), max_grad_norm=1.0)  # there was no such plugin
    trainer.load_checkpoint(tmp_path / "none" / "0-4.pt")
    with pytest.raises(CheckpointError, match=r"max_grad_norm was 1\.0, is 0\.5"):
        trainer.train()
    # Saved by runs that were never set up: the norm as given, or as it was loaded.
    before = build(Clips()).save_checkpoint(tmp_path / "before.pt")
    loaded = build(Clips())
    loaded.load_checkpoint(tmp_path / "0-4.pt")
    for path in (before, loaded.save_checkpoint(tmp_path / "loaded.pt")):
        trainer = build(Clips())
        trainer.train(resume=path)
        assert trainer.epoch == 2
    with pytest.raises(CheckpointError, match=r"max_grad_norm was 0\.5, is None"):
        build().train(resume=tmp_path / "loaded.pt")
    consenting = build()
    consenting.load_checkpoint(tmp_path / "0-4.pt", allow_changes=["max_grad_norm"])
    consented = consenting.save_checkpoint(tmp_path / "consented.pt")
    build().train(resume=consented)
