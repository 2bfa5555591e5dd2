"""D: a run on many processes is the run of one, divided: its data and their weights."""

from __future__ import annotations

from faults.mutants.mutant import Mutant

DATA = "distributed/test_data.py"
KEEPING = "distributed/folders/test_sharded_keeping.py"
SAVE = "trainbus_distributed.sharded.checkpoint"

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
        "training.weighing.part_weigher",
        "return StandIn() if source.stands_in else weight",
        "return weight",
        DATA,
        "test_d1_a_batch and step",
    ),
    Mutant(
        "D6",
        "each process measures its own part",
        "training.weighing.part_weigher",
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
    Mutant(
        "D30",
        "a damaged part is read",
        "training.archive.shards",
        "if found != expected:",
        "if not found:",
        "distributed/folders/test_damaged_folders.py",
        "test_d30_a_folder and bit",
    ),
    Mutant(
        "D30",
        "a part of a sum is taken for all of it",
        SAVE,
        "if tuple(tensor.placements) in ((Shard(0),), (Replicate(),)):",
        "if tensor.placements:",
        "distributed/folders/test_sharded_checkpoints.py",
        "test_d30_each_tensor",
    ),
    Mutant(
        "D30",
        "training moves what a thread has still to write",
        SAVE,
        "copied = copy({",
        "copied = dict({",
        KEEPING,
        "test_d30_what_threads_write",
    ),
    Mutant(
        "D30",
        "a folder is visible before all is in it",
        "training.checkpoint_io",
        "        _write(draft / STATE, {**state, SHARDS: shards})\n"
        "        return rename_durably(draft, path)",
        "        rename_durably(draft, path)\n"
        "        return _write(path / STATE, {**state, SHARDS: shards}).parent",
        KEEPING,
        "test_d30_folders_are_kept and once",
    ),
    Mutant(
        "D30",
        "a folder loses one file after another",
        "trainbus_checkpointing.folder",
        "            os.rename(path, draft)\n            shutil.rmtree(draft)\n",
        "            shutil.rmtree(path)\n",
        KEEPING,
        "test_d30_folders_are_kept and once",
    ),
]
