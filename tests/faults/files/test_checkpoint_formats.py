"""C11: a checkpoint of another format or world is migrated or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from faults.sweep import build

from training import CheckpointError
from training.checkpoint_io import UnreadableError, read_checkpoint


def saved(folder: Path, **changes: Any) -> Path:
    """Return a checkpoint of a run, with other entries in place of its own."""
    path = folder / "a.pt"
    build(folder, lambda step: None).save_checkpoint(path)
    torch.save(torch.load(path, weights_only=True) | changes, path)
    return path


def test_c11_a_checkpoint_of_a_newer_format_is_refused_in_one_sentence(
    tmp_path: Path,
) -> None:
    path = saved(tmp_path, format_version=99)
    with pytest.raises(CheckpointError, match=r"format 99.*upgrade trainbus") as caught:
        read_checkpoint(path)
    assert not isinstance(caught.value, UnreadableError), "no older one is taken for it"


def test_c11_an_older_format_is_migrated_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import checkpoint_io

    path = saved(tmp_path)
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
    path = saved(tmp_path, format_version=version)
    with pytest.raises(UnreadableError, match="which is no number of a format"):
        read_checkpoint(path)


def test_c11_another_world_size_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path)
    state = torch.load(path, weights_only=True)
    state["settings"]["world_size"] = 2
    torch.save(state, path)
    receipt = build(tmp_path, lambda step: None).load_checkpoint(path)
    assert "setting world_size was 2, is 1" in str(receipt)
