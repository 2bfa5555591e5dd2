"""What is saved, what is kept and what is deleted, as a table of claims."""

from __future__ import annotations

import itertools
import json
import sys

import pytest

from trainbus_checkpointing import ModelCheckpointCallback
from trainbus_checkpointing.manifest import Manifest
from trainbus_checkpointing.retention import Entry
from training import ConfigError, MetricError
from training.plugin import read_checkpoint

from .listed import files, manifest, short

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("options", "values", "kept"),
    [
        pytest.param({}, [3.0, 2.0, 1.0], "c3", id="the best is also the last"),
        pytest.param({}, [1.0, 2.0, 3.0], "c1 l3", id="best and last are kept"),
        pytest.param(
            {"save_last": False}, [1.0, 2.0, 3.0], "c1", id="without last, best alone"
        ),
        pytest.param(
            {"save_top_k": 3},
            [5.0, 1.0, 4.0, 2.0, 3.0],
            "c2 c4 c5",
            id="the best three",
        ),
        pytest.param(
            {"save_top_k": -1}, [1.0, 2.0, 3.0], "c1 c2 c3", id="-1 keeps all"
        ),
        pytest.param({"save_top_k": 0}, [1.0, 2.0, 3.0], "l3", id="0 keeps the last"),
        pytest.param(
            {"save_last": False},
            [1.0, 1.0, 1.0],
            "c1",
            id="a tie keeps the older",
        ),
        pytest.param(
            {"save_top_k": 2, "save_last": False},
            [2.0, 2.0, 1.0, 2.0],
            "c1 c3",
            id="among equally bad ones the youngest goes",
        ),
        pytest.param(
            {"mode": "max", "save_last": False}, [1.0, 3.0, 2.0], "c2", id="mode max"
        ),
        pytest.param(
            {"save_top_k": 3, "save_last": False},
            [NAN, INF, 1.0, -INF],
            "c3",
            id="NaN and infinities never enter, not even a free place",
        ),
        pytest.param(
            {"save_last": False},
            [None, 1.0, None],
            "c2",
            id="a missing value never does",
        ),
        pytest.param(
            {"save_frequency": 2, "save_last": False},
            [3.0, 2.0, 1.0],
            "c3",
            id="every fresh value is considered, whatever save_frequency",
        ),
        pytest.param(
            {
                "save_frequency": 2,
                "save_last": False,
                "frequency_applies_to_best": True,
            },
            [3.0, 2.0, 1.0],
            "c2",
            id="unless frequency_applies_to_best",
        ),
        pytest.param(
            {"save_best_only": False, "save_top_k": 2},
            [1.0, 2.0, 3.0, 4.0],
            "c1 c2 c4",
            id="periodic saves keep the best k and the last",
        ),
        pytest.param(
            {"save_best_only": False, "save_frequency": 2, "save_top_k": -1},
            [1.0, 2.0, 3.0, 4.0],
            "c2 c4",
            id="periodic saves come every N epochs",
        ),
        pytest.param(
            {"save_best_only": False, "save_top_k": 2},
            [NAN, 2.0, NAN, 3.0, NAN],
            "c2 c4 c5",
            id="a periodic NaN is written and ranks below all finite",
        ),
        pytest.param(
            {"save_best_only": False, "monitor": None, "save_top_k": 2},
            [1.0, 2.0, 3.0],
            "c2 c3",
            id="without a monitor the newest are kept",
        ),
        pytest.param({"monitor": None}, [1.0, 2.0], "l2", id="or the last alone"),
        pytest.param(
            {"save_frequency": 2}, [1.0, 2.0, 3.0], "c1 l2", id="last comes when due"
        ),
    ],
)
def test_after_these_values_the_folder_holds(begun, tmp_path, options, values, kept):
    trainer = begun(save_dir=tmp_path, **options)
    for value in values:
        trainer.run_epoch(**({} if value is None else {"val_loss": value}))
    assert short(tmp_path) == kept
    for name in files(tmp_path):
        read_checkpoint(tmp_path / name)
    listed = [entry["file"] for entry in manifest(tmp_path)["checkpoints"]]
    assert sorted(listed) == files(tmp_path)


