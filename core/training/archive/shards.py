"""Make tensors whole whose parts several processes have written into one folder.

``state.pt`` in it holds all but these tensors, and where in which file each part of
them lies. The files are those of torch's distributed checkpoints: what ``torch.save``
writes, one after another. Torch's own index, ``.metadata``, is a pickle of classes and
never read.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.archive.records import ForeignRecord, check_records
from training.files.named_paths import open_file

__all__ = ["SHARDS", "STATE", "digest_of", "put_together"]

#: The file of all that is in no part, which is written last.
STATE = "state.pt"
#: What of it tells of the files beside it.
SHARDS = "shards"
#: Bytes that are read at once.
PIECE = 1 << 20


def digest_of(path: Path) -> dict[str, Any]:
    """Return the size in bytes and the SHA-256 of a file; reads all of it.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    digest, size = hashlib.sha256(), 0
    with open_file(path) as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            size += len(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


def put_together(state: dict[str, Any], folder: Path) -> None:
    """Put the tensors whose parts lie in ``folder`` into ``state``, on the CPU.

    Args:
        state: of its ``state.pt``, with None where they belong; changed in place.
        folder: all files that ``state`` names are read, and compared with it, first.
    Raises:
        ForeignRecord: a file is missing or another one, or a part is no part of such a
            tensor; as the end of "it ...".
    """
    try:
        shards = state.pop(SHARDS)
        files = shards["files"]
        for name, expected in files.items():
            _verify(folder, name, expected)
        _require_once(shards["tensors"], files)
        for each in shards["tensors"]:
            whole = _whole(each, folder)
            for place in each["at"]:
                _put(state, place, whole)
    except ForeignRecord:
        raise
    except Exception as error:  # whatever it was made of is not what a save makes
        raise ForeignRecord(f"does not tell where its parts are ({error!r})") from error


def _verify(folder: Path, name: str, expected: Mapping[str, Any]) -> None:
    if name != os.path.basename(name):
        raise ForeignRecord(f"names a file outside of it, {name!r:.60}")
    try:
        found = digest_of(folder / name)
    except OSError as error:
        raise ForeignRecord(
            f"lacks its part {name!r:.60} ({error.strerror or error})"
        ) from error
    if found != expected:
        raise ForeignRecord(f"has another file {name!r:.60} than was saved with it")


def _require_once(tensors: Sequence[Any], files: Mapping[str, Any]) -> None:
    """Refuse to take the same bytes again and again, until memory is full."""
    used: Counter[str] = Counter()
    for each in tensors:
        for name, offset, length in each["parts"]:
            if min(offset, length) < 0:
                raise ForeignRecord(f"has a part before the start of {name!r:.60}")
            used[name] += length
    for name, length in used.items():
        if length > files[name]["bytes"]:
            raise ForeignRecord(f"takes more out of {name!r:.60} than is in it")


def _whole(each: Mapping[str, Any], folder: Path) -> Tensor:
    """Return the tensor whose parts are rows of it, one after another."""
    shape, dtype = torch.Size(each["shape"]), each["dtype"]
    parts = [_part(folder / name, *place) for name, *place in each["parts"]]
    if not parts and not shape.numel():
        return torch.empty(shape, dtype=dtype)
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    if whole.shape != shape or {part.dtype for part in parts} != {dtype}:
        raise ForeignRecord(f"has other parts of {each['at'][0]!r:.80} than it says")
    return whole


def _part(path: Path, offset: int, length: int) -> Tensor:
    with open_file(path) as file:
        file.seek(offset)
        content = file.read(length)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        check_records(archive, len(content))
    part = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # One that repeats its numbers by strides would take more room than it has.
    if type(part) is not Tensor or not part.is_contiguous():
        raise ForeignRecord(f"has a part in {path.name!r:.60} that is no plain tensor")
    return part


def _put(into: Any, place: Sequence[Any], value: Tensor) -> Any:
    """Return ``into`` with ``value`` at that place, where None was."""
    key, *rest = place
    old = into[key]
    if not rest and old is not None:
        raise ForeignRecord(f"has something at the place of a part, {key!r:.60}")
    new = _put(old, rest, value) if rest else value
    if isinstance(into, tuple):
        return (*into[:key], new, *into[key + 1 :])
    into[key] = new
    return into
