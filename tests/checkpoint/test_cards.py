"""A run keeps the generator of its own card, on whichever machine it goes on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from training.hardware.rng import load_rng_state, rng_state


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list[torch.Generator]:
    """Stand in for the cards of a machine: CPU generators, two of them."""
    generators = [torch.Generator().manual_seed(number) for number in (1, 2)]

    def index(device: Any) -> int:
        return torch.device(device).index or 0

    monkeypatch.setattr(
        torch.cuda,
        "get_rng_state",
        lambda device: generators[index(device)].get_state(),
    )
    monkeypatch.setattr(
        torch.cuda,
        "set_rng_state",
        lambda state, device: generators[index(device)].set_state(state),
    )
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    return generators


def draw(generator: torch.Generator) -> float:
    return torch.rand((), generator=generator).item()


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1"])
def test_only_the_runs_own_card_is_kept(
    cards: list[torch.Generator], name: str
) -> None:
    device = torch.device(name)
    own, other = cards[device.index or 0], cards[1 - (device.index or 0)]
    state = rng_state(device)
    assert len(state["cuda"]) == 1
    expected, theirs = draw(own), other.get_state()
    load_rng_state(state, device)
    assert draw(own) == expected
    assert torch.equal(other.get_state(), theirs)


def test_a_run_on_a_cpu_keeps_none(cards: list[torch.Generator]) -> None:
    assert "cuda" not in rng_state(torch.device("cpu"))
    load_rng_state({**rng_state(), "cuda": [torch.zeros(0)]}, torch.device("cpu"))


@pytest.mark.parametrize(
    ("saved_on", "now", "seed"),
    [
        pytest.param((1, 2, 3, 4), "cuda:1", 2, id="as many: that of its index"),
        pytest.param((7,), "cuda:1", 7, id="fewer: the first"),
        pytest.param((5, 6), "cuda", 5, id="the current card"),
    ],
)
def test_a_file_that_holds_all_cards_of_its_machine_is_read(
    cards: list[torch.Generator], saved_on: tuple[int, ...], now: str, seed: int
) -> None:
    states = [torch.Generator().manual_seed(each).get_state() for each in saved_on]
    device = torch.device(now)
    load_rng_state({**rng_state(), "cuda": states}, device)
    expected = draw(torch.Generator().manual_seed(seed))
    assert draw(cards[device.index or 0]) == expected
