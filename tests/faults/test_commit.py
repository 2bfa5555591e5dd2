"""C1-C10, C12: whatever happens to a save, a valid newest checkpoint is left."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.sweep import ENOUGH, build, newest_valid, violations

from trainbus_checkpointing.holder import Holder, start_of
from trainbus_checkpointing.lock import RunLock
from training import Callback, CheckpointError, ConfigError, Trainer
from training.checkpoint_io import UnreadableError, read_checkpoint, write_checkpoint

HERE = Path(__file__).parent
Record = Callable[[str, object], None]
exhaustive = pytest.mark.exhaustive
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a script of this folder in a fresh process."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def swept(script: str, *arguments: str) -> dict[str, Any]:
    """Return what a sweep printed."""
    done = python(str(HERE / script), *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_c2_vanishing_at_any_file_operation_leaves_a_valid_newest_checkpoint(
    tmp_path: Path, record_property: Record
) -> None:
    found = swept("sweep.py", "crash", str(tmp_path))
    record_property("faults", found["points"])
    assert found["violated"] == []
    assert found["points"] > 300


@exhaustive
def test_c2_so_does_vanishing_while_a_thread_saves(
    tmp_path: Path, record_property: Record
) -> None:
    found = swept("sweep.py", "crash async", str(tmp_path))
    record_property("faults", found["points"])
    assert found["violated"] == []
    assert found["points"] > 300


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("error once", id="one operation fails, one of four errors each"),
        pytest.param("error on and on", id="every later one fails, too"),
        pytest.param("error warned of", id="the run goes on", marks=exhaustive),
        pytest.param("every error once", id="all four each", marks=exhaustive),
        pytest.param(
            "every error on and on",
            id="all four, on and on",
            marks=exhaustive,
        ),
    ],
)
@pytest.mark.timeout(900)
def test_c3_an_error_in_any_file_operation_leaves_the_last_good_one_and_says_so(
    tmp_path: Path, kind: str, record_property: Record
) -> None:
    found = swept("sweep.py", kind, str(tmp_path))
    record_property("faults", found["points"])
    assert found["violated"] == []
    assert found["points"] > 300


def test_c4_whatever_a_power_loss_leaves_is_valid(
    tmp_path: Path, record_property: Record
) -> None:
    found = swept("powerloss.py", str(tmp_path))
    record_property("contents of the disk", found["outcomes"])
    assert found["violated"] == []
    assert found["outcomes"] > 500


TRAINS = """
import sys
from pathlib import Path
from faults.sweep import build
trainer = build(Path(sys.argv[1]), lambda step: print(step, flush=True))
trainer.num_epochs = 10_000
import faults.sweep
faults.sweep.LOSSES = [1.0 / (1 + i % 7) for i in range(10_001)]
{more}
trainer.train()
"""


def training(folder: Path, more: str = "", **environment: str) -> Any:
    """Start a run that saves without end in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", TRAINS.format(more=more), str(folder)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@exhaustive
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["one disk", "two disks"])
def test_c1_a_hundred_sigkills_at_random_moments_leave_a_valid_newest_checkpoint(
    tmp_path: Path, elsewhere: bool, record_property: Record
) -> None:
    """With two disks, the temporary folder is on another file system."""
    other = Path("/dev/shm")
    if elsewhere and (
        not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev
    ):
        pytest.skip("/dev/shm is no other file system here")
    environment = {"TMPDIR": str(other)} if elsewhere else {}
    chance, bad = random.Random(elsewhere), []
    for number in range(100):
        folder = tmp_path / str(number)
        process = training(folder, **environment)
        first = process.stdout.readline()
        assert first, process.stderr.read()[-2000:]
        time.sleep(chance.random() * 0.1)
        process.kill()
        told = [first, *process.communicate()[0].splitlines()]
        steps = [int(line) for line in told if line.strip().isdigit()]
        bad += violations(folder, steps[-1])
        if len(bad) >= ENOUGH:
            break
    record_property("kills", number + 1)
    assert bad == []


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


