"""The files of a new task's project where they differ from those of a callback."""

from training.app.plugin_tools import scaffold_text

SETUP = scaffold_text.SETUP.replace(
    "A plugin for trainbus runs", "A task and a model for trainbus runs"
).replace(
    """\
    annotated-types >=0.6,<1
""",
    """\
    torch >=2.10,<3
""",
)
SETUP = SETUP.partition("# This announces")[0] + (
    """\
# This announces both by one name, since one class is both.
[options.entry_points]
trainbus.tasks =
    $name = $package:$class_name
trainbus.models =
    $name = $package:$class_name
"""
)

README = """\
# $distribution

Says which of some labels a text has.

    pip install $distribution
    trainbus run config.yaml

```yaml
task: $name
data:
  train: train.jsonl            # {"text": "...", "label": "..."}, one a line
  validation: validation.jsonl
  batch_size: 32
model:
  build: {}
```

| Option of `model` | Default | Meaning |
|---|---|---|
| `num_buckets` | 512 | counters that the words of a text are counted in |

The metric is `accuracy`. `trainbus plugins show $name --kind task` prints what it is,
`trainbus plugins check $name --kind model` what is wrong with it, tried on a few rows.

To work on it: `pip install -e '.[test]'`, then `pytest`.
"""

WORKFLOW = scaffold_text.WORKFLOW.replace(
    "      - run: trainbus plugins check $name\n",
    "      - run: trainbus plugins check $name --kind task\n"
    "      - run: trainbus plugins check $name --kind model\n",
)

INIT = '''\
"""The task ``$name`` for trainbus, and a model for it."""

from $package.task import $class_name

__all__ = ["$class_name"]
'''

TASK = '''\
"""Label texts by the words in them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from training import Batch, ModelFamily, Task
from training.plugin import likeliest


class WordCounts(nn.Module):
    """One linear layer from word counts to labels."""

    def __init__(self, num_buckets: int, num_labels: int) -> None:
        super().__init__()
        self.layer = nn.Linear(num_buckets, num_labels)

    def forward(self, counts: Tensor, labels: Tensor | None = None) -> dict[str, Any]:
        """Return scores (B, labels), and the mean loss where labels (B,) are known."""
        scores = self.layer(counts)
        if labels is None:
            return {"scores": scores}
        return {"scores": scores, "loss": nn.functional.cross_entropy(scores, labels)}


class $class_name(Task, ModelFamily):
    """One of some labels for each text; the processor is the list of labels.

    Args:
        num_buckets: counters that the words of a text are counted in.
    """

    # What a row holds, which field is predicted, and what score() returns.
    fields: ClassVar[Mapping[str, str]] = {"text": "text", "label": "text"}
    target: ClassVar[str] = "label"
    metrics = ("accuracy",)
    # This class is the model family of the task, too.
    default_family: ClassVar[str] = "$name"
    tasks = ("$name",)

    def __init__(self, num_buckets: int = 512) -> None:
        self.num_buckets = num_buckets

    def score(self, prediction: Any, row: Mapping[str, Any]) -> dict[str, float]:
        """Return whether the label is right; the metric is the mean over rows."""
        return {"accuracy": float(prediction == row["label"])}

    def build(
        self, rows: Sequence[Mapping[str, Any]], *, seed: int = 0
    ) -> tuple[WordCounts, list[str]]:
        """Return a fresh model and its processor; the labels are the rows'."""
        labels = sorted({row["label"] for row in rows})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return WordCounts(self.num_buckets, len(labels)).eval(), labels

    def collate(self, processor: list[str], rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Return the model's arguments; without labels where no row has one."""
        counts = torch.zeros(len(rows), self.num_buckets)
        for place, row in enumerate(rows):
            for word in row["text"].lower().split():
                counts[place, zlib.crc32(word.encode()) % self.num_buckets] += 1
        tensors, kept = {"counts": counts}, [dict(row) for row in rows]
        if not any("label" in row for row in rows):
            return Batch(tensors, kept, 0)
        numbers: dict[Any, int] = {label: n for n, label in enumerate(processor)}
        # -100 is no part of the loss: no label, or one that training never had.
        labels = torch.tensor([numbers.get(row.get("label"), -100) for row in rows])
        # The weight is the number of items that the model's loss is a mean over.
        return Batch({**tensors, "labels": labels}, kept, int((labels >= 0).sum()))

    def predict(self, model: Any, processor: list[str], batch: Batch) -> list[Any]:
        """Return one JSON value for each row, whatever else is in the batch."""
        return likeliest(model(batch["counts"])["scores"], processor)

    def sample_rows(self) -> list[dict[str, str]]:
        """Return rows that `trainbus plugins check` and the tests try it on."""
        return [
            {"text": "a lovely film", "label": "good"},
            {"text": "dull and slow", "label": "bad"},
            {"text": "lovely", "label": "good"},
            {"text": "a dull story", "label": "bad"},
        ]

    def describe(self, model: Any, processor: list[str]) -> dict[str, Any]:
        """Return JSON values that make both again, bar weights."""
        return {"labels": processor, "num_buckets": model.layer.in_features}

    def rebuild(self, description: Mapping[str, Any]) -> tuple[WordCounts, list[str]]:
        """Return what was described, with random weights."""
        labels = list(description["labels"])
        return WordCounts(description["num_buckets"], len(labels)), labels
'''

TEST = '''\
"""The model learns what the task asks, and keeps the rules of a family."""

import pytest
from training.testing import FAMILY_CHECKS, assert_family_conforms

from $package import $class_name

ROWS = $class_name().sample_rows()


def test_it_conforms():
    task = $class_name()
    assert_family_conforms(task, task, ROWS)


class CountsWords($class_name):
    def collate(self, processor, rows):
        batch = super().collate(processor, rows)
        batch.loss_weight = int(batch["counts"].sum())
        return batch


def test_a_wrong_weight_would_be_found():
    task = CountsWords()
    others = set(FAMILY_CHECKS) - {"weight"}
    with pytest.raises(AssertionError, match="loss_weight must be the number"):
        assert_family_conforms(task, task, ROWS, skip=others)


def test_a_label_that_training_never_had_is_no_part_of_the_loss():
    task = $class_name()
    _, labels = task.build(ROWS)
    others = [{"text": "hm", "label": "odd"}, {"text": "of no label"}]
    batch = task.collate(labels, [ROWS[0], *others])
    assert batch["labels"].tolist() == [1, -100, -100]
    assert batch.loss_weight == 1


def test_of_a_text_with_a_nan_among_its_scores_nothing_is_predicted():
    task = $class_name()
    model, labels = task.build(ROWS)
    model.layer.bias.data[-1] = float("nan")
    batch = task.collate(labels, ROWS)
    assert task.predict(model, labels, batch) == [None] * len(ROWS)
'''
