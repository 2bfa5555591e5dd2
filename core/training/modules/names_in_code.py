"""Which names the code of a function reads, and which it updates."""

from __future__ import annotations

import dis
import functools
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from types import CodeType
from typing import Any, NamedTuple

#: What an instruction is called that reads, or writes, a variable or an attribute.
READS = {"LOAD_ATTR", "LOAD_DEREF", "LOAD_GLOBAL", "LOAD_METHOD"}
WRITES = {"STORE_ATTR", "STORE_DEREF", "STORE_GLOBAL"}
#: After what there is no next instruction.
ENDS = {"JUMP_FORWARD", "RAISE_VARARGS", "RERAISE", "RETURN_CONST", "RETURN_VALUE"}
EMPTY = (None, ())
CONSTANTS = {"LOAD_CONST", "LOAD_SMALL_INT"}
#: What moves values about on the way from a container to its item.
SHUFFLES = {"CACHE", "COPY", "DUP_TOP_TWO", "EXTENDED_ARG", "ROT_THREE", "SWAP"}
#: Methods of a container after which it holds others, where it forgets some.
APPENDS = {"append", "appendleft", "extend"}
#: Methods of a mapping that read the item of a key.
LOOKUPS = {"get", "pop", "setdefault"}
#: What takes a tensor out of its graph.
DETACH = "detach"


class Names(NamedTuple):
    """Names in the code of a function: of globals, all that it reads, and updates.

    Updated is what it reads before it writes it: what it was matters. Items of a
    container are among it, as ``held.center`` or, by a key that is no constant or
    where it replaces the container, ``held.*``. Of an attribute there is besides what
    it is one of, as in ``model.part:held``. Asked for is what would be updated if it
    were read for more than whether there is something, and used is what is.
    """

    name: str
    globals: tuple[str, ...]
    variables: frozenset[str]
    read: frozenset[str]
    updated: frozenset[str]
    asked: frozenset[str]
    used: frozenset[str]


@functools.lru_cache(maxsize=1000)
def names_in(code: CodeType) -> Names:
    """Return the names in the code of a function, and of functions inside of it."""
    # Not co_names: those are of variables and attributes alike, read or written.
    instructions = list(dis.get_instructions(code))
    globals_ = [each.argval for each in instructions if each.opname == "LOAD_GLOBAL"]
    read = {each.argval for each in instructions if each.opname in READS}
    by_text = "getattr" in globals_  # what it reads is a constant
    if by_text:
        read |= {each for each in code.co_consts if isinstance(each, str)}
    flow = _Flow(instructions, by_text)
    updated, asked, used = flow.updated, flow.asked, flow.used
    for item in _items_updated(instructions):
        container = item.partition(".")[0]
        updated |= {item} | {f"{of}:{item}" for of, n in flow.pairs if n == container}
    # Lambdas inside have code of their own.
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            inside = names_in(inner)
            globals_ += inside.globals
            read |= inside.read
            updated |= inside.updated
            asked |= inside.asked
            used |= inside.used
    return Names(
        name=code.co_name,
        globals=tuple(dict.fromkeys(globals_)),
        variables=frozenset({*globals_, *code.co_freevars}),
        read=frozenset(read),
        updated=frozenset(updated),
        asked=frozenset(asked),
        used=frozenset(used),
    )


def updated_by(functions: Collection[Names]) -> frozenset[str]:
    """Return the names that functions update together, and ``detach:held``.

    What one of them only asks for is a cache that it fills, unless another reads it.
    What is read where tensors are detached may be a state that still has its graph.
    """
    updated = set(chain(*(each.updated for each in functions)))
    detaching = {each.name for each in functions if DETACH in each.read}
    for each in functions:
        if DETACH in each.read or each.variables & detaching:
            updated |= {f"{DETACH}:{name}" for name in each.used}
        others = [other.used for other in functions if other is not each]
        for name in each.asked:
            plain = name.rpartition(":")[2].removesuffix(".*")
            if any(plain in used for used in others):
                updated.add(name)
    return frozenset(updated)


def is_detached(place: str, updated: Collection[str]) -> bool:
    """Whether what is at a place, or around it, is read where tensors are detached."""
    return any(f"{DETACH}:{part}" in updated for part in place.split("."))


def of_attributes(updated: Iterable[str], of: str) -> frozenset[tuple[str, str]]:
    """Return (part, name) of updated attributes of a variable, or of parts in it.

    The part is the last name on the way to it, and empty for the variable itself.
    """
    found = set()
    for each in updated:
        way, _, name = each.rpartition(":")
        _, is_of, parts = f".{way}".partition(f".{of}")
        if is_of and parts[:1] in ("", "."):
            found.add((parts.rpartition(".")[2], name))
    return frozenset(found)