def flip(content: bytes) -> bytes:
    """Flip one bit of a weight, where no directory of the zip file notices."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        record = next(i for i in archive.infolist() if i.filename.endswith("data/0"))
    header = content[record.header_offset :][:30]
    names = int.from_bytes(header[26:28], "little")
    extra = int.from_bytes(header[28:30], "little")
    place = record.header_offset + 30 + names + extra + 1
    return content[:place] + bytes([content[place] ^ 8]) + content[place + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut to nothing": lambda content: b"",
    "cut to half": lambda content: content[: len(content) // 2],
    "cut by a byte": lambda content: content[:-1],
    "one bit flipped": flip,
    "foreign": lambda content: b"something else",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_c7_a_damaged_newest_file_is_passed_over_for_the_one_before(
    tmp_path: Path, damage: str
) -> None:
    trainer = build(tmp_path, lambda step: None, save_top_k=-1)
    trainer.train()
    files = [
        path for path, _ in trainer.plugins["checkpointing"].resume_candidates(trainer)
    ]
    assert len(files) == 4
    newest = files[0]
    newest.write_bytes(DAMAGE[damage](newest.read_bytes()))
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    with pytest.raises(UnreadableError):
        trainer.load_checkpoint(newest)
    assert torch.equal(before["weight"], trainer.model.weight)
    chosen = newest_valid(tmp_path)
    assert chosen is not None
    assert chosen["progress"]["step"] == 6


def test_c7_a_valid_file_that_is_not_the_listed_one_is_passed_over(
    tmp_path: Path,
) -> None:
    trainer = build(tmp_path, lambda step: None, save_top_k=-1)
    trainer.train()
    plugin = trainer.plugins["checkpointing"]
    newest, before, *_ = (path for path, _ in plugin.resume_candidates(trainer))
    size, state = newest.stat().st_size, torch.load(newest, weights_only=True)
    state["model"]["weight"] += 1
    with newest.open("wb") as file:
        torch.save(state, file)
    assert newest.stat().st_size == size
    problems = dict(plugin.resume_candidates(trainer))
    assert problems[newest] == "its content is not the one listed"
    assert problems[before] is None


def test_c7_without_a_manifest_the_one_that_got_furthest_is_newest(
    tmp_path: Path,
) -> None:
    trainer = build(tmp_path, lambda step: None, save_top_k=-1)
    trainer.train()
    plugin = trainer.plugins["checkpointing"]
    files = [path for path, _ in plugin.resume_candidates(trainer)]
    (tmp_path / "manifest.json").unlink()
    for age, path in enumerate(files):  # as after a copy: the oldest changed last
        os.utime(path, (age, age))
    assert [path for path, _ in plugin.resume_candidates(trainer)] == files


def test_c7_every_flipped_bit_of_a_checkpoint_is_found_or_harmless(
    tmp_path: Path, record_property: Record
) -> None:
    """Harmless: in the padding between records, or a date that nobody reads."""
    state = {"model": {"w": torch.arange(8.0)}, "n": [1, "two", None, 0.5]}
    path = write_checkpoint(tmp_path / "a.pt", state)
    whole, expected = path.read_bytes(), read_checkpoint(path)
    found = 0
    places = range(0, len(whole), 3)
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            loaded = read_checkpoint(path)
        except CheckpointError:
            found += 1
            continue
        assert torch.equal(loaded["model"]["w"], expected["model"]["w"]), place
        assert loaded["n"] == expected["n"], place
    record_property("flipped bits", len(places))
    assert found > len(places) // 4


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"\xff\xfe"])
def test_c7_without_a_readable_manifest_the_newest_file_is_found_all_the_same(
    tmp_path: Path, content: bytes | None
) -> None:
    build(tmp_path, lambda step: None).train()
    if content is None:
        (tmp_path / "manifest.json").unlink()
    else:
        (tmp_path / "manifest.json").write_bytes(content)
    chosen = newest_valid(tmp_path)
    assert chosen is not None
    assert chosen["progress"]["step"] == 8


@linux
def test_c8_a_second_process_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    first = training(tmp_path)
    try:
        assert first.stdout.readline()
        before = set(tmp_path.glob("*.pt"))
        with pytest.raises(ConfigError, match=rf"in use by process {first.pid}"):
            build(tmp_path, lambda step: None).train()
        assert before
    finally:
        first.kill()
        first.communicate()
    again = build(tmp_path, lambda step: None)
    again.train()
    assert again.epoch == 4, "the lock of a dead process is taken over"
    assert not (tmp_path / "run.lock").exists()


def holder(folder: Path, **changes: Any) -> RunLock:
    """Write a lock as another process would have left it; return ours."""
    left = replace(Holder.of_now(), **changes)
    (folder / "run.lock").write_bytes(left.to_bytes())
    return RunLock(folder, beat=0.05, watch=0.3)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"pid": 2**22 + 1}, id="a process that is gone"),
        pytest.param({"pid": os.getppid(), "started": "x"}, id="its number used again"),
        pytest.param(
            {"host": "elsewhere", "namespace": "x/1"}, id="another host that is silent"
        ),
        pytest.param(
            {"host": "elsewhere", "namespace": None, "started": "x/1", "token": None},
            id="another host, in the words of an earlier release",
        ),
    ],
)
def test_c8_a_stale_lock_is_taken_over_with_a_warning(
    tmp_path: Path, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    lock = holder(tmp_path, **changes)
    lock.acquire()
    assert "taking over" in caplog.text or "watching" in caplog.text
    assert Holder.parse((tmp_path / "run.lock").read_bytes()) == lock.holder
    lock.release()
    assert not (tmp_path / "run.lock").exists()


def test_c8_the_name_alone_refuses_where_nothing_can_be_locked(tmp_path: Path) -> None:
    parent = os.getppid()
    lock = holder(tmp_path, pid=parent, started=start_of(parent))
    with pytest.raises(ConfigError, match=f"in use by process {parent}"):
        lock.acquire()


def test_c8_a_lock_that_another_host_touches_is_respected(tmp_path: Path) -> None:
    ours = holder(tmp_path, host="elsewhere", pid=1, namespace="x/1")
    theirs = RunLock(tmp_path, beat=0.02)
    theirs.holder = Holder.parse((tmp_path / "run.lock").read_bytes())
    heart = threading.Thread(target=theirs._keep_alive, daemon=True)
    heart.start()
    try:
        with pytest.raises(ConfigError, match="in use by process 1 on elsewhere"):
            ours.acquire()
    finally:
        theirs._released.set()
        heart.join()


def test_c8_one_process_at_a_time_looks_whether_a_lock_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, real, refused = holder(tmp_path, pid=2**22 + 1), RunLock._is_alive, []

    def looks(self: RunLock, *of: Any) -> bool:
        descriptor = os.open(tmp_path / "run.lock", os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refused.append(descriptor)
        finally:
            os.close(descriptor)
        return real(self, *of)

    monkeypatch.setattr(RunLock, "_is_alive", looks)
    lock.acquire()
    assert refused, "another one would have waited"
    monkeypatch.undo()
    lock.release()


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


class Slow:
    """Lets a background write begin only when the test says so."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, fail: int | None = None
    ) -> None:
        from trainbus_checkpointing import saver

        self.gate = threading.Event()
        self.written: list[tuple[int, torch.Tensor]] = []  # step, weight
        real = saver.write_checkpoint

        def write(path: Path, state: Any) -> Any:
            self.gate.wait(20)
            weight = state["model"]["weight"].clone()
            self.written.append((state["progress"]["step"], weight))
            if fail is not None:
                raise CheckpointError(f"{path}: {os.strerror(fail)}")
            return real(path, state)

        monkeypatch.setattr(saver, "write_checkpoint", write)


