"""Which names the code of a function reads, and which it updates."""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterable
from types import CodeType
from typing import Any, NamedTuple

#: What an instruction is called that reads, or writes, a variable or an attribute.
READS = {"LOAD_ATTR", "LOAD_DEREF", "LOAD_GLOBAL", "LOAD_METHOD"}
WRITES = {"STORE_ATTR", "STORE_DEREF", "STORE_GLOBAL"}
#: What moves values about on the way from a container to its item.
SHUFFLES = {"CACHE", "COPY", "DUP_TOP_TWO", "EXTENDED_ARG", "ROT_THREE", "SWAP"}
#: Methods of a container after which it holds others, where it forgets some.
APPENDS = {"append", "appendleft", "extend"}


class Names(NamedTuple):
    """Names in the code of a function: of globals, all that it reads, and updates.

    Updated is what it reads before it writes it: what it was matters. Items of a
    container are among it, as ``held.center`` or, by a key that is no constant,
    ``held.*``.
    """

    globals: tuple[str, ...]
    read: frozenset[str]
    updated: frozenset[str]


@functools.lru_cache(maxsize=1000)
def names_in(code: CodeType) -> Names:
    """Return the names in the code of a function, and of functions inside of it."""
    # Not co_names: those are of variables and attributes alike, read or written.
    instructions = list(dis.get_instructions(code))
    used: list[str] = []
    read: set[str] = set()
    written: set[str] = set()
    updated = _items_updated(instructions)
    for each in instructions:
        if each.opname in READS:
            read.add(each.argval)
        elif each.opname in WRITES:
            written.add(each.argval)
            updated |= read & {each.argval}
        if each.opname == "LOAD_GLOBAL":
            used.append(each.argval)
    if "getattr" in used:  # what it reads is a constant
        texts = {each for each in code.co_consts if isinstance(each, str)}
        read |= texts
        updated |= texts & written
    # Lambdas inside have code of their own.
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            names = names_in(inner)
            used += names.globals
            read |= names.read
            updated |= names.updated
    return Names(tuple(dict.fromkeys(used)), frozenset(read), frozenset(updated))


def _items_updated(instructions: Iterable[dis.Instruction]) -> set[str]:
    """Return items of containers that are read before they are written, by name.

    And those of one that something is appended to and that is read besides.
    """
    # (name of what was loaded, constant), of each instruction so far; and how often.
    loaded: list[tuple[str | None, Any]] = [(None, "*")] * 2
    read: set[str] = set()
    updated: set[str] = set()
    named: list[str] = []
    appended: list[str] = []
    before = ""
    for each in instructions:
        (container, _), (name, key) = loaded[-2:]
        is_read = each.opname == "BINARY_SUBSCR" or each.argrepr == "[]"
        if is_read and container:
            read.add(f"{container}.{key}")
            # As of ``+=``, which keeps both for the writing.
            if before in ("COPY", "DUP_TOP_TWO"):
                updated.add(f"{container}.{key}")
        elif each.opname == "STORE_SUBSCR" and f"{container}.{key}" in read:
            updated.add(f"{container}.{key}")
        before = each.opname
        if each.opname in READS and each.argval in APPENDS and name:
            appended.append(name)
        if is_read:
            loaded.append((str(key), "*"))
        elif each.opname in READS:
            named.append(each.argval)
            loaded.append((each.argval, "*"))
        elif each.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
            loaded.append((None, each.argval))
        elif each.opname not in SHUFFLES:
            loaded.append((None, "*"))
    kept = {n for n in appended if named.count(n) > appended.count(n)}
    return updated | {f"{name}.*" for name in kept}
