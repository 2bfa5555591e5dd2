"""How sure a model family is of what it predicts, if it can tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from training.messages.tables import count
from training.recipes.class_checks import confidence_mistake
from training.recipes.family import CONFIDENCES
from training.testing.family.case import FamilyCase

#: Differences that summing in another order explains; a model that has learnt its rows
#: is sure of each, so that all of its numbers are close to the highest.
RELATIVE, ABSOLUTE = 1e-3, 1e-5


def check_confidence(case: FamilyCase) -> list[str]:
    """Whether each prediction has a number of its kind that its row alone decides."""
    family = case.family
    if not hasattr(family, "predict_with_confidence"):
        return []
    if mistake := confidence_mistake(family):
        return [mistake]
    # The one that has learnt ends its answers, the fresh one is sure of nothing.
    return _problems(case, case.learnt) or _problems(case, case.parts[0])


def _problems(case: FamilyCase, model: Any) -> list[str]:
    rows, kind = case.rows, case.family.confidence

    def answers(some: Sequence[Mapping[str, Any]]) -> list[tuple[Any, float]]:
        return case.answer_batch(model, case.collate(some))

    whole = answers(rows)
    if problem := _malformed(whole, len(rows), kind):
        return [problem]
    told = case.predict_by(model, case.collate(rows))
    if (said := [prediction for prediction, _ in whole]) != told:
        return [f"predict_with_confidence predicts {said}, but predict {told}"]
    others = {
        "in a batch of its own": [answers([row])[0] for row in rows],
        "in another order": answers(rows[::-1])[::-1],
        "without the target in the row": answers(case.bare()),
    }
    return [
        f"a {kind} is {ours:.6g} among all rows and {theirs:.6g} {words}"
        for words, other in others.items()
        for ours, theirs in _first_difference(whole, other)
    ]


def _malformed(said: list[Any], number: int, kind: str) -> str:
    """Return what is wrong with the form of what a family returned, else ``""``."""
    method = "predict_with_confidence returned"
    if len(said) != number:
        return f"{method} {count(len(said), 'value')} for {count(number, 'row')}"
    least, most = CONFIDENCES[kind]
    for each in said:
        if not isinstance(each, tuple | list) or len(each) != 2:
            return f"{method} {each!r} for a row; return a prediction and a number"
        value = each[1]
        if type(value) is not float or not math.isfinite(value):
            return f"{method} the {kind} {value!r}; return a finite float"
        if not least - ABSOLUTE <= value <= most + ABSOLUTE:
            return (
                f"{method} the {kind} {value!r}, which is a number from {least:g} to "
                f"{most:g}"
            )
    return ""


def _first_difference(whole: list[Any], other: list[Any]) -> list[tuple[float, float]]:
    pairs = [(a, b) for (_, a), (_, b) in zip(whole, other, strict=True)]
    return [
        pair
        for pair in pairs
        if not math.isclose(*pair, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    ][:1]
