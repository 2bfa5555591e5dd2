"""Write checkpoints, and read them only when they have proved themselves.

A checkpoint is one ``torch.save`` file of tensors and JSON values, or a folder of such
a file and of parts of tensors. It becomes visible under its name only when every byte
is on the disk, and it is read only after the CRC32 of every record in the file, and the
digests of all others, have been checked.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from training.archive.records import ForeignRecord, check_records
from training.archive.shards import SHARDS, STATE, put_together
from training.errors import CheckpointError
from training.files.durable import rename_durably, write_durably, write_json
from training.files.named_paths import named_path, open_file

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "MIGRATIONS",
    "NOWHERE",
    "UnreadableError",
    "complete_folder",
    "migrate",
    "position_of",
    "read_checkpoint",
    "write_checkpoint",
    "write_durably",
    "write_json",
    "writing",
]


class UnreadableError(CheckpointError):
    """The file itself is missing, incomplete, damaged or foreign; another may do."""


FORMAT = "trainbus-checkpoint"
FORMAT_VERSION = 1
#: Format -> what turns a state of it into one of the next; docs/checkpoint-format.md.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
#: (epoch, step) of a file that does not tell its own: before every other.
NOWHERE = (-1, -1)


def write_checkpoint(path: str | Path, state: dict[str, Any]) -> Path:
    """Write ``state`` durably; it may hold tensors and JSON values only.

    Raises:
        CheckpointError: the file could not be written; what stood there is untouched.
    """
    with writing(path):
        return _write(path, state)


def _write(path: str | Path, state: Mapping[str, Any]) -> Path:
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **state}
    return write_durably(path, lambda file: torch.save(content, file))


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn what torch and the system raise inside the block into a sentence.

    Raises:
        CheckpointError: the checkpoint ``path`` could not be written.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r} could not be written ({_first_cause(error)}); "
            "what stood there is untouched: free space or choose another save_dir"
        ) from error


def complete_folder(
    draft: Path,
    path: Path,
    state: Mapping[str, Any],
    files: Mapping[str, Any],
    tensors: Sequence[Mapping[str, Any]],
) -> Path:
    """Write what the parts in a folder are parts of, and give it its name, durably.

    Args:
        draft: the folder, in which all other files are on the disk.
        path: the name that it gets; nothing has it.
        state: the rest of the checkpoint, with None at the places of ``tensors``.
        files: name -> ``digest_of`` each of its files.
        tensors: ``at``, all places of a tensor as lists of keys, its ``shape`` and
            ``dtype``, and its ``parts`` along the first dimension, in order: (file,
            offset, length) of each.
    Raises:
        CheckpointError: it could not be written; nothing has that name.
    """
    shards = {"files": dict(files), "tensors": list(tensors)}
    with writing(path):
        _write(draft / STATE, {**state, SHARDS: shards})
        return rename_durably(draft, path)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the state in ``path``, on the CPU, verified before it is decoded.

    Nothing in it is ever imported or called: ``weights_only=True``, no fallback.

    Args:
        path: a file, or the folder of a sharded checkpoint, whose tensors are whole in
            what is returned.
    Raises:
        UnreadableError: missing, truncated, damaged or foreign.
        CheckpointError: of a newer format.
    """
    path = named_path(path)
    if path.is_dir():
        return migrate(_read_folder(path))
    state = _read_file(path)
    if SHARDS in state:
        raise UnreadableError(
            f"{str(path)!r} is a part of a sharded checkpoint; name its folder, "
            f"{str(path.parent)!r}"
        )
    return migrate(state)


def _read_folder(folder: Path) -> dict[str, Any]:
    if not (folder / STATE).exists():
        raise UnreadableError(
            f"checkpoint {str(folder)!r} cannot be read (it is a folder, not a file, "
            f"and has no {STATE}); check the path, or use an earlier one"
        )
    state = _read_file(folder / STATE)
    try:
        put_together(state, folder)
    except ForeignRecord as error:
        raise UnreadableError(
            f"checkpoint {str(folder)!r} {error} and was not loaded; use an earlier one"
        ) from error
    return state


