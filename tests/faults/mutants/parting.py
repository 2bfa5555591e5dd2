"""D35: who is gone, or makes another call, is known of by all at once."""

from __future__ import annotations

from faults.mutants.mutant import Mutant

MUTANTS = [
    Mutant(
        "D35",
        "a connection that is closed has nothing to say yet",
        "trainbus_distributed.lines",
        '            raise LineError("connection closed by another process")\n',
        "            return\n",
        "distributed/test_lines.py",
        "test_d35_who_is_gone and hears",
    ),
    Mutant(
        "D35",
        "what was said in another call is taken for the answer",
        "trainbus_distributed.waiting",
        "if all(each == call for each in calls):",
        "if len(list(calls)) == self._size:",
        "distributed/test_parting.py",
        "test_d35_what_was_said_in_another_call",
    ),
]
