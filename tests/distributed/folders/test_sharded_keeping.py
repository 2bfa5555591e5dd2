"""What keeps checkpoints keeps folders as it does files, at once or in threads."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from distributed.in_parts import FSDP2, make
from faults.operations import Operations
from ranks import RankError, Ranks

from trainbus_checkpointing import ModelCheckpointCallback
from training import Callback, CheckpointError, Trainer
from training.builtin.resume import resume
from training.checkpoint.compare import first_difference
from training.plugin import read_checkpoint

pytestmark = pytest.mark.distributed

SHARDED = {**FSDP2, "checkpoint": "sharded"}
KEEPS = {"monitor": "train_loss", "save_top_k": 1, "every_n_steps": 3}
WAYS = pytest.mark.parametrize("is_async", [False, True], ids=["at once", "in threads"])


def keeper(folder: str, plugin: Mapping[str, Any], **options: Any) -> Trainer:
    """Return a run of two epochs of four steps that saves four times."""
    plugins = [{"distributed": dict(plugin)}, {"checkpointing": {**KEEPS, **options}}]
    return make({}, plugins=plugins, save_dir=folder)


class Seen:
    """What the folders of checkpoints hold before each operation of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sizes: dict[str, set[tuple[tuple[str, int], ...]]] = {}
        self._is_looking = threading.local()

    def __call__(self, *_: object) -> None:
        if getattr(self._is_looking, "now", False):
            return
        self._is_looking.now = True
        for each in self.folder.glob("*.ckpt"):
            found = sorted((p.name, p.stat().st_size) for p in each.iterdir())
            self.sizes.setdefault(each.name, set()).add(tuple(found))
        self._is_looking.now = False


def kept(folder: str, plugin: Mapping[str, Any], is_async: bool) -> dict[str, Any]:
    trainer = keeper(folder, plugin, async_save=is_async)
    seen = Seen(Path(folder) / "checkpoints")
    if trainer.is_main:
        with Operations(seen.folder, seen):
            trainer.train()
    else:
        trainer.train()
    plugin_ = trainer.plugins["checkpointing"]
    found = plugin_.find_checkpoint(8)
    return {
        "paths": [str(plugin_.best_path), str(plugin_.last_path), str(found)],
        "seen": seen.sizes,
        "state": plugin_.state_dict(),
    }


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def listed(folder: Path) -> list[Any]:
    manifest = json.loads((folder / "manifest.json").read_text())
    own = ("num_bytes", "digest", "file", "written_by")
    entries = manifest["checkpoints"]
    return [{k: v for k, v in each.items() if k not in own} for each in entries]


