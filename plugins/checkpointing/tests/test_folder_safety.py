"""Whatever fails, nothing is lost that was there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faults.operations import Operations

from trainbus_checkpointing import ModelCheckpointCallback
from training import CheckpointError, ConfigError
from training.plugin import read_checkpoint

from .listed import files, manifest, short


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


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO], ids=["EACCES", "EIO"])
def test_a_folder_that_cannot_be_listed_ends_a_resume_in_a_sentence(
    begun, tmp_path, code
):
    trainer = begun(save_dir=tmp_path / "kept")
    trainer.run_epoch(val_loss=1.0)

    def act(number: int, name: str, path: str, detail: Any) -> None:
        if name in ("listdir", "scandir", "stat") and path.endswith("kept"):
            raise OSError(code, os.strerror(code), path)

    said = rf"'.*kept' cannot be listed \({os.strerror(code)}\); make it readable, or"
    with (
        Operations(tmp_path, act),
        pytest.raises(CheckpointError, match=said),
    ):
        trainer.plugin.resume_candidates(trainer)


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_without_a_folder_there_is_nothing_to_resume(tmp_path, kind):
    folder = tmp_path / "kept"
    if kind == "a file":
        folder.write_text("")
    plugin = ModelCheckpointCallback(save_dir=folder)
    assert plugin.resume_candidates(None) == []
