"""The reader ``hf``: whatever the package ``datasets`` reads from this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from trainbus_data.rows.fingerprint import fingerprint_of
from trainbus_data.rows.formats import reader_line, refuse_other_formats
from training.errors import ConfigError, DataError, did_you_mean
from training.files.named_paths import named_path

__all__ = ["HuggingFace"]


class HuggingFace:
    """Rows of Parquet and Arrow files, saved data sets and described pictures.

    Columns are values as they are stored, but a class is its name, a missing value is
    absent, and a picture is not decoded: its bytes, or its path. ``datasets`` copies
    Parquet and picture folders once into its own cache; rows stay in mapped files.

    Args:
        path: a ``.parquet`` or ``.arrow`` file or a folder of them, a folder that
            ``save_to_disk`` wrote, or a folder of pictures with ``metadata.csv``,
            ``.jsonl`` or ``.parquet``.
        split: which part is read where there are several.

    Attributes:
        root: the folder.
        num_bytes: of all rows, embedded pictures among them.
    Raises:
        DataError: ``datasets`` cannot read it, or it has several splits and none, or
            another, is asked for.
        ConfigError: ``datasets`` is not installed.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, split: str | None = None
    ) -> None:
        self.path = named_path(path)
        refuse_other_formats(self.path, "hf")
        self.root = self.path if self.path.is_dir() else self.path.parent
        package = _package()
        try:
            with _said_once():
                found = _load(package, self.path)
        except Exception as error:  # of pyarrow, pandas, fsspec and its own
            told = str(error).strip().partition("\n")[0] or type(error).__name__
            raise DataError(
                f"{self.path} cannot be read by datasets: {told}"
            ) from error
        self._rows = _choose(self.path, found, split)
        if not len(self._rows):
            raise DataError(f"{self.path} holds no rows")
        self._turns: dict[str, Callable[[Any], Any]] = {}
        for name, feature in self._rows.features.items():
            if isinstance(feature, package.Image):
                undecoded = package.Image(decode=False)
                self._rows = self._rows.cast_column(name, undecoded)
                self._turns[name] = _picture
            elif _is_stored_picture(feature):
                self._turns[name] = _picture
            elif isinstance(feature, package.ClassLabel):
                self._turns[name] = partial(_class_name, feature)
        self.num_bytes = int(self._rows.data.nbytes)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a row, or raise IndexError."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        turned = {
            name: self._turns[name](value) if name in self._turns else value
            for name, value in self._rows[index].items()
            if value is not None
        }
        return {name: value for name, value in turned.items() if value is not None}

    def column(self, name: str) -> Iterator[Any]:
        """Yield one value of every row, None where it is missing; reads no other."""
        turn = self._turns.get(name, lambda value: value)
        if name not in self._rows.features:
            yield from (None for _ in range(len(self)))
            return
        for chunk in self._rows.select_columns([name]).iter(batch_size=1000):
            yield from (None if v is None else turn(v) for v in chunk[name])

    def place(self, index: int) -> str:
        """Return where a row is, as in ``rows.parquet:#17``, numbered from 1."""
        return f"{self.path}:#{index % len(self) + 1}"

    @cached_property
    def fingerprint(self) -> str:
        """Tell these rows from others: a digest of up to 1,000, evenly spread."""
        return fingerprint_of(len(self), self.__getitem__)


def _class_name(feature: Any, number: int) -> str | None:
    """Return the name of a class; None for -1, which is how no label is written."""
    return None if number == -1 else str(feature.int2str(number))


def _package() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            f"the reader 'hf' needs the package datasets ({error}); run: pip install "
            "'trainbus[datasets]'"
        ) from error
    if not hasattr(datasets, "load_from_disk"):
        raise ConfigError(
            f"the reader 'hf' needs the package datasets, which another one of that "
            f"name hides: {datasets.__path__[0]}; rename that folder"
        )
    return datasets


@contextmanager
def _said_once() -> Iterator[None]:
    """Keep ``datasets`` from logging the error that it raises as well."""
    logger = logging.getLogger("datasets.packaged_modules")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _load(package: Any, path: Path) -> Any:
    """Return a data set, or several by the name of their split."""
    if not path.is_dir():
        kind = "parquet" if path.suffix == ".parquet" else "arrow"
        return package.load_dataset(kind, data_files=str(path), split="train")
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return package.load_from_disk(str(path))
    for kind in ("parquet", "arrow"):
        described = path / f"metadata.{kind}"
        if any(path.glob(f"*.{kind}")) and not described.is_file():
            return package.load_dataset(kind, data_dir=str(path))
    return package.load_dataset("imagefolder", data_dir=str(path))


def _choose(path: Path, found: Any, split: str | None) -> Any:
    if not isinstance(found, Mapping):
        if split is not None:
            raise DataError(
                f"{path} has no splits, but split is {split!r}; leave it out"
            )
        return found
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if split not in found:
        hint = did_you_mean(split, found) if split else ""
        asked = f"no split {split!r}{hint}" if split else "several splits"
        line = reader_line("hf", path=path, split=next(iter(found)))
        raise DataError(f"{path} has {asked}; it has {', '.join(found)}: write {line}")
    return found[split]


def _is_stored_picture(feature: Any) -> bool:
    """Whether a column is what pictures are stored as, without the word for it."""
    return (
        isinstance(feature, dict)
        and set(feature) == {"bytes", "path"}
        and getattr(feature["bytes"], "dtype", "").endswith("binary")
    )


def _picture(value: Mapping[str, Any]) -> bytes | str:
    """Return a picture's bytes where they are embedded, else its path."""
    content: bytes | str = value["path"] if value["bytes"] is None else value["bytes"]
    return content
