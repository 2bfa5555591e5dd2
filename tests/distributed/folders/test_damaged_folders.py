"""A folder of parts that is not as a save has left it is refused, and moves nothing."""

from __future__ import annotations

import io
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.in_parts import FSDP2, make, run
from ranks import Ranks

from training import CheckpointError
from training.archive.shards import digest_of
from training.checkpoint_io import (
    UnreadableError,
    peek_state,
    position_of,
    read_checkpoint,
)

pytestmark = pytest.mark.distributed

SHARDED = {**FSDP2, "checkpoint": "sharded"}
PART = "__1_0.distcp"


@pytest.fixture(scope="module")
def folders(two: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two checkpoints of two processes."""
    folder = tmp_path_factory.mktemp("folders")
    two.run(run, SHARDED, 0.0, str(folder / "a.ckpt"))
    two.run(run, SHARDED, 0.3, str(folder / "b.ckpt"))
    return folder


def flip(folder: Path) -> None:
    content = bytearray((folder / PART).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / PART).write_bytes(content)


def cut(folder: Path) -> None:
    os.truncate(folder / PART, 1000)


def lose(folder: Path) -> None:
    (folder / PART).unlink()


def lose_index(folder: Path) -> None:
    (folder / ".metadata").unlink()


def swap(folder: Path) -> None:
    shutil.copy(folder.parent / "other" / PART, folder / PART)


def swap_rest(folder: Path) -> None:
    shutil.copy(folder.parent / "other" / "state.pt", folder / "state.pt")


def lose_rest(folder: Path) -> None:
    (folder / "state.pt").unlink()


def cut_rest(folder: Path) -> None:
    os.truncate(folder / "state.pt", 2000)


def pipe(folder: Path) -> None:
    (folder / PART).unlink()
    os.mkfifo(folder / PART)


def changed(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Return what changes the parts' list, as somebody who means harm could."""

    def write(folder: Path) -> None:
        state = torch.load(folder / "state.pt", weights_only=True)
        change(state)
        torch.save(state, folder / "state.pt")

    return write


def first(state: dict[str, Any]) -> dict[str, Any]:
    tensor: dict[str, Any] = state["shards"]["tensors"][0]
    return tensor


def outside(state: dict[str, Any]) -> None:
    files = state["shards"]["files"]
    files[f"../a.ckpt/{PART}"] = files.pop(PART)


def again(state: dict[str, Any]) -> None:
    tensor = first(state)
    tensor["parts"] *= 1000
    tensor["shape"][0] *= 1000


def stretched(state: dict[str, Any]) -> None:
    first(state)["shape"][0] = 10**12


def occupied(state: dict[str, Any]) -> None:
    first(state)["at"] = [["model"]]


def nowhere(state: dict[str, Any]) -> None:
    first(state)["at"] = [["weights", "0"]]


def other_type(state: dict[str, Any]) -> None:
    first(state)["dtype"] = torch.float64


def other_order(state: dict[str, Any]) -> None:
    first(state)["parts"] = [["__0_0.distcp", 0, 10]]


def before_start(state: dict[str, Any]) -> None:
    first(state)["parts"][0][2] = -1


def unlisted(state: dict[str, Any]) -> None:
    del state["shards"]["files"][PART]


def no_list(state: dict[str, Any]) -> None:
    del state["shards"]


class Runs:
    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["MARKER"],)