class AsksAt(Callback):
    """Asks for a checkpoint at some steps, and does something at another."""

    def __init__(
        self, steps: set[int], at: int, act: Callable[[Trainer], object]
    ) -> None:
        self.steps, self.at, self.act = steps, at, act

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step in self.steps:
            trainer.request_checkpoint("test")
        if trainer.step == self.at:
            self.act(trainer)


def test_c12_the_snapshot_is_what_was_true_at_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, states = Slow(monkeypatch), []

    class Keeps(Callback):
        before = ("checkpointing",)

        def on_checkpoint(self, trainer: Trainer) -> None:
            if trainer.step == 1:
                states.append(trainer.model.weight.detach().clone())

    trainer = build(tmp_path, lambda step: None, async_save=True, save_top_k=-1)
    trainer.bus.register_all(
        [(None, Keeps()), (None, AsksAt({1}, 2, lambda trainer: slow.gate.set()))]
    )
    trainer.train()
    step, weight = slow.written[0]
    assert step == 1
    assert torch.equal(weight, states[0])
    assert not torch.equal(trainer.model.weight, states[0])


@pytest.mark.parametrize("step", [1, 7], ids=["at the next step", "at the end"])
def test_c12_an_error_of_a_background_save_surfaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    slow = Slow(monkeypatch, fail=errno.ENOSPC)
    slow.gate.set()
    trainer = build(tmp_path, lambda step: None, async_save=True)
    trainer.bus.register(AsksAt({step}, 0, lambda trainer: None))
    with pytest.raises(CheckpointError, match="No space left"):
        trainer.train()
    assert trainer.step <= step + 1
    assert len(slow.written) == 2, "it was tried twice"


