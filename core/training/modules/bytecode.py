"""What the code of functions tells without its source: what they read, whose it is."""

from __future__ import annotations

import dis
import functools
import sysconfig
from pathlib import Path
from types import CodeType

import torch

#: Where libraries are, torch's neighbours and ourselves among them: their functions are
#: not read for what they hold.
LIBRARIES = (
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib")),
    *(sysconfig.get_path(name) for name in ("purelib", "platlib")),
    str(Path(torch.__file__).parents[1]),
    str(Path(__file__).parents[1]),
)
SITES = ("site-packages", "dist-packages")
#: What an instruction is called that reads a variable from outside, or an attribute.
READS = {"LOAD_ATTR", "LOAD_DEREF", "LOAD_GLOBAL", "LOAD_METHOD"}


@functools.lru_cache(maxsize=1000)
def names_in(code: CodeType) -> tuple[list[str], frozenset[str]]:
    """Return the globals that a function reads, or functions inside of it, and all."""
    # Not co_names: those are of variables and attributes alike, read or written.
    instructions = list(dis.get_instructions(code))
    globals_ = [each.argval for each in instructions if each.opname == "LOAD_GLOBAL"]
    read = {each.argval for each in instructions if each.opname in READS}
    if "getattr" in globals_:  # what it reads is a constant
        read |= {each for each in code.co_consts if isinstance(each, str)}
    for inner in code.co_consts:  # as of lambdas
        if isinstance(inner, CodeType):
            globals_ += names_in(inner)[0]
            read |= names_in(inner)[1]
    return list(dict.fromkeys(globals_)), frozenset(read)


def is_library(path: str) -> bool:
    """Whether a file is a library's, torch's neighbour or our own, not a user's."""
    return path.startswith(LIBRARIES) or any(site in path for site in SITES)