def with_code(folder: Path) -> None:
    content = io.BytesIO()
    torch.save([Runs()], content)
    (folder / PART).write_bytes(content.getvalue())
    state = torch.load(folder / "state.pt", weights_only=True)
    state["shards"]["files"][PART] = digest_of(folder / PART)
    state["shards"]["tensors"] = [first(state)]
    first(state)["parts"][1] = [PART, 0, len(content.getvalue())]
    torch.save(state, folder / "state.pt")


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "a bit": (flip, "another file '__1_0.distcp'"),
    "cut": (cut, "another file '__1_0.distcp'"),
    "lost": (lose, "lacks its part '__1_0.distcp' (No such file"),
    "torch's index lost": (lose_index, "lacks its part '.metadata'"),
    "a part of another one": (swap, "another file '__1_0.distcp'"),
    "the rest of another one": (swap_rest, "another file"),
    "no rest": (lose_rest, "it is a folder, not a file, and has no state.pt"),
    "half of the rest": (cut_rest, "is no complete checkpoint"),
    "a pipe": (pipe, "it is a named pipe, not a file"),
    "a file outside": (changed(outside), "names a file outside of it"),
    "the same bytes again": (changed(again), "takes more out of"),
    "too large": (changed(stretched), "other parts of ['model'"),
    "an occupied place": (changed(occupied), "something at the place"),
    "no place": (changed(nowhere), "does not tell where its parts are"),
    "another type": (changed(other_type), "other parts of ['model'"),
    "no tensor there": (changed(other_order), "does not tell where its parts are"),
    "a negative length": (changed(before_start), "before the start of"),
    "a part of no file": (changed(unlisted), "does not tell where its parts are"),
    "no list": (changed(no_list), "does not tell where its parts are"),
    "code in a part": (with_code, "neither tensor nor plain value"),
}


def spoilt(folders: Path, tmp_path: Path, spoil: Callable[[Path], None]) -> Path:
    shutil.copytree(folders / "a.ckpt", tmp_path / "a.ckpt")
    shutil.copytree(folders / "b.ckpt", tmp_path / "other")
    spoil(tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt"


@pytest.mark.parametrize("wrong", WRONG)
def test_d30_a_folder_that_no_save_has_left_so_is_refused_in_a_sentence(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    spoil, says = WRONG[wrong]
    path = spoilt(folders, tmp_path, spoil)
    with pytest.raises(UnreadableError) as caught:
        read_checkpoint(path)
    told = str(caught.value)
    assert says in told
    assert str(path) in told
    assert "\n" not in told
    assert not (tmp_path / "marker").exists()


def test_d30_torch_s_index_whose_pickle_could_run_is_not_unpickled(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_code(folder: Path) -> None:
        (folder / ".metadata").write_bytes(pickle.dumps(Runs()))
        state = torch.load(folder / "state.pt", weights_only=True)
        state["shards"]["files"][".metadata"] = digest_of(folder / ".metadata")
        torch.save(state, folder / "state.pt")

    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    path = spoilt(folders, tmp_path, with_code)
    assert read_checkpoint(path)["progress"]["step"] == 3
    assert not (tmp_path / "marker").exists()
    pickle.loads((path / ".metadata").read_bytes())  # the control: torch would run it
    assert (tmp_path / "marker").exists()


def test_d30_the_control_is_read(folders: Path, tmp_path: Path) -> None:
    path = spoilt(folders, tmp_path, lambda folder: None)
    assert read_checkpoint(path)["progress"]["step"] == 3
    assert position_of(path) == (0, 3)
    assert peek_state(path)["progress"]["step"] == 3


def test_d30_a_file_of_the_folder_is_no_checkpoint(folders: Path) -> None:
    with pytest.raises(UnreadableError, match=r"part of a sharded.* name its folder"):
        read_checkpoint(folders / "a.ckpt" / "state.pt")


def loading(path: str, is_blind: bool) -> tuple[str, list[float]]:
    """Load where one process alone, or each, finds another folder than was saved."""
    trainer = make(SHARDED)
    if is_blind and trainer.is_main:
        path = path.replace("a.ckpt", "other")
    told = "loaded"
    try:
        trainer.load_checkpoint(path)
    except CheckpointError as error:
        told = str(error)
    weights = [p.full_tensor().sum().item() for p in trainer.model.parameters()]
    return told, weights


@pytest.mark.parametrize("is_blind", [False, True], ids=["each", "one"])
def test_d30_what_one_process_cannot_read_is_everybody_s_error_and_moves_nothing(
    two: Ranks, folders: Path, tmp_path: Path, is_blind: bool
) -> None:
    path = spoilt(folders, tmp_path, flip)
    untouched = [p.sum().item() for p in make({}).model.parameters()]
    for told, weights in two.run(loading, str(path), is_blind):
        assert told.startswith(f"checkpoint '{path}' has another file")
        assert weights == pytest.approx(untouched, abs=1e-6)
