"""P10, P11: what a run writes beside its checkpoints is one run's at a time, too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainbus_checkpointing import ModelCheckpointCallback
from trainbus_logging import CSVLoggerCallback
from training import Callback, ConfigError, Trainer
from training.builtin.run_record import RunRecord
from training.files.holder import Holder
from training.files.lock import FolderLostError
from training.testing import tiny_trainer

ELSEWHERE = Holder("elsewhere", 7, "x/1", "x/1", "0" * 32)


class Acts(Callback):
    """Does something at one step, with the first row written."""

    def __init__(self, act: Callable[[], object], step: int = 5) -> None:
        self.act, self.step = act, step

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            self.act()


def csv(folder: Path, name: str = "training_log.csv") -> Callback:
    return CSVLoggerCallback(folder / name)


def record(folder: Path, name: str = "first") -> Callback:
    return RunRecord({"name": name}, {})


def run(folder: Path, *plugins: Callback, **options: Any) -> Trainer:
    return tiny_trainer(*plugins, save_dir=folder, **options)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


WRITERS = [
    pytest.param(csv, "csv.filename", "training_log.csv.lock", id="csv only"),
    pytest.param(record, "training.save_dir", "record.lock", id="the record only"),
]


@pytest.mark.parametrize(("make", "option", "lock"), WRITERS)
def test_p10_a_second_writer_in_one_process_is_refused_and_nothing_is_touched(
    tmp_path: Path, make: Any, option: str, lock: str
) -> None:
    seen = []

    def second() -> None:
        before = content(tmp_path)
        told = f"{option} is in use by another run of"
        with pytest.raises(ConfigError, match=told) as caught:
            run(tmp_path, make(tmp_path)).train()
        assert "delete" not in str(caught.value)
        seen.append(content(tmp_path) == before)
        assert lock in before

    first = run(tmp_path, make(tmp_path), Acts(second))
    first.train()
    assert seen == [True]
    assert first.epoch == 2
    assert not (tmp_path / lock).exists()
    run(tmp_path, make(tmp_path)).train()  # once it is over, anybody may


def test_p10_a_second_writer_of_one_run_is_told_which_plugin_has_the_file(
    tmp_path: Path,
) -> None:
    first = csv(tmp_path)
    first.name = "a"
    with pytest.raises(ConfigError, match="in use by plugin 'a' of this run") as caught:
        run(tmp_path, first, csv(tmp_path)).train()
    assert "delete" not in str(caught.value)
    assert not content(tmp_path)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda folder: csv(folder, "b.csv"), id="a log of its own"),
        pytest.param(record, id="a record, where the first keeps none"),
    ],
)
def test_p10_who_writes_other_files_into_the_folder_is_let_in(
    tmp_path: Path, other: Any
) -> None:
    inner = run(tmp_path, other(tmp_path))
    run(tmp_path, csv(tmp_path), Acts(inner.train)).train()
    assert inner.epoch == 2


@pytest.mark.parametrize("make", [csv, record])
def test_p10_one_writer_serves_one_run_at_a_time(tmp_path: Path, make: Any) -> None:
    shared = make(tmp_path)

    def second() -> None:
        with pytest.raises(ConfigError, match="at work in another run"):
            run(tmp_path / "b", shared).train()

    run(tmp_path, shared, Acts(second)).train()
    assert len(list(tmp_path.glob("*.lock"))) == 0
    assert not (tmp_path / "b").exists() or content(tmp_path / "b") == {}


class ActsEarly(Callback):
    """Calls ``act`` between ``on_setup`` and ``on_train_begin`` of a log."""

    after = ("csv",)

    def __init__(self, act: Any) -> None:
        self.act = act

    def on_setup(self) -> None:
        self.act()


def test_p10_a_log_serves_one_run_before_it_has_locked_its_file_too(
    tmp_path: Path,
) -> None:
    shared = csv(tmp_path)

    def second() -> None:
        with pytest.raises(ConfigError, match="at work in another run"):
            run(tmp_path / "b", shared).train()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(tmp_path, shared, ActsEarly(second)).train()
    run(tmp_path, shared).train()  # once it is over, and never came to its lock
    assert len((tmp_path / "training_log.csv").read_text().splitlines()) == 3
    assert not list(tmp_path.glob("*.lock"))


def test_p10_the_writers_of_one_run_share_its_folder_run_after_run(
    tmp_path: Path,
) -> None:
    def whole(num_epochs: int) -> Trainer:
        saves = ModelCheckpointCallback(tmp_path)
        plugins = csv(tmp_path), record(tmp_path), saves
        return run(tmp_path, *plugins, num_epochs=num_epochs)

    whole(1).train()
    first = whole(1)
    first.train()
    resumed = whole(3)
    resumed.load_checkpoint(first.plugins["checkpointing"].last_path)
    resumed.train()
    rows = (tmp_path / "training_log.csv").read_text().splitlines()
    assert len(rows) == 4, "the resumed run appends"
    assert (tmp_path / "training_log.1.csv").exists()
    assert not list(tmp_path.glob("*.lock"))


HOLDS = """
import sys
from pathlib import Path
from trainbus_logging import CSVLoggerCallback
from training.builtin.run_record import RunRecord
from training import Callback
from training.testing import tiny_trainer