def test_epochs_in_names_are_completed_ones_counted_from_1(begun, tmp_path):
    begun(save_dir=tmp_path).run_epoch(val_loss=0.42131)
    assert files(tmp_path) == ["checkpoint-001-0.4213.pt"]


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        pytest.param({}, "checkpoints", id="by default below trainer.save_dir"),
        pytest.param({"save_dir": "mine"}, "mine", id="a folder given here wins"),
    ],
)
def test_the_folder_is(begun, tmp_path, monkeypatch, options, folder):
    monkeypatch.chdir(tmp_path)
    begun(**options).run_epoch(val_loss=1.0)
    assert files(tmp_path / folder) == ["checkpoint-001-1.0000.pt"]


def test_a_stale_value_is_not_considered(begun, tmp_path):
    trainer = begun(save_dir=tmp_path, save_last=False, save_top_k=3)
    trainer.run_epoch(val_loss=1.0)
    trainer.run_epoch()  # val_loss is still known, but of the epoch before
    assert short(tmp_path) == "c1"


def test_a_stale_value_is_na_in_a_name(begun, tmp_path):
    trainer = begun(save_dir=tmp_path, save_best_only=False, save_top_k=-1)
    trainer.run_epoch(val_loss=1.0)
    trainer.run_epoch()
    assert files(tmp_path)[-1] == "checkpoint-002-na.pt"


def test_an_evaluation_inside_an_epoch_is_considered_at_once(begun, tmp_path):
    trainer = begun(save_dir=tmp_path, save_last=False)
    trainer.run_epoch(val_loss=2.0)
    trainer.run_steps(5, val_loss=1.0)
    trainer.run_steps(2, val_loss=3.0)
    assert files(tmp_path) == ["checkpoint-001-1.0000-step15.pt"]


def test_the_same_weights_enter_only_once(begun, tmp_path):
    trainer = begun(save_dir=tmp_path, save_top_k=3, save_last=False)
    trainer.run_steps(10, val_loss=1.0)
    trainer.run_epoch(val_loss=1.0)  # step 10 again
    assert len(files(tmp_path)) == 1


def test_every_n_steps_adds_due_times_inside_epochs(begun, tmp_path):
    trainer = begun(save_dir=tmp_path, every_n_steps=4)
    trainer.run_steps(9)
    assert files(tmp_path) == ["last-epoch000-step8.pt"]
    periodic = begun(
        save_dir=tmp_path / "p", every_n_steps=4, save_best_only=False, save_top_k=-1
    )
    periodic.run_steps(9)
    assert files(tmp_path / "p") == [
        "checkpoint-000-na-step4.pt",
        "checkpoint-000-na-step8.pt",
    ]


@pytest.mark.parametrize("save_last", [True, False])
def test_the_end_writes_last_only_if_asked_and_never_twice(begun, tmp_path, save_last):
    trainer = begun(save_dir=tmp_path, save_frequency=9, save_last=save_last)
    trainer.run_epoch(val_loss=1.0)
    trainer.run_epoch(val_loss=2.0, stops=True)
    trainer.plugin.on_checkpoint(trainer, "stop")  # the same boundary
    assert short(tmp_path) == ("c1 l2" if save_last else "c1")
    assert trainer.num_writes == (2 if save_last else 1)


def test_a_request_by_somebody_else_always_saves(begun, tmp_path):
    trainer = begun(save_dir=tmp_path, save_last=False)
    trainer.run_steps(3)
    trainer.plugin.on_checkpoint(trainer, "preemption")
    assert files(tmp_path) == ["last-epoch000-step3.pt"]


def test_a_run_that_a_signal_ends_always_leaves_a_last(begun, tmp_path):
    trainer = begun(save_dir=tmp_path, save_last=False)
    trainer.run_steps(3)
    trainer.is_stopping, trainer.stop_owner = True, "signal"
    trainer.plugin.on_checkpoint(trainer, "stop")
    assert files(tmp_path) == ["last-epoch000-step3.pt"]


