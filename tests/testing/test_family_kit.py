"""The kit finds what is wrong with a model family, one fault a family."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from completes import END, PAD, ROWS, Completes, Completion
from torch import Tensor, nn

from training import Batch
from training.testing import FAMILY_CHECKS, assert_family_conforms


class PadsOnTheRight(Completes):
    """Asks the model behind the padding of a prompt."""

    def prompts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        ids, mask = super().prompts(batch)
        order = mask.argsort(dim=1, descending=True, stable=True)
        return ids.gather(1, order), torch.ones_like(mask)


class LearnsThePrompt(Completes):
    """Leaves padding alone out of what is learnt."""

    def collate(self, processor: str, rows: Sequence[Mapping[str, Any]]) -> Batch:
        batch = super().collate(processor, rows)
        if "labels" in batch:
            batch["labels"] = batch["ids"].masked_fill(batch["ids"] == PAD, -100)
            batch.loss_weight = int((batch["labels"][:, 1:] != -100).sum())
        return batch

    def prompts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        bare = [{"start": row["start"]} for row in batch.rows]
        again = super().collate("abc", bare)
        return again["ids"], again["mask"]


class CountsRows(Completes):
    """Takes a mean over letters for one over rows."""

    def collate(self, processor: str, rows: Sequence[Mapping[str, Any]]) -> Batch:
        batch = super().collate(processor, rows)
        batch.loss_weight = len(rows) if batch.loss_weight else 0
        return batch


class ReadsPadding(Completes):
    """Trains on prompts whose padding changes what the model remembers."""

    def collate(self, processor: str, rows: Sequence[Mapping[str, Any]]) -> Batch:
        batch = super().collate(processor, rows)
        batch["mask"] = torch.ones_like(batch["mask"])
        return batch


class LooksAround(Completes):
    """Predicts something else as soon as there is company."""

    def predict(self, model: Any, processor: str, batch: Batch) -> list[str]:
        texts = super().predict(model, processor, batch)
        return texts if len(texts) == 1 else [f"{text}!" for text in texts]


class Sorts(Completes):
    """Returns predictions in an order of its own."""

    def predict(self, model: Any, processor: str, batch: Batch) -> list[str]:
        return sorted(super().predict(model, processor, batch))


class ForgetsOne(Completes):
    def predict(self, model: Any, processor: str, batch: Batch) -> list[str]:
        return super().predict(model, processor, batch)[:-1]


class ReturnsTensors(Completes):
    def predict(self, model: Any, processor: str, batch: Batch) -> list[Any]:
        return list(batch["ids"])


class PeeksAtTheTarget(Completes):
    def predict(self, model: Any, processor: str, batch: Batch) -> list[str]:
        return [row.get("rest", "?") for row in batch.rows]


class SaysOneThing(Completes):
    """Cannot be told from one that looks at its rows, by rows that it never learnt."""

    def predict(self, model: Any, processor: str, batch: Batch) -> list[str]:
        return ["a" for _ in batch.rows]


class DrawsFromTorch(Completes):
    def predict(self, model: Any, processor: str, batch: Batch) -> list[str]:
        torch.rand(1)
        return super().predict(model, processor, batch)


class DrawsFromRandom(Completes):
    def predict(self, model: Any, processor: str, batch: Batch) -> list[str]:
        random.random()
        return super().predict(model, processor, batch)


class LeavesTrainMode(Completes):
    def predict(self, model: Any, processor: str, batch: Batch) -> list[str]:
        texts = super().predict(model, processor, batch)
        model.out.weight.data.mul_(1.5)
        return texts


class TeachesSomethingElse(Completes):
    """Learns each target backwards."""

    def collate(self, processor: str, rows: Sequence[Mapping[str, Any]]) -> Batch:
        turned = [
            {**r, "rest": r["rest"][::-1] + "c"} if "rest" in r else r for r in rows
        ]
        batch = super().collate(processor, turned)
        batch.rows = list(rows)
        return batch


class NeedsTheTarget(Completes):
    def collate(self, processor: str, rows: Sequence[Mapping[str, Any]]) -> Batch:
        return super().collate(processor, [{**r, "rest": r["rest"]} for r in rows])


class LeavesTheBatch(Completes):
    """Takes a batch for unlabelled as soon as one of its rows is."""

    def collate(self, processor: str, rows: Sequence[Mapping[str, Any]]) -> Batch:
        if all("rest" in row for row in rows):
            return super().collate(processor, rows)
        batch = super().collate(processor, [{"start": row["start"]} for row in rows])
        batch.rows = list(rows)
        return batch


class AsksTheFirst(Completes):
    """Takes all rows of a batch for what its first is."""

    def collate(self, processor: str, rows: Sequence[Mapping[str, Any]]) -> Batch:
        if "rest" in rows[0]:
            rows = [{**row, "rest": row["rest"]} for row in rows]
            return super().collate(processor, rows)
        batch = super().collate(processor, [{"start": row["start"]} for row in rows])
        batch.rows = list(rows)
        return batch


class LearnsNothingInstead(Completes):
    """Teaches that a row without a target ends at once, and does not count it."""

    def collate(self, processor: str, rows: Sequence[Mapping[str, Any]]) -> Batch:
        batch = super().collate(processor, rows)
        if batch.loss_weight:
            is_bare = torch.tensor(["rest" not in row for row in rows])
            batch["labels"][is_bare, -1] = END
        return batch


class DescribesInTuples(Completes):
    def describe(self, model: Any, processor: str) -> dict[str, Any]:
        return super().describe(model, processor) | {"shape": (1, 2)}


class DescribesObjects(Completes):
    def describe(self, model: Any, processor: str) -> dict[str, Any]:
        return super().describe(model, processor) | {"model": model}


class ForgetsItsWidth(Completes):
    def rebuild(self, description: Mapping[str, Any]) -> tuple[nn.Module, str]:
        return super().rebuild({**description, "width": 16})


class ForgetsItsAlphabet(Completes):
    def rebuild(self, description: Mapping[str, Any]) -> tuple[nn.Module, str]:
        model, alphabet = super().rebuild(description)
        return model, alphabet[::-1]


class HoldsAFunction(Completes):
    def __init__(self) -> None:
        super().__init__()
        self.strip = lambda text: text.strip()


class ExportsNothing(Completes):
    def export(self, model: nn.Module, processor: str, folder: Path) -> None:
        pass


class IsHalf(Completes):
    def build(self, rows: Any, **options: Any) -> tuple[nn.Module, str]:
        model, alphabet = super().build(rows, **options)
        return model.bfloat16(), alphabet


class ChangesItsRows(Completes):
    def collate(self, processor: str, rows: Sequence[Mapping[str, Any]]) -> Batch:
        return super().collate(processor, rows[::-1])


class Measures(Completion):
    """Names a metric that it never returns."""

    metrics = ("right", "lost")


def test_a_family_in_order_conforms() -> None:
    assert_family_conforms(Completes(), Completion(), ROWS, num_steps=150, lr=1e-2)


FAULTS: dict[type[Completes], tuple[str, str]] = {
    PadsOnTheRight: ("predictions", "in a batch of their own"),
    LearnsThePrompt: ("prompt", "the prompt is learnt, too"),
    CountsRows: ("weight", "loss_weight must be the number of items"),
    ReadsPadding: ("weight", "no row's loss may depend on the others"),
    LooksAround: ("predictions", "in a batch of their own, such as"),
    Sorts: ("predictions", "in another order"),
    ForgetsOne: ("predictions", "predict returned 4 values for 5 rows"),
    ReturnsTensors: ("predictions", "predictions are no JSON values"),
    SaysOneThing: ("predictions", "which shows nothing"),
    PeeksAtTheTarget: ("target", "with the target in the row"),
    DrawsFromTorch: ("influence", "from the generator of torch"),
    DrawsFromRandom: ("influence", "from the generator of random"),
    LeavesTrainMode: ("influence", "predict changes the model"),
    TeachesSomethingElse: ("learning", "right of the same rows is 0.00"),
    NeedsTheTarget: ("target", "KeyError"),
    LeavesTheBatch: ("mixed", "loss_weight is 0, and 9 without these rows"),
    AsksTheFirst: ("mixed", "KeyError"),
    LearnsNothingInstead: ("mixed", "they must be no part of it"),
    DescribesInTuples: ("description", "JSON changes what describe returns"),
    DescribesObjects: ("description", "describe returns no JSON values"),
    ForgetsItsWidth: ("description", "rebuild fails: RuntimeError"),
    ForgetsItsAlphabet: ("description", "the rebuilt processor makes another batch"),
    HoldsAFunction: ("pickle", "the family does not pickle"),
    ExportsNothing: ("export", "export wrote nothing"),
    IsHalf: ("parts", "weights are torch.bfloat16"),
    ChangesItsRows: ("batch", "not the rows it was made from"),
}


@pytest.mark.parametrize("family", FAULTS, ids=lambda cls: cls.__name__)
def test_a_fault_is_found_and_named(family: type[Completes]) -> None:
    check, message = FAULTS[family]
    others = set(FAMILY_CHECKS) - {check}
    with pytest.raises(AssertionError, match="does not conform") as caught:
        assert_family_conforms(
            family(), Completion(), ROWS, num_steps=150, lr=1e-2, skip=others
        )
    assert f"\n{check}: " in str(caught.value)
    assert message in str(caught.value)


def test_a_metric_that_is_never_measured_is_found() -> None:
    with pytest.raises(AssertionError, match=r"its metrics are \['lost', 'right'\]"):
        assert_family_conforms(Completes(), Measures(), ROWS, num_steps=1)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(ROWS[:3], id="too few"),
        pytest.param([{"start": "a", "rest": r} for r in "abca"], id="of one length"),
    ],
)
def test_rows_that_show_nothing_are_refused(rows: list[dict[str, str]]) -> None:
    with pytest.raises(ValueError, match="too few; give"):
        assert_family_conforms(Completes(), Completion(), rows)


def test_an_unknown_check_cannot_be_skipped() -> None:
    with pytest.raises(ValueError, match="no check is named 'wieght'"):
        assert_family_conforms(Completes(), Completion(), ROWS, skip=["wieght"])