@pytest.fixture(scope="module")
def files(two: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which the same run keeps files."""
    folder = tmp_path_factory.mktemp("files")
    two.run(kept, str(folder), FSDP2, False)
    return folder / "checkpoints"


@WAYS
def test_d30_folders_are_kept_as_files_are(
    two: Ranks, files: Path, tmp_path: Path, is_async: bool
) -> None:
    main, other = two.run(kept, str(tmp_path), SHARDED, is_async)
    assert main["paths"] == other["paths"]
    assert main["state"] == other["state"]
    folders = tmp_path / "checkpoints"
    as_folders = sorted(n.replace(".pt", ".ckpt") for n in names_in(files))
    assert names_in(folders) == as_folders
    assert listed(folders) == listed(files)
    # What one looks at, before each operation: a kill could have come there.
    assert len(main["seen"]) == 4
    assert {len(contents) for contents in main["seen"].values()} == {1}
    for name in {Path(each).name for each in main["paths"]}:
        assert read_checkpoint(folders / name)["progress"]["step"] == 8


class Holds(Callback):
    """Asks for a checkpoint; two steps pass before this process may write its part."""

    hook_api = ">=1.1,<2"

    def __init__(self, is_held: bool) -> None:
        self.is_held = is_held
        self.is_free = threading.Event()
        self.listed: list[bool] = []

    def on_step_end(self, trainer: Trainer) -> None:
        self.listed.append(trainer.plugins["checkpointing"].last_path is not None)
        if trainer.step == 1:
            trainer.request_checkpoint("test")
        if trainer.step == 3:
            self.is_free.set()

    def needed_checkpoints(self) -> list[int]:
        return [1]

    def act(self, number: int, name: str, path: str, detail: Any) -> None:
        if self.is_held and name == "open w" and path.endswith(".distcp"):
            assert self.is_free.wait(60)


def written_meanwhile(folder: str, is_async: bool) -> list[bool]:
    options = {"monitor": None, "every_n_steps": None, "save_best_only": False}
    trainer = keeper(folder, SHARDED, **options, save_top_k=9, async_save=is_async)
    holds = Holds(is_async and not trainer.is_main)
    trainer.bus.register(holds)
    with Operations(Path(folder), holds.act):
        trainer.train()
    return holds.listed[:3]


def test_d30_what_threads_write_is_the_state_of_the_boundary(
    two: Ranks, tmp_path: Path
) -> None:
    now, later = tmp_path / "now", tmp_path / "later"
    assert two.run(written_meanwhile, str(now), False) == [[False, True, True]] * 2
    # Before all have written there is nothing, and steps go on.
    assert two.run(written_meanwhile, str(later), True) == [[False] * 3] * 2
    name = "checkpoints/last-epoch000-step1.ckpt"
    here, there = (read_checkpoint(f / name) for f in (now, later))
    assert first_difference(here, there, ignored=frozenset({"seconds"})) is None


def unwritten(folder: str, on_save_error: str) -> tuple[str, int, list[str]]:
    """Train where one process can write no part after the first checkpoint."""
    options = {"async_save": True, "on_save_error": on_save_error}
    trainer = keeper(folder, SHARDED, **options, monitor=None, save_top_k=0)
    checkpoints = Path(folder) / "checkpoints"
    trainer.max_steps = 7

    def act(number: int, name: str, path: str, detail: Any) -> None:
        is_late = trainer.step > 3 and not trainer.is_stopping
        if name == "open w" and is_late and trainer.rank == 1:
            raise OSError(28, "No space left on device")

    try:
        with Operations(checkpoints, act):
            trainer.train()
        told = "trained"
    except CheckpointError as error:
        told = str(error)
    left = trainer.strategy.on_main(
        lambda: sorted(p.name for p in checkpoints.iterdir())
    )
    return told, trainer.step, left


def test_d30_what_a_thread_could_not_write_is_everybody_s_error(
    two: Ranks, tmp_path: Path
) -> None:
    (told, step, left), other = two.run(unwritten, str(tmp_path), "raise")
    assert other == (told, step, left)
    assert "could not be written (" in told
    assert "No space left on device" in told
    assert f"the last good checkpoint is {tmp_path}" in told
    assert "\n" not in told
    assert 4 <= step < 7
    (kept,) = (name for name in left if name.endswith(".ckpt"))
    assert left == sorted([kept, "last.json", "manifest.json"])
    assert read_checkpoint(tmp_path / "checkpoints" / kept)["progress"]["step"] == 3


def test_d30_a_run_may_go_on_without_a_save_and_still_ends_with_one(
    two: Ranks, tmp_path: Path
) -> None:
    (told, step, left), other = two.run(unwritten, str(tmp_path), "warn")
    assert (told, step) == ("trained", 7)
    assert other == (told, step, left)
    (kept,) = (name for name in left if name.endswith(".ckpt"))
    assert read_checkpoint(tmp_path / "checkpoints" / kept)["progress"]["step"] == 7


class Fails(Callback):
    """Ends the run by an error of all processes, while a part waits to be written."""

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == 6:
            raise ArithmeticError("of the user")


def left_early(folder: str) -> list[str]:
    trainer = keeper(folder, SHARDED, async_save=True, monitor=None, save_top_k=0)
    trainer.bus.register(Fails())
    with pytest.raises(ArithmeticError):
        trainer.train()
    trainer.strategy.gather(None)
    return names_in(Path(folder) / "checkpoints")


def test_d30_what_is_in_flight_when_a_run_fails_leaves_nothing_by_halves(
    two: Ranks, tmp_path: Path
) -> None:
    main, other = two.run(left_early, str(tmp_path))
    assert main == other
    (kept,) = (name for name in main if name.endswith(".ckpt"))
    assert main == sorted([kept, "last.json", "manifest.json"])
    assert read_checkpoint(tmp_path / "checkpoints" / kept)["progress"]["step"] in (
        3,
        4,
    )


def resumed_newest(folder: str) -> tuple[str, list[str]]:
    trainer = keeper(folder, SHARDED)
    told = resume(trainer, "auto")
    trainer.train()
    return told.splitlines()[0], names_in(Path(folder) / "checkpoints")


def test_d30_auto_goes_back_past_a_damaged_folder_and_leftovers_are_swept(
    two: Ranks, tmp_path: Path
) -> None:
    two.run(kept_all, str(tmp_path))
    folder = tmp_path / "checkpoints"
    older, newest = sorted(folder.glob("*.ckpt"))[-2:]
    part = newest / "__1_0.distcp"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    (folder / "x.ckpt.ab.tmp-999999999").mkdir()
    (folder / "x.ckpt.ab.tmp-999999999" / "__0_0.distcp").touch()
    for told, names in two.run(resumed_newest, str(tmp_path)):
        assert told.startswith(f"resumed from {older}: ")
        assert not [name for name in names if ".tmp-" in name]


def killed(folder: str, is_async: bool) -> None:
    """Train until one process is killed as it begins to write its second part."""
    trainer = keeper(folder, SHARDED, async_save=is_async, monitor=None)
    begun: set[str] = set()

    def act(number: int, name: str, path: str, detail: Any) -> None:
        if trainer.rank == 1 and path.endswith(".distcp"):
            begun.add(Path(path).parent.name.partition(".")[0])
            if len(begun) == 2:  # not by the step: a thread may be late
                os.kill(os.getpid(), signal.SIGKILL)

    with Operations(Path(folder), act):
        trainer.train()


@WAYS
@pytest.mark.exhaustive
def test_d30_a_kill_in_a_save_leaves_the_folder_before(
    two: Ranks, tmp_path: Path, is_async: bool
) -> None:
    (tmp_path / "ranks").mkdir()
    lost = Ranks(2, tmp_path / "ranks")
    with pytest.raises(RankError):
        lost.run(killed, str(tmp_path), is_async)
    lost.close()
    folder = tmp_path / "checkpoints"
    (kept,) = folder.glob("*.ckpt")
    for told, names in two.run(resumed_newest, str(tmp_path)):
        assert told == f"resumed from {kept}: step 3, 0 epochs complete"
        assert not [name for name in names if ".tmp-" in name]


def kept_all(folder: str) -> None:
    keeper(folder, SHARDED, save_top_k=-1, save_best_only=False).train()


class Copies(Callback):
    """Copies what the second keeper has as its turn comes at the end of an epoch."""

    after, before = ("one",), ("two",)

    def on_checkpoint(self, trainer: Trainer, reason: str) -> None:
        if trainer.is_main and reason == "epoch_end" and trainer.epoch == 1:
            folder = Path(trainer.save_dir)
            shutil.copytree(folder / "two", folder / "copy")


class Looks(Callback):
    """Notes what the second keeper has as training begins."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_step_end(self, trainer: Trainer) -> None:
        folder = Path(trainer.save_dir) / "two"
        self.seen = self.seen or trainer.strategy.on_main(lambda: names_in(folder))


def kept_twice(
    folder: str, plugin: Mapping[str, Any], other: Callback, epochs: int
) -> Callback:
    """Train with two keepers, the second of which writes in threads once resumed."""
    keepers = [
        (name, ModelCheckpointCallback(Path(folder) / name, "train_loss", **options))
        for name, options in (("one", {}), ("two", {"async_save": epochs > 1}))
    ]
    plugins = [{"distributed": dict(plugin)}, *keepers, ("other", other)]
    trainer = make({}, plugins=plugins, save_dir=folder)
    trainer.num_epochs = epochs
    resume(trainer, "auto")
    trainer.train()
    return other


@pytest.mark.parametrize("plugin", [{"engine": "ddp"}, SHARDED], ids=["file", "parts"])
def test_d30_a_keeper_whose_turn_a_kill_took_saves_what_is_resumed_on_all_processes(
    two: Ranks, tmp_path: Path, plugin: Mapping[str, Any]
) -> None:
    two.run(kept_twice, str(tmp_path), plugin, Copies(), 1)
    whole, folder = names_in(tmp_path / "two"), tmp_path / "two"
    # As a kill leaves it that comes between the saves of the two.
    shutil.rmtree(folder)
    (tmp_path / "copy").rename(folder)
    assert names_in(folder) != whole
    for looks in two.run(kept_twice, str(tmp_path), plugin, Looks(), 2):
        assert looks.seen == [*whole, "run.lock"]
