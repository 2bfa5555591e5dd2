"""One place of the code, broken; and places that several families name."""

from __future__ import annotations

from typing import NamedTuple

COMMIT = "faults/files/test_commit.py"
STORE = "trainbus_checkpointing.store"
DURABLE = "training.files.durable"
LOCK = "training.files.lock"
#: A file is written under its own name.
IN_PLACE = (
    DURABLE,
    'temporary = temporary_beside(path)\n    try:\n        with open(temporary, "xb")',
    'temporary = path\n    try:\n        with open(temporary, "wb")',
)


class Mutant(NamedTuple):
    """One place of the code, broken.

    Attributes:
        number: of the promise that is broken by it.
        what: what is wrong then, as the end of "a code in which ...".
        module: dotted name.
        old: text that stands once in the module.
        new: what takes its place.
        file: of the tests, below tests/.
        tests: a ``-k`` expression that picks those that must fail.
        is_long: whether they take minutes.
    """

    number: str
    what: str
    module: str
    old: str
    new: str
    file: str
    tests: str
    is_long: bool = False
