"""By what processes know that they have read the same batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from training.feed.share import FEW, digest


def numbers(**changed: float) -> torch.Tensor:
    """Return 1,000 numbers, in float32, with some changed: ``at_3=5.0``."""
    made = torch.arange(1000.0)
    for name, value in changed.items():
        made[int(name.removeprefix("at_"))] = value
    return made


#: Name -> (what makes a batch, what makes another one).
BATCHES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "its first number": (numbers, lambda: numbers(at_0=9.0)),
    "its last number": (numbers, lambda: numbers(at_999=9.0)),
    "its type": (numbers, lambda: numbers().double()),
    "its shape": (numbers, lambda: numbers().view(10, 100)),
    "a number of 16 bits": (
        lambda: numbers().bfloat16(),
        lambda: numbers(at_1=2.0).bfloat16(),
    ),
    "a complex number": (
        lambda: torch.complex(numbers(), numbers()).conj(),
        lambda: torch.complex(numbers(), numbers()),
    ),
    "a number without a shape": (lambda: torch.tensor(1), lambda: torch.tensor(2)),
    "an array": (lambda: numbers().numpy(), lambda: numbers(at_999=9.0).numpy()),
    "an array of objects": (
        lambda: np.array([[1], "a"], dtype=object),
        lambda: np.array([[2], "a"], dtype=object),
    ),
    "a weight": (
        lambda: torch.nn.Parameter(numbers()),
        lambda: torch.nn.Parameter(numbers(at_0=9.0)),
    ),
    "an entry": (lambda: {"x": numbers()}, lambda: {"x": numbers(at_0=9.0)}),
    "its name": (lambda: {"x": numbers()}, lambda: {"y": numbers()}),
    "where a field ends": (
        lambda: {"a": {}, "b": 1},
        lambda: {"a": {"b": 1}},
    ),
    "a text": (lambda: (numbers(), ["a"]), lambda: (numbers(), ["b"])),
    "its length": (lambda: [1, 2], lambda: [1, 2, 3]),
    "an index": (lambda: [1, 2], lambda: [1, 3]),
    "where an index ends": (lambda: [1, 11], lambda: [11, 1]),
    "where a name ends": (lambda: {"x1": 2}, lambda: {"x": 12}),
    "a column": (lambda: numbers().view(10, 100)[:, 9], lambda: numbers()[:10]),
    "every other number": (lambda: numbers()[::2], lambda: numbers()[1::2]),
    "one number for all": (
        lambda: torch.ones(1).expand(9),
        lambda: torch.zeros(1).expand(9),
    ),
    "a real part": (
        lambda: torch.complex(numbers(), numbers()).real,
        lambda: torch.complex(numbers(at_0=9.0), numbers()).real,
    ),
    "a number of 8 bits": (
        lambda: numbers().to(torch.float8_e5m2),
        lambda: numbers(at_0=9.0).to(torch.float8_e5m2),
    ),
    "what is masked": (
        lambda: np.ma.array([1.0, 1e20], mask=[False, True]),
        lambda: np.ma.array([1.0, 1e20], mask=[False, False]),
    ),
}


@pytest.mark.parametrize("by", BATCHES)
def test_a_batch_is_told_from_another_one_by(by: str) -> None:
    make, make_other = BATCHES[by]
    assert digest(make()) == digest(make())
    assert digest(make()) != digest(make_other())


def test_what_lies_between_fields_is_no_part_of_a_batch() -> None:
    record = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    one, other = np.zeros(3, record), np.zeros(3, record)
    one.view(np.uint8)[1] = 7  # between a and b
    assert one.tobytes() != other.tobytes()
    assert digest(one) == digest(other)


def test_only_the_ends_of_a_tensor_are_looked_at() -> None:
    assert digest(numbers()) == digest(numbers(**{f"at_{FEW}": 0.5}))
    assert digest(numbers()) != digest(numbers(**{f"at_{FEW - 1}": 0.5}))