class Waits(Callback):
    def on_epoch_begin(self):
        print("begun", flush=True)
        sys.stdin.read()

folder = Path(sys.argv[1])
plugins = CSVLoggerCallback(folder / "training_log.csv"), RunRecord({}, {}), Waits()
tiny_trainer(*plugins, save_dir=folder).train()
"""


def test_p10_a_second_process_is_refused_until_the_first_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == b"begun\n"
            before = content(tmp_path)
            for make in (csv, record):
                told = rf"by process {first.pid} on .*'{tmp_path}'; wait until it ends"
                with pytest.raises(ConfigError, match=told):
                    run(tmp_path, make(tmp_path)).train()
            assert content(tmp_path) == before
        finally:
            first.kill()
    run(tmp_path, csv(tmp_path), record(tmp_path)).train()
    assert f"from process {first.pid}" in caplog.text
    assert not list(tmp_path.glob("*.lock"))


@pytest.mark.parametrize(
    ("keeper", "option"),
    [
        pytest.param(
            lambda _: ModelCheckpointCallback(), "training.save_dir", id="own"
        ),
        pytest.param(
            lambda folder: ModelCheckpointCallback(folder / "checkpoints"),
            "checkpointing.save_dir",
            id="a folder that was given",
        ),
        pytest.param(record, "training.save_dir", id="the record"),
    ],
)
def test_p10_who_holds_the_folder_is_told_of_before_who_holds_one_file_in_it(
    tmp_path: Path, keeper: Any, option: str
) -> None:
    def plugins() -> tuple[Callback, ...]:
        return csv(tmp_path), keeper(tmp_path)

    def second() -> None:
        with pytest.raises(ConfigError) as caught:
            run(tmp_path, *plugins()).train()
        assert str(caught.value).startswith(f"{option} is in use by another run")

    first = run(tmp_path, *plugins(), Acts(second))
    first.train()
    assert first.epoch == 2


def test_p11_a_log_lost_to_another_run_is_not_written_any_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lock, left = tmp_path / "training_log.csv.lock", {}

    def lose() -> None:
        lock.write_bytes(ELSEWHERE.to_bytes())
        left.update(content(tmp_path))

    first = run(tmp_path, csv(tmp_path), Acts(lose))
    first.train()
    assert first.epoch == 2, "a run is worth more than its log"
    assert content(tmp_path) == left
    assert "csv.filename was taken over by process 7 on elsewhere" in caplog.text


def test_p11_a_record_lost_to_another_run_ends_the_run_and_stays(
    tmp_path: Path,
) -> None:
    left = {}

    def lose() -> None:
        (tmp_path / "record.lock").write_bytes(ELSEWHERE.to_bytes())
        left.update(content(tmp_path))

    with pytest.raises(FolderLostError, match=r"training.save_dir was taken over by"):
        run(tmp_path, record(tmp_path), Acts(lose)).train()
    assert "history.json" in left
    assert content(tmp_path) == left


@pytest.mark.parametrize(("make", "option", "lock"), WRITERS)
def test_p11_a_lock_that_came_free_after_another_writer_is_not_taken_again(
    tmp_path: Path,
    make: Any,
    option: str,
    lock: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever stood still must not write into what the other run left."""
    left = {}

    def another_run() -> None:
        (tmp_path / lock).unlink()
        run(tmp_path, make(tmp_path), num_epochs=3).train()
        left.update(content(tmp_path))

    first = run(tmp_path, make(tmp_path), Acts(another_run))
    try:
        first.train()
    except FolderLostError as error:
        told = str(error)
    else:
        told = caplog.text
    assert f"{option} was taken over by another run" in told
    assert content(tmp_path) == left


@pytest.mark.parametrize(("make", "option", "lock"), WRITERS)
def test_p11_a_lock_that_was_merely_removed_is_taken_again(
    tmp_path: Path,
    make: Any,
    option: str,
    lock: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = run(tmp_path, make(tmp_path), Acts((tmp_path / lock).unlink))
    first.train()
    assert first.epoch == 2
    assert "was removed; it is there again" in caplog.text
    assert option not in caplog.text
