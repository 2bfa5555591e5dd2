"""Saying which of some labels a picture has."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from trainbus_data.commonest import commonest_floor
from training.recipes.task import Task

__all__ = ["ImageClassification"]


class ImageClassification(Task):
    """A picture and its label.

    ``accuracy``: the share of the rows whose label is predicted. ``macro_f1``: the mean
    over all labels, true or predicted, of the harmonic mean of precision and recall:
    rare labels count as much as frequent ones. Both are in [0, 1]. A prediction of None
    is a miss of the true label, and no label of its own.
    """

    fields: ClassVar[Mapping[str, str]] = {
        "image": "picture",
        "label": "text",
        "kind": "text?",
    }
    target: ClassVar[str] = "label"
    metrics = ("accuracy", "macro_f1")
    default_family: ClassVar[str] = "image_classifier"

    def score(self, prediction: Any, row: Mapping[str, Any]) -> dict[str, float]:
        """Return whether the label is right."""
        is_right = prediction is not None and str(prediction) == str(row["label"])
        return {"accuracy": float(is_right)}

    def summarise(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the mean F1 over labels."""
        known = [each for each in records if "label" in each]
        if not known:
            return {}
        true = Counter(str(each["label"]) for each in known)
        given = [each for each in known if each["prediction"] is not None]
        said = Counter(str(each["prediction"]) for each in given)
        hits = Counter(str(each["label"]) for each in given
                       if str(each["label"]) == str(each["prediction"]))  # fmt: skip
        labels = true.keys() | said.keys()
        # 2 hits / (true + said) is the harmonic mean of hits/said and hits/true.
        scores = [2 * hits[name] / (true[name] + said[name]) for name in labels]
        # A set of texts has another order in each process: fsum rounds once for all.
        return {"macro_f1": math.fsum(scores) / len(scores)}

    def floors(
        self, train: Sequence[Mapping[str, Any]], judged: Sequence[Mapping[str, Any]]
    ) -> dict[str, dict[str, float]]:
        """Return the share of the training rows' most frequent label."""
        return commonest_floor(self, train, judged)
