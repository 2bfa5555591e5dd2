"""Folders of classes: each picture with the name of its folder."""

from pathlib import Path

import pytest

from trainbus_data.readers.class_folders import ClassFolders
from training.errors import DataError


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.touch()
    return folder


def test_a_picture_is_a_row_in_the_order_of_names(tmp_path):
    folder = make(tmp_path / "d", "dog/2.png", "cat/b.JPG", "cat/a.jpeg", "dog/10.png")
    rows = ClassFolders(folder)
    assert list(rows) == [
        {"image": "cat/a.jpeg", "label": "cat"},
        {"image": "cat/b.JPG", "label": "cat"},
        {"image": "dog/10.png", "label": "dog"},
        {"image": "dog/2.png", "label": "dog"},
    ]
    assert rows.root == folder
    assert rows.place(3) == f"{folder}:dog/2.png"


def test_what_systems_leave_behind_is_no_row(tmp_path):
    folder = make(
        tmp_path / "d", "cat/1.png", "cat/.DS_Store", "cat/Thumbs.db", ".git/x.png",
        "README.md",
    )  # fmt: skip
    assert list(ClassFolders(folder)) == [{"image": "cat/1.png", "label": "cat"}]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["1.png", "cat/1.png"], "1.png lies beside the folders of classes, .*1 pict"),
        (["notes.txt"], "holds no folders; it should hold one for each class"),
        (["cat/", "dog/1.png"], "d/cat holds no pictures; remove this class"),
        (["train/cat/1.png"], r"the folder 'cat'; if 'train' is a split, name it: \{"),
        (["cat/1.png", "cat/labels.csv"], "labels.csv is no picture by its name"),
    ],
    ids=str,
)  # fmt: skip
def test_another_layout_is_told_in_a_sentence(tmp_path, names, words):
    with pytest.raises(DataError, match=words) as caught:
        ClassFolders(make(tmp_path / "d", *names))
    assert "\n" not in str(caught.value)


def test_a_link_that_leads_nowhere_is_no_class_left_out(tmp_path):
    folder = make(tmp_path / "d", "cat/1.png")
    (folder / "dog").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"d/dog is a link that leads nowhere, to '"):
        ClassFolders(folder)


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*no: No such file"):
        ClassFolders(tmp_path / "no")
