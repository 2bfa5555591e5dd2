"""A setting in the wrong section is told with the whole path that it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from training import ConfigError
from training.app.config.load import load_config


def refusal(folder: Path, override: str) -> str:
    path = folder / "c.yaml"
    path.write_text("data: {train: a}\nmodel: {name: m}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path, [override])
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.lr=1", "training.lr is not a setting (did you mean training.opt"),
        ("lr=1", "lr is not a setting (did you mean training.optimizer.lr?); known"),
        ("optimizer.lr=1", "(did you mean training.optimizer.lr?); known here: data,"),
        ("optimizer={lr: 1, eps: 2}", "(did you mean training.optimizer?); known"),
        ("training.batch_size=2", "(did you mean data.batch_size?); known here: comp"),
        ("data.num_epochs=2", "(did you mean training.num_epochs?); known here: bat"),
        ("training.type=sgd", "(did you mean model.type or training.optimizer.type?)"),
        ("optimizer.depth=1", "optimizer is not a setting; known here: data"),
        ("training.max_step=1", "(did you mean 'max_steps'?); known here: compile"),
        ("training.epochs=2", "(did you mean 'num_epochs'?); known here: compile"),
        ("training.loss_fn=2", "training.loss_fn is not a setting; known here: comp"),
        ("training.warmup=2", "training.warmup is not a setting; known here: comp"),
    ],
)
def test_a_setting_of_another_section_is_told_with_its_whole_path(
    override: str, says: str, tmp_path: Path
) -> None:
    assert says in refusal(tmp_path, override)
