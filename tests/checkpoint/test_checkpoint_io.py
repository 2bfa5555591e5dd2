"""Files are written whole or not at all, and prove themselves when read."""

from __future__ import annotations

import json
import math
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from training import CheckpointError
from training.checkpoint_io import (
    UnreadableError,
    read_checkpoint,
    write_checkpoint,
    write_durably,
    write_json,
)

STATE: dict[str, Any] = {"model": {"w": torch.arange(6.0)}, "n": [1, "two", None]}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "deep" / "a.pt", STATE)
    state = read_checkpoint(path)
    assert torch.equal(state["model"]["w"], STATE["model"]["w"])
    assert state["n"] == STATE["n"]
    assert os.listdir(path.parent) == ["a.pt"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a.pt", STATE)
    old = path.read_bytes()

    def fail(file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_durably(path, fail)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["a.pt"]


def test_a_checkpoint_that_cannot_be_written_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CheckpointError, match=r"a\.pt' could not be written"):
        write_checkpoint(tmp_path / "file" / "a.pt", STATE)


def damage_bit(content: bytes) -> bytes:
    middle = content.find(torch.arange(6.0).numpy().tobytes()) + 9
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(damage_bit, "fails its CRC32", id="one flipped bit in a weight"),
        pytest.param(lambda c: c[: len(c) // 2], "no complete checkpoint", id="half"),
        pytest.param(lambda c: c[:-1], "no complete checkpoint", id="a byte short"),
        pytest.param(lambda c: b"", "no complete checkpoint", id="empty"),
        pytest.param(lambda c: b"hello", "no complete checkpoint", id="foreign"),
    ],
)
def test_a_damaged_file_is_refused_before_anything_is_loaded(
    tmp_path: Path, damage: Any, told: str
) -> None:
    path = write_checkpoint(tmp_path / "a.pt", STATE)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=told) as caught:
        read_checkpoint(path)
    assert caught.value.exit_code == 4


def test_torch_itself_loads_the_flipped_bit(tmp_path: Path) -> None:
    """The negative control: without the CRC32 check the damage goes unseen."""
    path = write_checkpoint(tmp_path / "a.pt", STATE)
    path.write_bytes(damage_bit(path.read_bytes()))
    loaded = torch.load(path, weights_only=True)
    assert not torch.equal(loaded["model"]["w"], STATE["model"]["w"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pt' cannot be read"):
        read_checkpoint(tmp_path / "none.pt")


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(tmp_path)


class Malicious:
    def __reduce__(self) -> Any:
        return (os.mkdir, (os.environ["MARKER"],))


@pytest.mark.parametrize("force", ["0", "1"])
def test_code_in_a_checkpoint_never_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: str
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", force)
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    path = tmp_path / "evil.pt"
    torch.save({"format": "trainbus-checkpoint", "x": Malicious()}, path)
    with pytest.raises(CheckpointError, match="neither tensor nor plain value"):
        read_checkpoint(path)
    assert not (tmp_path / "marker").exists()


def test_an_old_style_pickle_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        read_checkpoint(path)


def test_a_foreign_torch_file_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of this trainer"):
        read_checkpoint(tmp_path / "other.pt")


def test_a_newer_format_is_refused_with_both_numbers(tmp_path: Path) -> None:
    path = tmp_path / "new.pt"
    torch.save({"format": "trainbus-checkpoint", "format_version": 99}, path)
    with pytest.raises(CheckpointError, match=r"format 99.*up to 1"):
        read_checkpoint(path)


def test_json_has_no_nan_in_it(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"x": [math.nan, math.inf, 1.5], 2: "two"})
    assert json.loads(path.read_text()) == {"x": [None, None, 1.5], "2": "two"}


def test_json_for_people_has_a_line_for_each_entry_and_each_row(tmp_path: Path) -> None:
    value = {"a": {"b": 1, "c": {}}, "rows": [{"x": 1, "y": [2]}, {}], "of": [1, 2]}
    path = write_json(tmp_path / "a.json", value)
    assert json.loads(path.read_text()) == value
    assert path.read_text().splitlines() == [
        "{",
        '  "a": {',
        '    "b": 1,',
        '    "c": {}',
        "  },",
        '  "rows": [',
        '    {"x": 1, "y": [2]},',
        "    {}",
        "  ],",
        '  "of": [1, 2]',
        "}",
    ]


@pytest.mark.parametrize("listed", [{"file": "a.pt", "step": 3}, {"last": "a.pt"}])
def test_a_list_of_checkpoints_is_told_as_one_with_the_file_that_it_names(
    listed: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "last.json"
    path.write_text(json.dumps(listed), encoding="utf-8")
    with pytest.raises(UnreadableError) as caught:
        read_checkpoint(path)
    assert str(caught.value) == (
        f"{str(path)!r} is a list of checkpoints, and none itself; give the file that "
        f"it names, {str(tmp_path / 'a.pt')!r}"
    )


@pytest.mark.parametrize("text", ["{", "{}", '{"last": null}', "\x7b\xff"])
def test_any_other_text_is_no_list_of_checkpoints(text: str, tmp_path: Path) -> None:
    path = tmp_path / "last.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UnreadableError, match="no complete checkpoint"):
        read_checkpoint(path)
