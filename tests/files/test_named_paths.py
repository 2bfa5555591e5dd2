"""Paths a person writes: ``~`` is the home folder, and only a file is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy import make_trainer

from trainbus_data.config import parse_data_config
from trainbus_data.images.open_image import ImageFault, open_rgb
from trainbus_data.rows.json_lines import lines_of
from trainbus_data.rows.line_index import LineIndex
from trainbus_data.vqa.synthetic import write_shapes
from training import ConfigError, CSVLoggerCallback, DataError, ModelCheckpointCallback
from training.app.config.schema import TrainingConfig
from training.checkpoint_io import write_json
from training.discovery.installed import use_folder
from training.documents.yaml_file import read_yaml_with_lines
from training.files.named_paths import named_path, open_file


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, with the working directory elsewhere."""
    path = tmp_path / "home"
    (path / "plugins").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(path))
    monkeypatch.chdir(tmp_path / "here")
    return path


def saved_and_loaded(path: str) -> Path:
    trainer = make_trainer(None, None)
    trainer.save_checkpoint(path)
    trainer.load_checkpoint(path)
    assert trainer.resumed_from is not None
    return trainer.resumed_from


PLACES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "save_dir": ("~/runs", lambda p: make_trainer(None, None, save_dir=p).save_dir),
    "training.save_dir": ("~/runs", lambda p: TrainingConfig(save_dir=p).save_dir),
    "data.train": ("~/a.jsonl", lambda p: parse_data_config({"train": p}).train),
    "data.root": (
        "~/rows",
        lambda p: parse_data_config({"train": "a.jsonl", "root": p}).root,
    ),
    "checkpoint": ("~/a.pt", saved_and_loaded),
    "checkpointing.save_dir": ("~/kept", lambda p: ModelCheckpointCallback(p).save_dir),
    "csv.filename": ("~/a.csv", lambda p: CSVLoggerCallback(p).path),
    "a written file": ("~/a.json", lambda p: write_json(p, {})),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_path_that_begins_with_a_tilde_is_in_the_home_folder(
    home: Path, place: str
) -> None:
    given, take = PLACES[place]
    assert take(given) == home / given[2:]
    assert os.listdir() == []


def test_so_are_drawn_pictures_and_a_folder_of_plugins(home: Path) -> None:
    use_folder("~/plugins")
    assert write_shapes("~/drawn", 1, 1).parent == home / "drawn"
    assert os.listdir() == []


def test_a_tilde_inside_a_path_is_a_letter() -> None:
    assert named_path("a~b/~c") == Path("a~b/~c")
    assert named_path("/tmp/~") == Path("/tmp/~")


def test_a_home_folder_of_nobody_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'~no-such-person/x' begins with the home"):
        named_path("~no-such-person/x")


READERS: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "rows": (lambda path: list(lines_of(path)), DataError),
    "indexed rows": (LineIndex, DataError),
    "a picture": (lambda path: open_rgb(path, 100), ImageFault),
    "a configuration": (read_yaml_with_lines, ConfigError),
    "any file": (open_file, OSError),
}


@pytest.mark.timeout(20)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_in_place_of_a_file_is_named_and_not_waited_for(
    tmp_path: Path, reader: str
) -> None:
    read, error = READERS[reader]
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(error, match="it is a named pipe, not a file"):
        read(tmp_path / "pipe")


def test_a_file_is_read(tmp_path: Path) -> None:
    """The control."""
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "link").symlink_to("a")
    with open_file(tmp_path / "link") as file:
        assert file.read() == b"content"