class _Flow:
    """Follows code from where it reads names to where it writes them."""

    def __init__(
        self, instructions: Sequence[dis.Instruction], by_text: bool = False
    ) -> None:
        self.updated: set[str] = set()
        self.asked: set[str] = set()
        self.used: set[str] = set()
        #: (what it is of, name) of what is read.
        self.pairs: set[tuple[str, str]] = set()
        self._instructions = instructions
        self._ways = _ways(instructions)
        #: What has been read on the way to an instruction, and whether only asked for.
        self._live: set[tuple[str, str, bool]] = set()
        #: What it has itself set by then in any case.
        self._fresh: set[tuple[str, str]] = set()
        ahead: dict[int, set[tuple[str, str, bool]]] = {}
        for at, each in enumerate(instructions):
            self._live |= ahead.pop(each.offset, set())
            is_text = by_text and each.opname == "LOAD_CONST"
            if each.opname in READS and not _is_called(each):
                self._reads(self._ways[at].rpartition(".")[0], each.argval, at)
            elif is_text and isinstance(each.argval, str):
                self._reads(self._ways[at - 1], each.argval, at)
            elif each.opname in WRITES:
                # Behind each jump that may lead past it there is more than one way.
                self._writes(at, is_sure=not any(to > each.offset for to in ahead))
            if each.opcode in dis.hasjrel or each.opcode in dis.hasjabs:
                ahead[each.argval] = ahead.get(each.argval, set()) | self._live
            if each.opname in ENDS:
                self._live = set()

    def _reads(self, of: str, name: str, at: int) -> None:
        if (of, name) in self._fresh:
            return
        is_asked = _is_asked_for(self._instructions, at)
        self._live.add((of, name, is_asked))
        self.pairs.add((of, name))
        if not is_asked:
            self.used.add(name)

    def _writes(self, at: int, is_sure: bool) -> None:
        each = self._instructions[at]
        # Unknown where it is far off, as of ``+=``.
        of = self._ways[at - 1] if each.opname == "STORE_ATTR" else ""
        before = [(w, asked) for w, name, asked in self._live if name == each.argval]
        if not before and of and is_sure:
            self._fresh.add((of, each.argval))
        names = {each.argval}
        # What comes into an empty container later may be for a log.
        if not _is_emptied(self._instructions, at):
            names.add(f"{each.argval}.*")
        into = self.asked if all(asked for _, asked in before) else self.updated
        if before:
            into |= names
        if each.opname == "STORE_ATTR":
            ways = {way for way, _ in before if way and of in ("", way)}
            into |= {f"{way}:{name}" for way in ways for name in names}


def _ways(instructions: Iterable[dis.Instruction]) -> list[str]:
    """Return the dotted name of what each instruction leaves, or nothing."""
    ways = [""]
    for each in instructions:
        if each.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            ways.append(f"{ways[-1]}.{each.argval}")
        elif each.opname in READS or "LOAD_FAST" in each.opname:
            # Some instructions load two.
            several = isinstance(each.argval, tuple)
            ways.append(each.argval[-1] if several else each.argval)
        else:
            ways.append(ways[-1] if each.opname in SHUFFLES else "")
    return ways[1:]


def _is_called(each: dis.Instruction) -> bool:
    # As ``mean`` of what an expression returns: no state has that name.
    return each.opname == "LOAD_METHOD" or (
        each.opname == "LOAD_ATTR" and "NULL" in each.argrepr
    )


def _is_asked_for(instructions: Sequence[dis.Instruction], at: int) -> bool:
    """Whether it is only asked whether what is read is there, as of a cache."""
    after = [each for each in instructions[at + 1 : at + 4] if each.opname != "TO_BOOL"]
    if not after or after[0].opname.startswith("POP_JUMP"):
        return bool(after)
    is_none = after[0].opname == "LOAD_CONST" and after[0].argval is None
    return is_none and [each.opname for each in after[1:2]] == ["IS_OP"]


def _is_emptied(instructions: Sequence[dis.Instruction], at: int) -> bool:
    """Whether what an instruction writes is None or an empty container.

    Looked for is what has put the value there, however others are put beside it.
    """
    depth = {"STORE_ATTR": 2, "STORE_SUBSCR": 3}.get(instructions[at].opname, 1)
    for number in range(at - 1, -1, -1):
        each = instructions[number]
        if instructions[number + 1].is_jump_target:  # there are other values
            return False
        change = dis.stack_effect(each.opcode, each.arg)
        if each.opname == "SWAP":
            other = each.arg or 1
            depth = {1: other, other: 1}.get(depth, depth)
        elif each.opname == "COPY" and depth == 1:
            depth = each.arg or 1
        elif each.opname == "UNPACK_SEQUENCE" and depth <= change + 1:
            values = instructions[number - 1]
            is_constant = values.opname == "LOAD_CONST"
            return is_constant and values.argval[depth - 1] in EMPTY
        elif depth <= max(1, change) and "STORE" not in each.opname:
            is_new = each.opname in ("BUILD_LIST", "BUILD_MAP") and each.arg == 0
            return is_new or (each.opname == "LOAD_CONST" and each.argval in EMPTY)
        else:
            depth -= change
    return False


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
            updated.add(item)
            if not _is_emptied(instructions, at):
                updated.add(f"{item}.*")
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
