"""A number is asked for once it is there, and waited for where it is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from training.hardware.readback import Readback


class Event:
    """Counts what a device is asked, as an event of torch would be.

    Args:
        is_over: whether the work before it is done.
    """

    def __init__(self, is_over: bool) -> None:
        self.is_over, self.queries, self.waits = is_over, 0, 0

    def query(self) -> bool:
        self.queries += 1
        return self.is_over

    def synchronize(self) -> None:
        self.waits += 1
        self.is_over = True


def behind(event: Event) -> Readback:
    number = Readback(torch.tensor(3.0))
    number._event = event  # type: ignore[assignment]
    return number


def test_a_number_that_is_here_is_read_without_a_wait() -> None:
    event = Event(is_over=True)
    number = behind(event)
    assert number.is_here
    assert [number.value(), number.value()] == [3.0, 3.0]
    assert (event.queries, event.waits) == (1, 0)


def test_a_number_that_is_not_here_is_waited_for_once() -> None:
    event = Event(is_over=False)
    number = behind(event)
    assert not number.is_here
    assert [number.value(), number.value()] == [3.0, 3.0]
    assert event.waits == 1


def test_a_number_of_the_host_is_here() -> None:
    assert Readback(2.0).is_here
    assert Readback(torch.tensor(2.0)).value() == 2.0


@pytest.mark.parametrize("value", [3, 3.0, torch.tensor(3), torch.tensor(3.0)])
def test_a_number_of_python_is_here_already(value: Any) -> None:
    number = Readback(value)
    assert number.is_here
    assert (number.value(), type(number.value())) == (3.0, float)
