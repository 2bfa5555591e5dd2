"""C1-C6, C9, C10, P8: whatever happens to a save, a valid newest checkpoint is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.sweep import KILLS, build, violations
from processes import python

from training import Callback, ConfigError, Trainer
from training.checkpoint_io import read_checkpoint

HERE = Path(__file__).parents[1]
Record = Callable[[str, object], None]
exhaustive = pytest.mark.exhaustive
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def assert_swept(record_property: Record) -> Callable[..., None]:
    """Return a check that a sweep tried at least so many points, all in vain."""

    def check(what: str, least: int, script: str, *arguments: str) -> None:
        done = python(str(HERE / script), *arguments)
        assert done.returncode == 0, done.stderr[-3000:]
        found = json.loads(done.stdout.splitlines()[-1])
        record_property(what, found["points"])
        assert found["violated"] == []
        assert found["points"] >= least

    return check


@pytest.mark.parametrize(
    ("kind", "least"),
    [
        pytest.param("some crashes", 100, id="in the run, each third one"),
        pytest.param("crash", 300, id="in the run", marks=exhaustive),
        pytest.param("crash async", 300, id="while a thread saves", marks=exhaustive),
    ],
)
def test_c2_vanishing_at_any_file_operation_leaves_a_valid_newest_checkpoint(
    tmp_path: Path, kind: str, least: int, assert_swept: Callable[..., None]
) -> None:
    assert_swept("faults", least, "sweep.py", kind, str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "least"),
    [
        pytest.param("some errors", 100, id="one operation of three fails"),
        pytest.param("some errors on and on", 100, id="every later one fails, too"),
        *(
            pytest.param(kind, 300, id=kind, marks=exhaustive)
            for kind in (
                "error once",
                "error on and on",
                "error warned of",
                "every error once",
                "every error on and on",
            )
        ),
    ],
)
@pytest.mark.timeout(900)
def test_c3_an_error_in_any_file_operation_leaves_the_last_good_one_and_says_so(
    tmp_path: Path, kind: str, least: int, assert_swept: Callable[..., None]
) -> None:
    assert_swept("faults", least, "sweep.py", kind, str(tmp_path))


def test_c4_whatever_a_power_loss_leaves_is_valid(
    tmp_path: Path, assert_swept: Callable[..., None]
) -> None:
    assert_swept("contents of the disk", 500, "powerloss.py", str(tmp_path))


@exhaustive
@pytest.mark.timeout(900)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["one disk", "two disks"])
def test_c1_a_hundred_sigkills_at_random_moments_leave_a_valid_newest_checkpoint(
    tmp_path: Path,
    elsewhere: bool,
    assert_swept: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With two disks, the temporary folder is on another file system."""
    other = Path("/dev/shm")
    if elsewhere and (
        not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev
    ):
        pytest.skip("/dev/shm is no other file system here")
    if elsewhere:
        monkeypatch.setenv("TMPDIR", str(other))
    kind = "kill elsewhere" if elsewhere else "kill"
    assert_swept("kills", KILLS, "sweep.py", kind, str(tmp_path))


@linux
def test_c5_a_file_too_large_for_the_disk_ends_the_run_and_space_lets_it_go_on(
    tmp_path: Path,
) -> None:
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from faults.sweep import build\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "trainer = build(Path(sys.argv[1]), lambda step: None)\n"
        "from training import Callback\n"
        "class Shrinks(Callback):\n"
        "    def on_epoch_begin(self, trainer):\n"
        "        if trainer.epoch == 1:\n"
        "            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, -1))\n"
        "trainer.bus.register(Shrinks())\n"
        "from training import TrainbusError\n"
        "try:\n"
        "    trainer.train()\n"
        "except TrainbusError as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = python("-c", code, str(tmp_path / "run"))
    assert "CheckpointError" in done.stdout, done.stderr[-2000:]
    assert "File too large" in done.stdout
    assert "the last good checkpoint is" in done.stdout
    assert violations(tmp_path / "run", 2) == []
    assert not list((tmp_path / "run").glob("*.tmp-*"))
    again = build(tmp_path / "run", lambda step: None)
    again.load_checkpoint(again.plugins["checkpointing"].resume_candidates(again)[0][0])
    again.train()
    assert again.epoch == 4


def test_c6_a_folder_that_cannot_be_made_is_refused_before_the_first_step(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("in the way")
    trainer = build(tmp_path / "file" / "runs", lambda step: None)
    with pytest.raises(ConfigError, match="file/runs") as caught:
        trainer.train()
    assert (caught.value.exit_code, trainer.step) == (2, 0)


def test_c9_litter_of_a_dead_process_goes_and_that_of_a_live_one_stays(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    dead = tmp_path / f"a.pt.tmp-{gone.pid}"
    live = tmp_path / f"b.pt.tmp-{os.getppid()}"
    for path in (dead, live):
        path.write_bytes(b"half")
    build(tmp_path, lambda step: None).train()
    assert not dead.exists()
    assert live.exists()


def test_c10_best_and_last_stay_and_ties_and_nan_are_defined(tmp_path: Path) -> None:
    import faults.sweep as sweep

    values = (3.0, float("nan"), 1.0, 1.0, 2.0, float("inf"))
    before, sweep.LOSSES = sweep.LOSSES, values  # type: ignore[assignment]
    try:
        seen = []

        class Looks(Callback):
            after = ("checkpointing",)

            def on_checkpoint(self, trainer: Trainer) -> None:
                plugin = trainer.plugins["checkpointing"]
                for path in (plugin.best_path, plugin.last_path):
                    read_checkpoint(path)
                seen.append((plugin.best_path.name, plugin.last_path.name))

        trainer = build(tmp_path, lambda step: None, save_top_k=2)
        trainer.bus.register(Looks())
        trainer.num_epochs = len(values)
        trainer.train()
    finally:
        sweep.LOSSES = before
    assert [best for best, _ in seen] == [
        "checkpoint-001-3.0000.pt",
        "checkpoint-001-3.0000.pt",
        *["checkpoint-003-1.0000.pt"] * 4,
    ]
    kept = {path.name for path in tmp_path.glob("*.pt")}
    assert kept == {
        "checkpoint-003-1.0000.pt",
        "checkpoint-004-1.0000.pt",
        "last-epoch006-step12.pt",
    }


def test_p8_no_memory_while_saving_leaves_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = torch.save, []

    def save(*arguments: Any, **options: Any) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise MemoryError("out of memory")
        real(*arguments, **options)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(MemoryError):
        build(tmp_path, lambda step: None).train()
    assert violations(tmp_path, 2) == []
    assert not list(tmp_path.glob("*.tmp-*"))