def test_c12_a_second_request_waits_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    trainer = build(tmp_path, lambda step: None, async_save=True, save_top_k=-1)
    store = trainer.plugins["checkpointing"]
    seen: list[int] = []

    def look(trainer: Trainer) -> None:
        seen.append(len(store._saver.store.entries))
        slow.gate.set()

    trainer.bus.register(AsksAt({1, 2, 3}, 2, look))
    trainer.train()
    assert seen == [0], "the first was in flight"
    # Step 2 ends an epoch: what was asked for there waits for its evaluation.
    assert [step for step, _ in slow.written] == [1, 2, 3, 4, 6]
    assert violations(tmp_path, 8) == []


def test_c12_a_second_signal_does_not_wait_for_a_background_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)

    def interrupt(trainer: Trainer) -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    trainer = build(tmp_path, lambda step: None, async_save=True)
    trainer.bus.register(AsksAt({1}, 2, interrupt))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert slow.written == [], "the write has not even begun"
    background = trainer.plugins["checkpointing"]._saver.store._background
    slow.gate.set()
    background.finish(wait=True)


def test_c12_an_error_waits_for_a_background_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)

    def fail(trainer: Trainer) -> None:
        slow.gate.set()
        raise OSError("elsewhere")

    trainer = build(tmp_path, lambda step: None, async_save=True)
    trainer.bus.register(AsksAt({1}, 2, fail))
    with pytest.raises(OSError, match="elsewhere"):
        trainer.train()
    assert [step for step, _ in slow.written] == [1]


def test_c12_killed_while_a_background_save_runs_the_previous_one_is_valid(
    tmp_path: Path,
) -> None:
    more = (
        "from trainbus_checkpointing import ModelCheckpointCallback\n"
        "trainer.bus.unregister('checkpointing')\n"
        "trainer.bus.register(ModelCheckpointCallback(sys.argv[1], async_save=True))"
    )
    for number in range(3):
        folder = tmp_path / str(number)
        process = training(folder, more)
        last = [process.stdout.readline() for _ in range(3 + number)][-1]
        process.kill()
        process.communicate()
        assert violations(folder, int(last)) == []


def test_an_asynchronous_run_ends_like_a_synchronous_one(tmp_path: Path) -> None:
    ends = []
    for is_async in (False, True):
        folder = tmp_path / str(is_async)
        trainer = build(folder, lambda step: None, async_save=is_async)
        trainer.train()
        ends.append(
            (trainer.model.weight.tolist(), sorted(p.name for p in folder.iterdir()))
        )
    assert ends[0] == ends[1]


def test_c11_a_checkpoint_of_a_newer_format_is_refused_in_one_sentence(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.pt"
    build(tmp_path, lambda step: None).save_checkpoint(path)
    state = torch.load(path, weights_only=True)
    torch.save({**state, "format_version": 99}, path)
    with pytest.raises(CheckpointError, match=r"format 99.*upgrade trainbus") as caught:
        read_checkpoint(path)
    assert not isinstance(caught.value, UnreadableError), "no older one is taken for it"


def test_c11_an_older_format_is_migrated_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import checkpoint_io

    path = tmp_path / "a.pt"
    build(tmp_path, lambda step: None).save_checkpoint(path)
    monkeypatch.setattr(checkpoint_io, "FORMAT_VERSION", 3)
    with pytest.raises(CheckpointError, match="format 1, from which no way leads to 3"):
        read_checkpoint(path)
    steps = {1: lambda s: {**s, "a": 1}, 2: lambda s: {**s, "b": s["a"] + 1}}
    monkeypatch.setattr(checkpoint_io, "MIGRATIONS", steps)
    migrated = read_checkpoint(path)
    assert (migrated["format_version"], migrated["b"]) == (3, 2)


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", None])
def test_c11_what_is_no_number_of_a_format_is_refused(
    tmp_path: Path, version: Any
) -> None:
    path = tmp_path / "a.pt"
    build(tmp_path, lambda step: None).save_checkpoint(path)
    state = torch.load(path, weights_only=True)
    torch.save({**state, "format_version": version}, path)
    with pytest.raises(UnreadableError, match="which is no number of a format"):
        read_checkpoint(path)


def test_c11_another_world_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    build(tmp_path, lambda step: None).save_checkpoint(path)
    state = torch.load(path, weights_only=True)
    state["settings"]["world_size"] = 2
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="world_size was 2, is 1"):
        build(tmp_path, lambda step: None).load_checkpoint(path)


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
