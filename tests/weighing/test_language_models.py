"""The unit of language and picture models, which compute their own loss."""

from __future__ import annotations

import pytest
from weighing.language import halved, kinds
from weighing.zoo import SPLIT, Kind, difference

KINDS = kinds()


@pytest.mark.parametrize("name", KINDS)
def test_the_unit_is_found_of(name: str) -> None:
    kind, unit = KINDS[name]
    trainer = kind.trainer((8,), max_steps=1)
    trainer.train()
    settings = trainer._weigher.settings()
    assert settings["unit"] == unit
    assert settings["r"] < max(1e-6, kind.rest)


@pytest.mark.parametrize("name", KINDS)
def test_w2_the_unit_is_found_with_half_weights_of(name: str) -> None:
    kind, unit = KINDS[name]
    half = Kind(lambda: halved(kind.make()), kind.rows, kind.collate)
    trainer = half.trainer((8,), max_steps=1)
    trainer.train()
    assert trainer._weigher.settings()["unit"] == unit


@pytest.mark.parametrize("name", KINDS)
def test_a_split_window_moves_the_weights_as_one_batch(name: str) -> None:
    kind, unit = KINDS[name]
    whole = kind.update((8,))
    assert difference(kind.update(SPLIT), whole) < (2 * kind.rest or 1e-5)
    if unit != "samples" and name != "GPT2, whole texts":  # there all rows weigh alike
        assert difference(kind.update(SPLIT, loss_per="samples"), whole) > 1e-2
