"""C14: nothing is written through a link; what is saved is a file of its own."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainbus_logging.csv_file import LogFile
from training import CheckpointError, CSVLoggerCallback
from training.checkpoint_io import write_checkpoint, write_durably, write_json

WRITERS: dict[str, Callable[[Path], object]] = {
    "a checkpoint": lambda path: write_checkpoint(path, {"x": 1}),
    "a list": lambda path: write_json(path, {}),
    "a log": lambda path: LogFile(path).replace(["epoch"], [{"epoch": "1"}]),
}


def _end_epoch(log: CSVLoggerCallback, epoch: int) -> None:
    rows = [{"epoch": number + 1} for number in range(epoch)]
    trainer: Any = SimpleNamespace(history=rows)
    log.on_epoch_end(trainer, rows[-1])


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text("precious")
    return path


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_c14_a_link_at_a_temporary_name_is_refused_and_what_it_leads_to_stays(
    tmp_path: Path,
    victim: Path,
    write: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name cannot be guessed; here it is known."""
    monkeypatch.setattr(os, "urandom", lambda number: b"\0" * number)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / f"a.00000000.tmp-{os.getpid()}").symlink_to(victim)
    with pytest.raises((FileExistsError, CheckpointError)):
        write(folder / "a")
    assert victim.read_text() == "precious"
    assert not (folder / "a").exists()


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("leads", ["to a file", "nowhere"])
def test_c14_a_link_at_the_name_itself_is_replaced_and_what_it_leads_to_stays(
    tmp_path: Path, victim: Path, write: Callable[[Path], object], leads: str
) -> None:
    path = tmp_path / "run" / "a"
    path.parent.mkdir()
    path.symlink_to(victim if leads == "to a file" else tmp_path / "nothing")
    write(path)
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nothing").exists()
    assert path.is_file()
    assert not path.is_symlink()


def test_c14_a_link_that_takes_the_place_of_a_log_is_not_appended_to(
    tmp_path: Path, victim: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = CSVLoggerCallback(tmp_path / "a.csv")
    _end_epoch(log, 1)
    log.path.unlink()
    log.path.symlink_to(victim)
    _end_epoch(log, 2)
    assert os.strerror(errno.ELOOP) in caplog.text
    assert victim.read_text() == "precious"


def test_two_writes_of_one_file_have_temporary_names_of_their_own(
    tmp_path: Path,
) -> None:
    names: list[str] = []

    def note(file: Any) -> None:
        names.append(file.name)

    for _ in range(2):
        write_durably(tmp_path / "a", note)
    assert names[0] != names[1]
    assert all(name.endswith(f".tmp-{os.getpid()}") for name in names)
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_saved_file_has_the_permissions_that_the_umask_leaves(
    tmp_path: Path, umask: int
) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")
    path.chmod(0o400)  # those of the file that is replaced are gone with it
    before = os.umask(umask)
    try:
        write_json(path, {})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize(
    "code", [errno.EINVAL, errno.ENOTSUP], ids=["EINVAL", "ENOTSUP"]
)
def test_a_folder_that_cannot_be_synced_holds_files_all_the_same(
    tmp_path: Path,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    refuse_folders(monkeypatch, code)
    for name in ("a", "b"):
        write_checkpoint(tmp_path / name, {"x": 1})
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    told = [each for each in caplog.messages if "cannot sync a folder" in each]
    assert len(told) == 1


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_an_error_of_the_disk_in_syncing_a_folder_is_a_failed_save(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control."""
    refuse_folders(monkeypatch, code)
    with pytest.raises(CheckpointError, match="could not be written"):
        write_checkpoint(tmp_path / "a", {"x": 1})


def refuse_folders(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Let a folder's fsync fail as some file systems do."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
