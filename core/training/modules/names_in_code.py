"""Which names the code of a function reads, and which it updates."""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterable, Sequence
from types import CodeType
from typing import Any, NamedTuple

#: What an instruction is called that reads, or writes, a variable or an attribute.
READS = {"LOAD_ATTR", "LOAD_DEREF", "LOAD_GLOBAL", "LOAD_METHOD"}
WRITES = {"STORE_ATTR", "STORE_DEREF", "STORE_GLOBAL"}
CONSTANTS = {"LOAD_CONST", "LOAD_SMALL_INT"}
#: What moves values about on the way from a container to its item.
SHUFFLES = {"CACHE", "COPY", "DUP_TOP_TWO", "EXTENDED_ARG", "ROT_THREE", "SWAP"}
#: Methods of a container after which it holds others, where it forgets some.
APPENDS = {"append", "appendleft", "extend"}
#: Methods of a mapping that read the item of a key.
LOOKUPS = {"get", "pop", "setdefault"}


class Names(NamedTuple):
    """Names in the code of a function: of globals, all that it reads, and updates.

    Updated is what it reads before it writes it: what it was matters. Items of a
    container are among it, as ``held.center`` or, by a key that is no constant or
    where it replaces the container, ``held.*``. Of what may be an attribute there is
    ``.held`` besides, and of items ``.held.center``.
    """

    globals: tuple[str, ...]
    read: frozenset[str]
    updated: frozenset[str]


@functools.lru_cache(maxsize=1000)
def names_in(code: CodeType) -> Names:
    """Return the names in the code of a function, and of functions inside of it."""
    # Not co_names: those are of variables and attributes alike, read or written.
    instructions = list(dis.get_instructions(code))
    used = [each.argval for each in instructions if each.opname == "LOAD_GLOBAL"]
    read = {each.argval for each in instructions if each.opname in READS}
    known: set[str] = set()
    if "getattr" in used:  # what it reads is a constant
        known = {each for each in code.co_consts if isinstance(each, str)}
        read |= known
    updated = {f"{mark}{n}" for n in _items_updated(instructions) for mark in ("", ".")}
    for at, each in enumerate(instructions):
        if each.opname in READS and not _asks_for_none(instructions, at):
            known.add(each.argval)
        elif each.opname in WRITES and each.argval in known:
            marks = ("", ".") if each.opname == "STORE_ATTR" else ("",)
            names = _with_items(each.argval, instructions, at)
            updated |= {f"{mark}{name}" for name in names for mark in marks}
    # Lambdas inside have code of their own.
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            inside = names_in(inner)
            used += inside.globals
            read |= inside.read
            updated |= inside.updated
    return Names(tuple(dict.fromkeys(used)), frozenset(read), frozenset(updated))


def of_attributes(updated: Iterable[str]) -> frozenset[str]:
    """Return the updated names that may be those of attributes, or of their items."""
    return frozenset(name[1:] for name in updated if name.startswith("."))


def _asks_for_none(instructions: Sequence[dis.Instruction], at: int) -> bool:
    """Whether what is read is only compared with None, as whether a cache is filled."""
    after = [each for each in instructions[at + 1 : at + 4] if each.opname != "CACHE"]
    if not after or after[0].opname.startswith("POP_JUMP"):
        return bool(after) and "NONE" in after[0].opname
    is_none = after[0].opname == "LOAD_CONST" and after[0].argval is None
    return is_none and [each.opname for each in after[1:2]] == ["IS_OP"]


def _with_items(
    name: str, instructions: Sequence[dis.Instruction], at: int
) -> set[str]:
    """Return a name that is written to, and that of all in it, unless it is emptied.

    What comes into an empty container later may be for a log.
    """
    for each in reversed(instructions[:at]):
        is_new = each.opname in ("BUILD_LIST", "BUILD_MAP") and each.arg == 0
        if is_new or (each.opname == "LOAD_CONST" and each.argval in (None, ())):
            return {name}
        # Between are those that tell where to; one that is jumped to has other values.
        is_on_way = each.opname.startswith("LOAD_") or each.opname in SHUFFLES
        if each.is_jump_target or not is_on_way:
            break
    return {name, f"{name}.*"}


def _items_updated(instructions: Sequence[dis.Instruction]) -> set[str]:
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
    for at, each in enumerate(instructions):
        (container, _), (name, key) = loaded[-2:]
        item = f"{container}.{key}"
        is_read = each.opname == "BINARY_SUBSCR" or each.argrepr == "[]"
        if is_read and container:
            read.add(item)
            # As of ``+=``, which keeps both for the writing.
            if before in ("COPY", "DUP_TOP_TWO"):
                updated |= {item, f"{item}.*"}
        elif each.opname == "STORE_SUBSCR" and item in read:
            updated |= _with_items(item, instructions, at)
        elif container and name in LOOKUPS and each.opname.startswith("LOAD_"):
            is_constant = each.opname in CONSTANTS
            read.add(f"{container}.{each.argval if is_constant else '*'}")
        before = each.opname
        if each.opname in READS and each.argval in APPENDS and name:
            appended.append(name)
        elif each.opname in READS and each.argval == "update" and name:
            known = {each for each in read if each.startswith(f"{name}.")}
            updated |= known | {f"{each}.*" for each in known}
        if is_read:
            loaded.append((str(key), "*"))
        elif each.opname in READS:
            named.append(each.argval)
            loaded.append((each.argval, "*"))
        elif each.opname in CONSTANTS:
            loaded.append((None, each.argval))
        elif each.opname not in SHUFFLES:
            loaded.append((None, "*"))
    kept = {n for n in appended if named.count(n) > appended.count(n)}
    return updated | {f"{name}.*" for name in kept}
