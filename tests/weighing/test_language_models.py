"""The unit of models of language, pictures and sound, which compute their own loss."""

from __future__ import annotations

from typing import Any

import pytest
from weighing.language import halved, kinds, made
from weighing.zoo import SPLIT, Kind, difference

from training.errors import ConfigError

KINDS = kinds()
FOUND = [name for name, (_, unit) in KINDS.items() if unit is not None]
#: It does not cast its inputs, so that half weights refuse fp32 sound.
HALVED = [name for name in FOUND if not name.startswith("Wav2Vec2")]


def rows_of(batch: Any) -> int:
    """Return how many rows a batch has: the control's guess."""
    return len(batch["labels"])


@pytest.mark.parametrize("name", FOUND)
def test_the_unit_is_found_of(name: str) -> None:
    kind, unit = KINDS[name]
    trainer = kind.trainer((8,), max_steps=1)
    trainer.train()
    settings = trainer.state.weigher.settings()
    assert settings["unit"] == unit
    assert settings["r"] < max(1e-6, kind.rest)


@pytest.mark.parametrize("name", HALVED)
def test_w2_the_unit_is_found_with_half_weights_of(name: str) -> None:
    kind, unit = KINDS[name]
    half = Kind(lambda: halved(kind.make()), kind.rows, kind.collate)
    trainer = half.trainer((8,), max_steps=1)
    trainer.train()
    assert trainer.state.weigher.settings()["unit"] == unit


@pytest.mark.parametrize("name", FOUND)
def test_a_split_window_moves_the_weights_as_one_batch(name: str) -> None:
    kind, unit = KINDS[name]
    whole = kind.update((8,))
    assert difference(kind.update(SPLIT), whole) < (2 * kind.rest or 1e-5)
    if unit != "samples" and name != "GPT2":  # whole texts: there all rows weigh alike
        assert difference(kind.update(SPLIT, loss_per=rows_of), whole) > 1e-2


def test_w6_no_unit_is_found_of_clip() -> None:
    kind, _ = KINDS["CLIP"]
    with pytest.raises(ConfigError, match="belongs to neither part, as in contrastive"):
        kind.trainer((8,), times=2).train()


def test_w6_rows_that_depend_on_one_another_are_refused_whatever_they_weigh() -> None:
    """The parts weigh as their labels do; a loss on the router is of all rows."""
    kind, _ = KINDS["Mixtral"]
    routed = Kind(
        lambda: made("Mixtral", router_aux_loss_coef=0.5), kind.rows, kind.collate
    )
    with pytest.raises(ConfigError, match="of a batch's gradient belongs to"):
        routed.trainer((8,), times=2).train()