def test_last_json_points_to_the_newest_file(begun, tmp_path):
    trainer = begun(save_dir=tmp_path)
    for value in (1.0, 2.0):
        trainer.run_epoch(val_loss=value)
    last = json.loads((tmp_path / "last.json").read_text())
    assert last["file"] == "last-epoch002-step20.pt"
    assert last["step"] == 20
    entry = manifest(tmp_path)["checkpoints"][-1]
    assert last["digest"] == entry["digest"] != ""
    assert trainer.plugin.last_path == tmp_path / last["file"]


def test_best_and_last_are_there_for_others(begun, tmp_path):
    trainer = begun(save_dir=tmp_path)
    assert trainer.plugin.best_path is None
    for value in (2.0, 1.0, 3.0):
        trainer.run_epoch(val_loss=value)
    plugin = trainer.plugin
    assert plugin.best_path == tmp_path / "checkpoint-002-1.0000.pt"
    assert plugin.best_value == 1.0
    assert manifest(tmp_path)["best"] == plugin.best_path.name
    assert plugin.find_checkpoint(20) == plugin.best_path
    assert plugin.find_checkpoint(10) is None
    plugin.best_path.write_bytes(b"cut")
    assert plugin.find_checkpoint(20) is None


# Refusals ----------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"mode": "auto"}, "be one of: 'min', 'max'", id="unknown mode"),
        pytest.param({"monitor": ""}, "at least 1 character", id="empty monitor"),
        pytest.param({"save_frequency": 0}, "at least 1$", id="frequency 0"),
        pytest.param({"save_top_k": -2}, "at least -1$", id="top-k -2"),
        pytest.param({"save_top_k": 1.5}, "save_top_k is 1.5", id="top-k 1.5"),
        pytest.param({"every_n_steps": 0}, "at least 1$", id="every 0 steps"),
        pytest.param({"on_save_error": "skip"}, "one of: 'raise', 'warn'", id="policy"),
        pytest.param({"filename": 3}, "filename is 3", id="a number as file name"),
    ],
)
def test_the_constructor_refuses(options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        ModelCheckpointCallback(**options)
    assert str(caught.value).startswith("checkpointing.")


def test_the_constructor_tells_all_mistakes_at_once():
    with pytest.raises(ConfigError) as caught:
        ModelCheckpointCallback(save_frequency=0, save_top_k=-2, every_n_steps=1)
    assert str(caught.value).splitlines() == [
        "checkpointing.save_frequency is 0, but must be at least 1",
        "checkpointing.save_top_k is -2, but must be at least -1",
    ]


@pytest.mark.parametrize(
    ("options", "owner"),
    [
        pytest.param({"monitor": "val_los"}, "monitor watches 'val_los'", id="monitor"),
        pytest.param({"filename": "{f1}.pt"}, "filename watches 'f1'", id="file name"),
    ],
)
def test_a_metric_that_nobody_produces_is_refused_before_step_0(begun, options, owner):
    with pytest.raises(MetricError, match=r"checkpointing\." + owner):
        begun(**options)


def test_a_folder_that_cannot_be_written_is_refused_before_step_0(begun, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file/below"):
        begun(save_dir=tmp_path / "file" / "below")


def test_two_instances_may_not_share_a_folder(begun, tmp_path):
    trainer = begun(save_dir=tmp_path)
    trainer.plugins["second"] = ModelCheckpointCallback(save_dir=tmp_path / ".")
    with pytest.raises(ConfigError, match="each its own save_dir"):
        trainer.plugins["second"].on_setup(trainer)


def test_one_more_listed_checkpoint_costs_a_save_few_calls(tmp_path):
    def calls(entries: int) -> int:
        row = {"step": 1, "epoch": 0, "update": 1, "is_ranked": True, "reason": ""}
        listed = [
            Entry(file=f"{number}.pt", metrics={"val_loss": 0.5}, **row)
            for number in range(entries)
        ]
        count = itertools.count()
        sys.setprofile(lambda _, event, __: next(count) if event == "call" else None)
        try:
            Manifest(tmp_path).write(listed)
        finally:
            sys.setprofile(None)
        assert Manifest.read(tmp_path).entries == listed
        return next(count)

    assert calls(200) - calls(100) < 100 * 30
