"""D: a run on many processes is the run of one, divided: its data and their weights."""

from __future__ import annotations

from faults.mutants.mutant import Mutant

DATA = "distributed/test_data.py"

MUTANTS = [
    Mutant(
        "D1",
        "parts of a batch overlap",
        "training.feed.share",
        "start = rank * each + min(rank, over)",
        "start = rank * each",
        DATA,
        "test_d1_parts_are_contiguous",
    ),
    Mutant(
        "D1",
        "a sample that stands in counts",
        "training.weighing.parts",
        "return StandIn() if source.stands_in else weight",
        "return weight",
        DATA,
        "test_d1_a_batch and step",
    ),
    Mutant(
        "D6",
        "each process measures its own part",
        "training.weighing.parts",
        "indices = source.issued.whole",
        "indices = list(source.issued)",
        "distributed/test_weights.py",
        "test_d6_a_loss_that_no_unit",
    ),
    Mutant(
        "D22",
        "a row that stands in is measured",
        "training.feed.validation_share",
        "yield batch, share.samples, not share.stands_in",
        "yield batch, share.samples, True",
        "distributed/test_evaluation.py",
        "test_d22_predictions",
    ),
]
