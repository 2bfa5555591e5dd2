"""C7: a damaged checkpoint is found, and the one before it taken."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from faults.sweep import build, newest_valid

from training import CheckpointError
from training.checkpoint_io import UnreadableError, read_checkpoint, write_checkpoint

Record = Callable[[str, object], None]


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
