"""How often each numbered promise was put to the test, and what its tests counted."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

#: Numbers head a test's name, ``test_p1_p2_a_signal_...``, or its first parameter.
NUMBERS = re.compile(r"test_(?:((?:[cprsw]\d+_)+)|\w+\[([CPRSW]\d+) )")


def tally(
    cases: Iterable[tuple[str, str, Mapping[str, int]]],
) -> dict[str, dict[str, int]]:
    """Return, number by number, how many tests had which outcome, and their counts.

    Args:
        cases: name of a test, its outcome, what it counted.
    """
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for name, outcome, counts in cases:
        found = NUMBERS.search(name)
        numbers = (found[1] or found[2]).upper().strip("_").split("_") if found else ()
        for number in numbers:
            outcomes[number][outcome] += 1
            counted[number].update(counts)
    order = sorted(outcomes, key=lambda each: (each[0], int(each[1:])))
    return {number: {**outcomes[number], **counted[number]} for number in order}


def as_text(counts: Mapping[str, int]) -> str:
    """Return counts as words: ``2 passed, 782 faults``."""
    return ", ".join(f"{count:,} {what}" for what, count in counts.items())
