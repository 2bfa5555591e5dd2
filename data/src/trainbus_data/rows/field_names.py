"""Names of fields that no row has: a mistake in the names and not in the rows."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from training.errors import ConfigError, DataError, did_you_mean
from training.recipes.reader import Reader

__all__ = ["Looked", "look", "refuse_absent", "refuse_shown_target"]

logger = logging.getLogger(__name__)

#: Rows, or up to twice as many, that are looked at for a name which the first lacks.
NUM_LOOKED_AT = 2000


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found in the rows of a reader.

    Attributes:
        path: of the rows, for messages.
        absent: the names that none has.
        found: the names that some have, in order; not all where nothing is absent.
        is_whole: whether every row was looked at, and could be read.
    """

    path: str
    absent: frozenset[str]
    found: tuple[str, ...]
    is_whole: bool

    def lacks(self, name: str) -> bool:
        """Whether rows have names, and none has this one."""
        return bool(self.found) and name in self.absent


def look(reader: Reader, wanted: Iterable[str]) -> Looked:
    """Return which names no row has; mostly the first row has them all.

    Else up to 2,000 rows are looked at, evenly spread; what cannot be read is left out.

    Raises:
        DataError: the reader's length is none.
    """
    try:
        number = len(reader)
    except (OverflowError, TypeError, ValueError) as error:
        raise DataError(
            f"len() of the reader {type(reader).__name__} is no number of rows "
            f"({error}); let its __len__ return how many it has, from 0 to 2**63 - 1"
        ) from error
    step = max(1, number // NUM_LOOKED_AT)
    absent = set(wanted)
    found: dict[str, None] = {}
    num_read = 0
    for index in range(0, number, step):
        with contextlib.suppress(DataError):  # told with all others that are bad
            names = reader[index].keys()
            num_read += 1
            found |= dict.fromkeys(names)
            absent.difference_update(names)
        if not absent:
            break
    path = reader.place(0).rpartition(":")[0] if number else ""
    return Looked(path, frozenset(absent), tuple(found), num_read == number)


def refuse_absent(
    looked: Looked,
    needed: Iterable[str],
    names: Mapping[str, str],
    locate: Callable[[str], str],
    is_elsewhere: Callable[[str], bool] = lambda name: False,
    may_name: bool = True,
) -> None:
    """Refuse names that no row has, each told once.

    Args:
        looked: what rows have.
        needed: the fields that every row must have.
        names: field -> what files call it, where that differs.
        locate: turns a field of ``names`` into where it was written.
        is_elsewhere: whether other rows, which are read by the same names, have one;
            asked of those that a row may do without.
        may_name: whether other names can be configured, which the error then says.
    Raises:
        ConfigError: says which, with the nearest name and those that are there.
    """
    needed = list(needed)
    told = list(_misnamed(looked, needed, names, locate, is_elsewhere))
    unnamed = [name for name in needed if name not in names and looked.lacks(name)]
    if unnamed:
        hint = did_you_mean(unnamed[0], looked.found)
        each = ", ".join(f"{name}: NAME" for name in unnamed)
        way_out = f"; say which it is, as in data.fields: {{{each}}}"
        told.append(
            f"no row of {looked.path} has {' and '.join(map(repr, unnamed))}{hint}, "
            f"but a row needs {'it' if len(unnamed) == 1 else 'them'}; there are: "
            f"{', '.join(looked.found)}{way_out if may_name else ''}"
        )
    if told:
        raise ConfigError("\n".join(told))


def refuse_shown_target(
    target: str,
    needed: Iterable[str],
    names: Mapping[str, str],
    locate: Callable[[str], str],
) -> None:
    """Refuse names by which a model would be shown what it is to predict.

    What a row may do without is not looked at: a ``kind`` may well be the label.

    Args:
        target: the field that is predicted.
        needed: the fields that every row must have.
        names: field -> what files call it, where that differs.
        locate: turns a field of ``names`` into where it was written.
    Raises:
        ConfigError: the target's column is that of another of ``needed``.
    """
    column = names.get(target, target)
    for field in needed:
        if field != target and names.get(field, field) == column:
            raise ConfigError(
                f"{locate(field if field in names else target)} is {column!r}, which "
                f"makes {field} and {target} the same column, so that a model would "
                "be shown what it is to predict; name a column for each"
            )


def _misnamed(
    looked: Looked,
    needed: list[str],
    names: Mapping[str, str],
    locate: Callable[[str], str],
    is_elsewhere: Callable[[str], bool],
) -> Iterator[str]:
    """Yield a sentence for each of ``names``; warn where not all rows are known."""
    for field, name in names.items():
        if not looked.lacks(name) or (field not in needed and is_elsewhere(name)):
            continue
        hint, there = did_you_mean(name, looked.found), ", ".join(looked.found)
        told = (
            f"{locate(field)} is {name!r}{hint}, which no row of {looked.path} has; "
            f"there are: {there}"
        )
        if field in needed or looked.is_whole:
            yield told
        else:
            logger.warning("%s (of those that were looked at)", told)
