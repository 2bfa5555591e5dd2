"""Look at a checkpoint's records before any is unpacked: what they are, how much.

A file may be made to harm: a record that unpacks to a thousand times its size, a
pickle of a hundred bytes that asks for a terabyte, a tensor that says it is larger than
its record. All of that shows in the directory and in a rehearsal of the pickle that
makes nothing.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import torch

from training.checkpoint.storable import DEEPEST
from training.messages.tables import count

#: What a pickle may stand for, in values a byte, where parts of it are used again.
MOST_VALUES_A_BYTE = 100
REBUILT = {
    *("_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_sparse_tensor"),
    *("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"),
    *("_rebuild_meta_tensor_no_storage", "_rebuild_device_tensor_from_cpu_tensor"),
}
#: Storage -> bytes of one number in it.
STORAGES = {
    **dict.fromkeys(["UntypedStorage", "ByteStorage", "CharStorage", "BoolStorage"], 1),
    **dict.fromkeys(["HalfStorage", "BFloat16Storage", "ShortStorage"], 2),
    **dict.fromkeys(["FloatStorage", "IntStorage", "QInt32Storage"], 4),
    **dict.fromkeys(["DoubleStorage", "LongStorage", "ComplexFloatStorage"], 8),
    "ComplexDoubleStorage": 16,
    **dict.fromkeys(["QInt8Storage", "QUInt8Storage", "QUInt4x2Storage"], 1),
    "QUInt2x4Storage": 1,
}
CONTAINERS = (dict, list, tuple, set)


class ForeignRecord(Exception):
    """What no writer of checkpoints makes, as the end of "it ..."."""


def check_records(archive: zipfile.ZipFile, num_bytes: int) -> None:
    """Compare the directory with the file, and rehearse the pickle.

    Args:
        archive: of a file that ``torch.save`` is to have written.
        num_bytes: size of the file.
    Raises:
        ForeignRecord: a record is compressed, there twice or larger than the file, or
            the pickle makes anything but tensors and plain values of bounded size.
    """
    found = archive.infolist()
    sizes = {record.filename: record.file_size for record in found}
    # Whoever looks and whoever reads may take different ones.
    if len(sizes) < len(found):
        raise ForeignRecord("has two records of one name")
    for record in found:
        is_stored = record.compress_type == zipfile.ZIP_STORED
        if not is_stored or record.compress_size != record.file_size:
            raise ForeignRecord(
                f"has a compressed record, {record.filename!r}, which no save makes"
            )
    # Records that overlap share bytes: each is small, all together are not.
    if sum(sizes.values()) > num_bytes:
        raise ForeignRecord("has records that are larger than the file")
    pickled = [name for name in sizes if name.endswith("/data.pkl")]
    if len(pickled) != 1:
        raise ForeignRecord("has no data.pkl, or several")
    folder = pickled[0].removesuffix("data.pkl")
    inside = {name.removeprefix(f"{folder}data/"): n for name, n in sizes.items()}
    rehearse(archive.read(pickled[0]), inside)


def rehearse(content: bytes, sizes: Mapping[str, int]) -> None:
    """Go through a pickle of ``torch.save`` without making what it describes.

    Args:
        content: the pickle.
        sizes: bytes of the tensors' records by key.
    Raises:
        ForeignRecord: it asks for what a checkpoint does not hold, for more than its
            records have, or is nested without bound.
    """
    try:
        for code, argument, _ in pickletools.genops(content):
            # The number under which a value is kept makes room for as many.
            # Before the rehearsal, which would make that room.
            if "PUT" in code.name and int(argument or 0) > len(content):
                raise ForeignRecord(f"keeps a value under the number {argument:,}")
        value = _Rehearsal(content, sizes).load()
    except ForeignRecord:
        raise
    except Exception as error:  # a pickle that is none raises many types
        raise ForeignRecord(f"has a pickle that cannot be read ({error})") from error
    most = 10_000 + MOST_VALUES_A_BYTE * len(content)
    if _measured(value, 0, {})[0] > most:
        raise ForeignRecord(
            f"stands for more than {most:,} values in {len(content):,} bytes"
        )


class _Inert:
    """Stands for a tensor, a storage or a name; nothing is made."""

    def __init__(self, name: str = "", num_bytes: int = 0) -> None:
        self.name = name
        self.num_bytes = num_bytes

    def __setstate__(self, state: Any) -> None: ...


class _Rebuild(_Inert):
    """Stands for a function that makes a tensor of what it is given."""

    def __call__(self, *arguments: Any) -> _Inert:
        return _Inert()


class _Rehearsal(pickle.Unpickler):
    def __init__(self, content: bytes, sizes: Mapping[str, int]) -> None:
        super().__init__(io.BytesIO(content))
        self._sizes = sizes

    def persistent_load(self, pid: Any) -> _Inert:
        """Compare a tensor's storage with its record."""
        _, kind, key, _, length = pid
        if not isinstance(kind, _Inert) or type(length) is not int:
            raise ForeignRecord("has a tensor without a storage")
        # Before torch allocates what the pickle says.
        if length * _bytes_of_one(kind.name) != self._sizes.get(key):
            raise ForeignRecord(
                f"has a tensor of {count(length, 'number')} whose record {key!r} has "
                f"{self._sizes.get(key)} bytes"
            )
        return _Inert("storage", length)

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name; refuse what a checkpoint does not hold."""
        # Pickles of protocol 2 have the name that Python 2 had.
        full = f"{module}.{name}".replace("__builtin__", "builtins")
        if module == "torch._utils" and name in REBUILT:
            return _Rebuild(name)
        if full in _PLAIN:
            return _PLAIN[full]
        if module in ("torch", "torch.storage") and _is_a_word(name):
            return _Inert(name)
        raise ForeignRecord(f"holds {full}, which is neither tensor nor plain value")


def _encoded(text: str, encoding: str) -> bytes:
    # How pickle writes bytes; no other codec of the machine is run for a file.
    if encoding != "latin1":
        raise ForeignRecord(f"has bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _typed(rebuild: Any, kind: Any, arguments: Iterable[Any], state: Any) -> _Inert:
    """Stand for a tensor that has attributes."""
    if not isinstance(rebuild, _Rebuild) or getattr(kind, "name", "") != "Tensor":
        raise ForeignRecord("holds a tensor of a class of its own")
    return rebuild(*arguments)


def _quantized(storage: Any, offset: int, size: Iterable[int], *_: Any) -> _Inert:
    if not isinstance(storage, _Inert) or prod(size) > storage.num_bytes:
        raise ForeignRecord("has a quantized tensor that is larger than its record")
    return _Inert()


_PLAIN: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "builtins.complex": complex,
    "_codecs.encode": _encoded,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch.serialization._get_layout": lambda name: _Inert(),
    "torch._tensor._rebuild_from_type_v2": _typed,
    "torch._utils._rebuild_qtensor": _quantized,
}


def _is_a_word(name: str) -> bool:
    """Whether torch calls a number format, a quantization or a storage so."""
    is_format = isinstance(getattr(torch, name, None), (torch.dtype, torch.qscheme))
    return is_format or name == "Tensor" or name in STORAGES


def _bytes_of_one(storage: str) -> int:
    if storage not in STORAGES:
        raise ForeignRecord(f"has a tensor in {storage!r}, which is no storage")
    return STORAGES[storage]


def _measured(value: Any, depth: int, done: dict[int, Any]) -> tuple[int, int]:
    """Return how many values it stands for and how deep it is; each is met once."""
    if not isinstance(value, CONTAINERS):
        return 1, 0
    count, height = done.get(id(value), (0, 0))
    if not count:
        # Keys count, too: they are unpickled like anything else.
        items = [*value, *value.values()] if isinstance(value, dict) else value
        if depth > DEEPEST:
            raise ForeignRecord(f"is nested deeper than {DEEPEST} levels")
        found = [_measured(item, depth + 1, done) for item in items]
        count = 1 + sum(each for each, _ in found)
        height = 1 + max((each for _, each in found), default=0)
        # Once each: a nest of references doubles at every level.
        done[id(value)] = count, height
    if depth + height > DEEPEST + 1:
        raise ForeignRecord(f"is nested deeper than {DEEPEST} levels")
    return count, height
