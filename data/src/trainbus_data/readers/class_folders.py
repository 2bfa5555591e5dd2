"""The reader ``folders``: pictures in one folder a class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from trainbus_data.readers.kept_rows import Item, KeptRows
from trainbus_data.rows.formats import refuse_other_formats
from trainbus_data.unreadable import or_data_error
from training.errors import DataError
from training.files.named_paths import named_path
from training.messages.tables import count

__all__ = ["ClassFolders"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
#: What file managers leave in folders of pictures.
LITTER = frozenset({"thumbs.db", "desktop.ini"})


class ClassFolders(KeptRows):
    """Pictures with the name of their folder as label, ordered by class and name.

    Names that begin with a dot are left out. A place is ``<path>:<class>/<name>``.

    Args:
        path: folder that holds one folder a class, which hold pictures and no folders.
    Raises:
        DataError: the folder is missing or laid out otherwise.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = named_path(path)
        refuse_other_formats(path, "folders")
        classes = _classes_of(path)
        super().__init__(
            path,
            [path, *(path / name for name in classes)],
            {"reader": "folders"},
            lambda: _rows_of(path, classes),
        )
        self.root = path


def _classes_of(path: Path) -> list[str]:
    entries = _entries_of(path)
    pictures = [e.name for e in entries if e.name.lower().endswith(SUFFIXES)]
    classes = sorted(e.name for e in entries if e.is_dir())
    astray = [e.path for e in entries if e.is_symlink() and not os.path.exists(e.path)]
    if astray:  # it may be a class, which would be missing without a word
        raise DataError(
            f"{astray[0]} is a link that leads nowhere, to "
            f"{os.path.realpath(astray[0])!r}; mend or remove it"
        )
    if pictures:
        raise DataError(
            f"{path / pictures[0]} lies beside the folders of classes, not in one of "
            f"them ({count(len(pictures), 'picture')} in all); put each into "
            "the folder of its class"
        )
    if not classes:
        raise DataError(
            f"{path} holds no folders; it should hold one for each class, with its "
            "pictures"
        )
    return classes


def _rows_of(path: Path, classes: list[str]) -> Iterator[Item]:
    for label in classes:
        names = sorted(_pictures_of(path / label))
        if not names:
            raise DataError(f"{path / label} holds no pictures; remove this class")
        for name in names:
            yield f"{label}/{name}", {"image": f"{label}/{name}", "label": label}


def _pictures_of(folder: Path) -> Iterator[str]:
    for entry in _entries_of(folder):
        if entry.is_dir():
            raise DataError(
                f"{folder} should hold the pictures of one class but holds the folder "
                f"{entry.name!r}; if {folder.name!r} is a split, name it: "
                f"{{folders: {{path: {folder}}}}}"
            )
        if not entry.name.lower().endswith(SUFFIXES):
            raise DataError(
                f"{folder / entry.name} is no picture by its name "
                f"({', '.join(SUFFIXES)}); move it out of the folder of a class"
            )
        yield entry.name


def _entries_of(folder: Path) -> list[os.DirEntry[str]]:
    with or_data_error(folder), os.scandir(folder) as entries:
        return [
            entry
            for entry in entries
            if not entry.name.startswith(".") and entry.name.lower() not in LITTER
        ]