def _read_file(path: Path) -> dict[str, Any]:
    """Return what is in one file, of a format that this version reads."""
    with _opened(path) as file:
        _verify_records(file, path)
        file.seek(0)
        try:
            with torch.sparse.check_sparse_tensor_invariants():  # type: ignore[no-untyped-call]
                state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types here; all mean "not ours"
            raise UnreadableError(
                f"checkpoint {str(path)!r} holds more than tensors and plain values "
                "and was not loaded; only files written by this trainer can be resumed"
            ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UnreadableError(
            f"{str(path)!r} is not a checkpoint of this trainer; give one that "
            "save_checkpoint or the checkpointing plugin wrote"
        )
    version = state.get("format_version")
    if type(version) is not int or version < 1:
        raise UnreadableError(
            f"checkpoint {str(path)!r} has format {version!r}, which is no number of a "
            "format; use an earlier one"
        )
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"checkpoint {str(path)!r} has format {version}, this "
            f"version reads up to {FORMAT_VERSION}; upgrade trainbus"
        )
    return state


def position_of(path: str | Path) -> tuple[int, int]:
    """Return (epoch, step) of the state in ``path``, else ``NOWHERE``."""
    try:
        progress = peek_state(path)["progress"]
        return int(progress["epoch"]), int(progress["step"])
    except Exception:  # not even a checkpoint; whoever reads it will say so
        return NOWHERE


def peek_state(path: str | Path) -> dict[str, Any]:
    """Return the state in ``path``, ``{}`` where there is none.

    Tensors are mapped, not read, and nothing is verified: to choose by, not to resume.
    """
    path = Path(path) / STATE if os.path.isdir(path) else path
    try:
        with open_file(path) as file:
            _check_directory(file)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # as above
        return {}
    return state if isinstance(state, dict) else {}


def migrate(state: dict[str, Any]) -> dict[str, Any]:
    """Return ``state`` in the format of today, one step from version to version.

    Raises:
        CheckpointError: no step leads from its version.
    """
    while state["format_version"] != FORMAT_VERSION:
        version = state["format_version"]
        if version not in MIGRATIONS:
            raise CheckpointError(
                f"the checkpoint has format {version!r}, from which no way leads to "
                f"{FORMAT_VERSION}; resume it with the release that wrote it"
            )
        state = {**MIGRATIONS[version](state), "format_version": version + 1}
    return state


def _first_cause(error: BaseException) -> BaseException:
    """Return the ``OSError`` behind what torch says when it finishes a broken file."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return error if cause is None else cause


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = open_file(path)
    except OSError as error:
        raise UnreadableError(
            f"checkpoint {str(path)!r} cannot be read ({error.strerror or error}); "
            "check the path"
        ) from error
    with file:
        yield file


def _check_directory(file: BinaryIO) -> zipfile.ZipFile:
    """Return the archive, once its directory and its pickle are known to be ours."""
    archive = zipfile.ZipFile(file)
    check_records(archive, os.fstat(file.fileno()).st_size)
    return archive


def _verify_records(file: BinaryIO, path: Path) -> None:
    """Check the zip directory and the CRC32 that torch.save stored for each record."""
    try:
        archive = _check_directory(file)
        broken = archive.testzip()
    except ForeignRecord as error:
        raise UnreadableError(
            f"checkpoint {str(path)!r} {error} and was not loaded; only files written "
            "by this trainer can be resumed"
        ) from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        if (named := _named_in(file)) is not None:
            raise UnreadableError(
                f"{str(path)!r} is a list of checkpoints, and none itself; give the "
                f"file that it names, {str(path.parent / named)!r}"
            ) from error
        raise UnreadableError(
            f"{str(path)!r} is no complete checkpoint ({error}); use an earlier one"
        ) from error
    except Exception as error:  # zlib.error, struct.error: bytes that no writer made
        raise UnreadableError(
            f"checkpoint {str(path)!r} is damaged ({error}); use an earlier one"
        ) from error
    if broken is not None:
        raise UnreadableError(
            f"checkpoint {str(path)!r} is damaged: record {broken!r} fails its CRC32; "
            "use an earlier one"
        )


def _named_in(file: BinaryIO) -> str | None:
    """Return the newest that a list of checkpoints names; None for any other file."""
    file.seek(0)
    if file.read(1) != b"{":
        return None
    file.seek(0)
    try:
        listed = json.load(file)
    except ValueError:
        return None
    # Of what the plugin checkpointing writes: a pointer to one file, or the whole list.
    name = listed.get("file", listed.get("last"))
    return name if isinstance(name, str) else None
