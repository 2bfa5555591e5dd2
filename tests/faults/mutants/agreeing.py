"""D: the processes of a run go the same way."""

from __future__ import annotations

from faults.mutants.mutant import Mutant

REQUESTS = "distributed/agreeing/test_agreement.py"
SIGNALS = "distributed/agreeing/test_agreed_signals.py"

MUTANTS = [
    Mutant(
        "D18",
        "processes do not agree after a step",
        "training.loop.loop",
        "        if self.state.requests.are_shared:\n",
        "        if False:\n",
        REQUESTS,
        "test_d18_what_the_last_rank and inside and stop",
    ),
    Mutant(
        "D18",
        "who listens at the end of a step is not waited for",
        "training.loop.agreement",
        "return listens or bool(self._held)",
        "return bool(self._held)",
        REQUESTS,
        "test_d18_what_the_last_rank and inside and stop",
    ),
    Mutant(
        "D18",
        "what is asked in a backward pass is heard a step late",
        "training.loop.agreement",
        "return listens or bool(self._held)",
        "return listens",
        "distributed/agreeing/test_asked_inside.py",
        "test_d18_what_is_asked_inside",
    ),
    Mutant(
        "D18",
        "what all ask for is asked once for each",
        "training.loop.agreement",
        "if seen[request] <= known[request]:",
        "if False:",
        REQUESTS,
        "test_d18_the_history",
    ),
    Mutant(
        "D35",
        "who has gone on without a process is waited for",
        "trainbus_distributed.lines",
        "            raise AheadError\n",
        "            return\n",
        "distributed/test_lines.py",
        "test_d35_who_has_begun_a_pass",
    ),
    Mutant(
        "D25",
        "processes go by their own listeners before a step",
        "trainbus_distributed.divided_window",
        "own += float(asking is None or asking.may_request), float(listens)",
        "own += float(asking is None or asking.may_request), 0.0",
        "distributed/test_ranks_of_plugins.py",
        "test_d25_main_alone_may_look",
    ),
    Mutant(
        "D19",
        "a signal is held back for ever",
        "training.loop.agreement",
        "if signal is None or self.signal is None:",
        "if signal is None:",
        SIGNALS,
        "test_d19_each_signal",
    ),
    Mutant(
        "D20",
        "an evaluation is finished before processes leave",
        "training.run",
        "        if requests.signal is not None:\n            raise Abandoned",
        "        if False:\n            raise Abandoned",
        SIGNALS,
        "test_d20_an_evaluation_is_abandoned",
    ),
    Mutant(
        "D21",
        "each process decides by its own numbers",
        "training.loop.loop",
        "trainer.strategy.on_main(lambda: latest.merged(results, num_due))",
        "latest.merged(results, num_due)",
        REQUESTS,
        "test_d21_all_decide",
    ),
    Mutant(
        "D10",
        "a gradient that a plugin spoils on one process is not told",
        "trainbus_distributed.divided_window",
        "        if bad:\n",
        "        if False:\n",
        "distributed/agreeing/test_agreed_windows.py",
        "test_d10_what_is_not_finite and plugin and fp32",
    ),
    Mutant(
        "D13",
        "a late verdict counts when it happens to arrive",
        "training.loop.verdicts",
        "(self._may_be_early and verdict.is_here)",
        "verdict.is_here",
        "loop/test_verdicts.py",
        "test_d13",
    ),
]
