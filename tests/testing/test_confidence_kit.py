"""The kit finds what is wrong with how sure a family says it is, one fault a family."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from completes import ROWS, Completes, Completion, Sure

from training import Batch
from training.testing import FAMILY_CHECKS, assert_family_conforms

Said = list[tuple[str, float]]


class Probable(Sure):
    """Says the probability of the whole text."""

    confidence = "probability"

    def mean(self, shares: list[float]) -> float:
        return math.exp(sum(shares))


class Unnamed(Sure):
    confidence = ""


class Misnamed(Sure):
    confidence = "log_likelihood"


class SaysPercent(Probable):
    def mean(self, shares: list[float]) -> float:
        return 100 * super().mean(shares)


class SaysLoss(Sure):
    def mean(self, shares: list[float]) -> float:
        return -super().mean(shares)


class SaysNothing(Sure):
    def mean(self, shares: list[float]) -> float:
        return math.nan


class SaysTensors(Sure):
    def mean(self, shares: list[float]) -> Any:
        return torch.tensor(super().mean(shares))


class ForgetsThePrediction(Sure):
    def predict_with_confidence(self, *given: Any) -> Any:
        return [value for _, value in super().predict_with_confidence(*given)]


class ForgetsOne(Sure):
    def predict_with_confidence(self, *given: Any) -> Said:
        return super().predict_with_confidence(*given)[1:]


class SaysSomethingElse(Sure):
    def predict_with_confidence(self, *given: Any) -> Said:
        return [(f"{a}!", b) for a, b in super().predict_with_confidence(*given)]


class DividesByTheLongest(Sure):
    """Takes the mean over the batch's width, padding included."""

    def predict_with_confidence(self, model: Any, processor: str, batch: Batch) -> Said:
        said = super().predict_with_confidence(model, processor, batch)
        lengths = [self.length(ids) for ids in self.generate(model, batch)[0]]
        longest = max(lengths)
        return [
            (text, mean * length / longest)
            for (text, mean), length in zip(said, lengths, strict=True)
        ]


class SharesOverTheBatch(Probable):
    def predict_with_confidence(self, *given: Any) -> Said:
        said = super().predict_with_confidence(*given)
        total = sum(value for _, value in said)
        return [(text, value / total) for text, value in said]


class Sorts(Sure):
    """Gives the numbers in an order of its own."""

    def predict_with_confidence(self, *given: Any) -> Said:
        said = super().predict_with_confidence(*given)
        values = sorted(value for _, value in said)
        return [(text, value) for (text, _), value in zip(said, values, strict=True)]


class Draws(Sure):
    def predict_with_confidence(self, *given: Any) -> Said:
        torch.rand(1)
        return super().predict_with_confidence(*given)


@pytest.mark.parametrize("family", [Completes, Sure, Probable])
def test_a_family_in_order_conforms(family: type[Completes]) -> None:
    assert_family_conforms(family(), Completion(), ROWS, num_steps=150, lr=1e-2)


FAULTS: dict[type[Sure], tuple[str, str]] = {
    Unnamed: ("confidence", "calls ''; call it 'probability' or 'mean_log_prob"),
    Misnamed: ("confidence", "calls 'log_likelihood'; call it"),
    SaysPercent: ("confidence", "which is a number from 0 to 1"),
    SaysLoss: ("confidence", "which is a number from -inf to 0"),
    SaysNothing: ("confidence", "nan; return a finite float"),
    SaysTensors: ("confidence", "return a finite float"),
    ForgetsThePrediction: ("confidence", "return a prediction and a number"),
    ForgetsOne: ("confidence", "4 values for 5 rows"),
    SaysSomethingElse: ("confidence", "but predict ["),
    DividesByTheLongest: ("confidence", "in a batch of its own"),
    SharesOverTheBatch: ("confidence", "in a batch of its own"),
    Sorts: ("confidence", "in a batch of its own"),
    Draws: ("influence", "from the generator of torch"),
}


@pytest.mark.parametrize("family", FAULTS, ids=lambda cls: cls.__name__)
def test_a_fault_is_found_and_named(family: type[Sure]) -> None:
    check, message = FAULTS[family]
    with pytest.raises(AssertionError, match="does not conform") as caught:
        assert_family_conforms(
            family(),
            Completion(),
            ROWS,
            num_steps=60,
            lr=1e-2,
            skip=set(FAMILY_CHECKS) - {check},
        )
    assert f"\n{check}: " in str(caught.value)
    assert message in str(caught.value)
