"""What is saved, what is kept and what is deleted, as a table of claims."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainbus_checkpointing import ModelCheckpointCallback
from training import Callback
from training.checkpoint_io import read_checkpoint
from training.errors import CheckpointError, ConfigError, MetricError

NAN, INF = float("nan"), float("inf")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pt"))


def short(folder: Path) -> str:
    """Name the files by kind and epoch: ``c1 c3 l4``."""
    names = files(folder)
    return " ".join(
        n[0] + str(int("".join(filter(str.isdigit, n[:16]))[:3])) for n in names
    )


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


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
        pytest.param({"mode": "auto"}, "must be 'min' or 'max'", id="unknown mode"),
        pytest.param({"monitor": ""}, "at least 1 character", id="empty monitor"),
        pytest.param({"save_frequency": 0}, "equal to 1$", id="frequency 0"),
        pytest.param({"save_top_k": -2}, "equal to -1$", id="top-k -2"),
        pytest.param({"save_top_k": 1.5}, "save_top_k is 1.5", id="top-k 1.5"),
        pytest.param({"every_n_steps": 0}, "equal to 1$", id="every 0 steps"),
        pytest.param({"on_save_error": "skip"}, "'raise' or 'warn'", id="policy"),
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
        "checkpointing.save_frequency is 0, but must be greater than or equal to 1",
        "checkpointing.save_top_k is -2, but must be greater than or equal to -1",
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


# Safety of what is there -------------------------------------


def test_a_taken_name_is_never_overwritten(begun, tmp_path):
    (tmp_path / "checkpoint-001-1.0000.pt").write_text("somebody's")
    (tmp_path / "checkpoint-001-1.0000-v2.pt").symlink_to("/nowhere")
    begun(save_dir=tmp_path).run_epoch(val_loss=1.0)
    assert files(tmp_path)[-1] == "checkpoint-001-1.0000.pt"
    assert (tmp_path / "checkpoint-001-1.0000-v3.pt").is_file()
    assert (tmp_path / "checkpoint-001-1.0000.pt").read_text() == "somebody's"


def test_a_template_without_fields_still_keeps_k_files(begun, tmp_path):
    trainer = begun(save_dir=tmp_path, filename="m.pt", save_top_k=2, save_last=False)
    for value in (3.0, 2.0, 1.0):
        trainer.run_epoch(val_loss=value)
    assert len(files(tmp_path)) == 2


def test_unlisted_files_are_reported_and_stay(begun, tmp_path, caplog):
    (tmp_path / "mine.pt").write_text("mine")
    trainer = begun(save_dir=tmp_path)
    for value in (2.0, 1.0):
        trainer.run_epoch(val_loss=value)
    assert "mine.pt" in caplog.text
    assert (tmp_path / "mine.pt").read_text() == "mine"


def test_leftovers_of_dead_processes_go_and_those_of_live_ones_stay(begun, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f"a.pt.tmp-{dead.pid}").write_text("")
    (tmp_path / f"b.pt.tmp-{os.getpid()}").write_text("")
    (tmp_path / f"c.pt.tmp-{os.getppid()}").write_text("")
    predecessor = tmp_path / f"d.pt.tmp-{os.getpid()}"
    predecessor.write_text("")
    os.utime(predecessor, (1, 1))  # older than this process
    begun(save_dir=tmp_path)
    names = {path.name for path in tmp_path.iterdir()} - {"run.lock"}
    assert sorted(name[0] for name in names) == ["b", "c"]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("{", id="no JSON"),
        pytest.param("[]", id="a list"),
        pytest.param('{"format": "other"}', id="another format"),
        pytest.param("[" * 100_000, id="nested deeply"),
        pytest.param(
            '{"format": "trainbus-checkpoints", "version": 1, "run": 1, "checkpoints": '
            '[{"file": "../victim.pt", "step": 1, "epoch": 1, "update": 1, "run": 1, '
            '"is_ranked": true, "reason": "", "num_bytes": 6, "digest": ""}]}',
            id="a file outside the folder",
        ),
    ],
)
def test_a_damaged_manifest_is_moved_aside_and_nothing_is_deleted(
    begun, tmp_path, caplog, content
):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "manifest.json").write_text(content)
    (tmp_path / "victim.pt").write_text("victim")
    trainer = begun(save_dir=folder)
    for value in (2.0, 1.0):
        trainer.run_epoch(val_loss=value)
    assert "manifest.damaged.json" in caplog.text
    assert (folder / "manifest.damaged.json").read_text() == content
    assert (tmp_path / "victim.pt").read_text() == "victim"
    assert short(folder) == "c2"


def test_a_manifest_of_a_newer_version_is_refused_and_stays(begun, tmp_path):
    text = '{"format": "trainbus-checkpoints", "version": 99}'
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ConfigError, match="upgrade it"):
        begun(save_dir=tmp_path)
    assert (tmp_path / "manifest.json").read_text() == text


def test_the_new_file_is_listed_before_an_old_one_is_deleted(
    begun, tmp_path, monkeypatch
):
    trainer = begun(save_dir=tmp_path)
    trainer.run_epoch(val_loss=2.0)

    def crash(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", crash)
    with pytest.raises(KeyboardInterrupt):
        trainer.run_epoch(val_loss=1.0)
    monkeypatch.undo()
    listed = [entry["file"] for entry in manifest(tmp_path)["checkpoints"]]
    assert (
        listed
        == files(tmp_path)
        == [
            "checkpoint-001-2.0000.pt",
            "checkpoint-002-1.0000.pt",
        ]
    )
    again = begun(resume=tmp_path / listed[-1], save_dir=tmp_path)
    again.run_epoch(val_loss=0.5)  # what the crash left over is deleted now
    assert short(tmp_path) == "c2 c3"


@pytest.mark.parametrize("crash_at", range(12))
def test_a_crash_at_any_file_operation_leaves_best_and_last(
    begun, tmp_path, monkeypatch, crash_at
):
    trainer = begun(save_dir=tmp_path)
    trainer.run_epoch(val_loss=2.0)
    trainer.run_epoch(val_loss=3.0)
    calls = iter(range(100))

    def dying(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(calls) >= crash_at:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(Path, "unlink", dying(Path.unlink))
    for name in ("replace", "fsync"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))
    with contextlib.suppress(KeyboardInterrupt):
        trainer.run_epoch(val_loss=1.0)
    monkeypatch.undo()
    content = manifest(tmp_path)
    for pointer in ("best", "last"):
        read_checkpoint(tmp_path / content[pointer])
    last = json.loads((tmp_path / "last.json").read_text())["file"]
    read_checkpoint(tmp_path / last)


# Save errors -------------------------------------------------


def failing(trainer: Any, times: int) -> None:
    real, left = trainer.save_checkpoint, iter(range(times))

    def save(path: Path) -> Path:
        if next(left, None) is not None:
            raise CheckpointError(f"{path} could not be written (disk full)")
        return real(path)

    trainer.save_checkpoint = save


@pytest.mark.parametrize(
    ("options", "times", "value", "raises"),
    [
        pytest.param({}, 1, 1.0, False, id="one failure is retried"),
        pytest.param({}, 2, 1.0, True, id="two raise by default"),
        pytest.param({"on_save_error": "warn"}, 2, 1.0, False, id="or warn"),
        pytest.param({"on_save_error": "warn"}, 2, 9.0, False, id="warn for any save"),
    ],
)
def test_when_a_save_fails(begun, tmp_path, caplog, options, times, value, raises):
    trainer = begun(save_dir=tmp_path, **options)
    trainer.run_epoch(val_loss=5.0)
    failing(trainer, times)
    if raises:
        with pytest.raises(CheckpointError, match="disk full"):
            trainer.run_epoch(val_loss=value)
    else:
        trainer.run_epoch(val_loss=value)
        assert "disk full" in caplog.text
    assert "checkpoint-001-5.0000.pt" in files(tmp_path) or times == 1


def test_a_manifest_that_cannot_be_written_deletes_nothing(
    begun, tmp_path, monkeypatch
):
    trainer = begun(save_dir=tmp_path)
    trainer.run_epoch(val_loss=2.0)
    before = (tmp_path / "manifest.json").read_text()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainbus_checkpointing.manifest.write_json", full)
    with pytest.raises(CheckpointError, match="No space left"):
        trainer.run_epoch(val_loss=1.0)
    assert (tmp_path / "manifest.json").read_text() == before
    assert short(tmp_path) == "c1 c2"


# Runs that follow one another --------------------------------


def test_a_fresh_run_into_an_old_folder_touches_nothing_of_the_old(
    begun, tmp_path, caplog
):
    old = begun(save_dir=tmp_path)
    for value in (1.0, 2.0):
        old.run_epoch(val_loss=value)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    new = begun(save_dir=tmp_path)
    assert "2 checkpoints that are not of this run" in caplog.text
    assert new.plugin.best_path is None
    for value in (1.0, 2.0, 3.0):
        new.run_epoch(val_loss=value)
    for name, content in before.items():
        assert (tmp_path / name).read_bytes() == content
    assert new.plugin.best_path.name == "checkpoint-001-1.0000-v2.pt"


def test_a_resumed_run_keeps_best_and_top_k_of_before(begun, tmp_path):
    first = begun(save_dir=tmp_path, save_top_k=2)
    for value in (1.0, 3.0, 4.0):
        first.run_epoch(val_loss=value)
    second = begun(resume=first.plugin.last_path, save_dir=tmp_path, save_top_k=2)
    assert second.plugin.best_value == 1.0
    assert second.plugin.find_checkpoint(10) == tmp_path / "checkpoint-001-1.0000.pt"
    second.run_epoch(val_loss=2.0)
    assert short(tmp_path) == "c1 c4 l3"  # l3 is the resume source


def test_the_resume_source_stays_until_a_later_run(begun, tmp_path):
    first = begun(save_dir=tmp_path)
    for value in (1.0, 2.0):
        first.run_epoch(val_loss=value)
    second = begun(resume=first.plugin.last_path, save_dir=tmp_path)
    second.run_epoch(val_loss=0.5)
    second.run_epoch(val_loss=0.4)
    assert short(tmp_path) == "c4 l2"
    third = begun(resume=second.plugin.last_path, save_dir=tmp_path)
    third.run_epoch(val_loss=0.3)
    assert short(tmp_path) == "c4 c5"


def test_resuming_an_earlier_checkpoint_leaves_the_later_branch_alone(begun, tmp_path):
    first = begun(save_dir=tmp_path, save_top_k=-1)
    for value in (3.0, 2.0, 1.0):
        first.run_epoch(val_loss=value)
    source = tmp_path / "checkpoint-001-3.0000.pt"
    second = begun(resume=source, save_dir=tmp_path)
    assert second.plugin.find_checkpoint(20) is None  # of the branch that was left
    second.run_epoch(val_loss=2.0)
    assert second.plugin.find_checkpoint(20).name == "checkpoint-002-2.0000-v2.pt"
    assert len(files(tmp_path)) == 4


def test_a_resume_from_a_file_outside_the_folder_recognises_its_run(begun, tmp_path):
    first = begun(save_dir=tmp_path / "a")
    first.run_epoch(val_loss=1.0)
    outside = first.save_checkpoint(tmp_path / "interrupted.pt")
    second = begun(resume=outside, save_dir=tmp_path / "a")
    assert second.plugin.best_value == 1.0


def test_a_resume_into_another_folder_starts_a_new_list_there(begun, tmp_path):
    first = begun(save_dir=tmp_path / "a")
    for value in (1.0, 2.0):
        first.run_epoch(val_loss=value)
    first.plugin.on_close(first)
    before = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    second = begun(resume=first.plugin.last_path, save_dir=tmp_path / "b")
    assert second.plugin.best_path is None
    found = second.plugin.find_checkpoint(10)  # the stopper may still need it
    assert found == tmp_path / "a" / "checkpoint-001-1.0000.pt"
    second.run_epoch(val_loss=1.5)
    assert short(tmp_path / "b") == "c3"
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()} == before


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        pytest.param({}, "l4", id="carried: only what beats the old best is best"),
        pytest.param({"mode": "max"}, "c3 l4", id="not carried to another mode"),
    ],
)
def test_carry_best(begun, tmp_path, options, kept):
    first = begun(save_dir=tmp_path / "a")
    for value in (1.0, 2.0):
        first.run_epoch(val_loss=value)
    second = begun(
        resume=first.plugin.last_path,
        save_dir=tmp_path / "b",
        carry_best=True,
        **options,
    )
    for value in (1.5, 1.4):
        second.run_epoch(val_loss=value)
    assert short(tmp_path / "b") == kept
    third = begun(
        resume=second.plugin.last_path,
        save_dir=tmp_path / "b",
        carry_best=True,
        **options,
    )
    third.run_epoch(val_loss=1.45)  # better than 1.0 in mode max only
    assert (third.plugin.best_path is None) == (not options)


def test_files_that_are_missing_or_cut_are_no_longer_listed(begun, tmp_path, caplog):
    first = begun(save_dir=tmp_path, save_top_k=-1)
    for value in (1.0, 2.0, 3.0):
        first.run_epoch(val_loss=value)
    (tmp_path / "checkpoint-001-1.0000.pt").unlink()
    (tmp_path / "checkpoint-002-2.0000.pt").write_bytes(b"cut")
    second = begun(resume=first.plugin.last_path, save_dir=tmp_path)
    assert second.plugin.best_value == 3.0
    assert caplog.text.count("no longer listed") == 2
    second.run_epoch(val_loss=0.5)
    assert (tmp_path / "checkpoint-002-2.0000.pt").read_bytes() == b"cut"


def test_another_monitor_after_a_resume_ranks_by_its_own_values(begun, tmp_path):
    first = begun(save_dir=tmp_path, save_top_k=-1)
    for loss, accuracy in ((1.0, 0.2), (2.0, 0.9), (3.0, 0.1)):
        first.run_epoch(val_loss=loss, accuracy=accuracy)
    second = begun(
        resume=first.plugin.last_path,
        save_dir=tmp_path,
        monitor="accuracy",
        mode="max",
    )
    assert second.plugin.best_value == 0.9


def test_a_resume_that_trains_no_further_writes_nothing(begun, tmp_path):
    first = begun(save_dir=tmp_path)
    first.run_epoch(val_loss=1.0)
    second = begun(resume=first.plugin.last_path, save_dir=tmp_path)
    second.is_stopping = True
    second.plugin.on_checkpoint(second, "stop")
    assert second.num_writes == 0


def test_a_file_that_another_plugin_needs_stays(begun, tmp_path):
    class Stopper(Callback):
        hook_api = ">=1.1,<2"

        def needed_checkpoints(self) -> set[int]:
            return {10}

    trainer = begun(save_dir=tmp_path)
    trainer.bus.register(Stopper())
    for value in (3.0, 2.0, 1.0):
        trainer.run_epoch(val_loss=value)
    assert short(tmp_path) == "c1 c3"


def test_state_of_another_version_is_refused():
    with pytest.raises(CheckpointError, match="version 99"):
        ModelCheckpointCallback().load_state_dict({"version": 99})


def test_before_a_run_there_is_no_state():
    assert ModelCheckpointCallback().state_dict() == {}


def test_state_names_best_and_last_before_this_save_and_no_settings(begun, tmp_path):
    trainer = begun(save_dir=tmp_path, save_top_k=3)
    trainer.run_epoch(val_loss=2.0)
    trainer.run_epoch(val_loss=1.0)
    state = read_checkpoint(trainer.plugin.best_path)["plugins"]["checkpointing"]
    assert state["best"] == {
        "file": "checkpoint-001-2.0000.pt",
        "step": 10,
        "value": 2.0,
    }
    assert "save_top_k" not in str(state)
