"""The guide's older keys mean what the guide says, and are translated in one place."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from training.app.building.factory import create_trainer_from_config
from training.app.config.load import Config, compose
from training.documents.document import Document
from training.errors import ConfigError

DATA = {
    "task_type": "vqa",
    "data_paths": {"train": "a", "validation": "b", "test": None},
}


def config_of(*sources: dict[str, Any]) -> Config:
    documents = []
    for values in ({"model": {"name": "m"}}, DATA, *sources):
        document = Document()
        document.tree = copy.deepcopy(values)
        documents.append(document)
    return compose(documents)


def test_data_paths_are_the_data_section() -> None:
    config = config_of()
    assert (config.data.train, config.data.validation) == (Path("a"), Path("b"))
    assert config.data.test is None


@pytest.mark.parametrize(
    ("training", "precision"),
    [
        pytest.param({"fp16": True}, "fp16", id="true"),
        pytest.param({"fp16": False}, "fp32", id="false"),
        pytest.param(
            {"fp16": False, "precision": "bf16"}, "bf16", id="false beside bf16"
        ),
        pytest.param({"fp16": True, "precision": "fp16"}, "fp16", id="both agree"),
    ],
)
def test_fp16_is_a_precision(training: dict[str, Any], precision: str) -> None:
    assert config_of({"training": training}).training.precision == precision


@pytest.mark.parametrize(
    ("training", "plugin", "options"),
    [
        pytest.param(
            {"scheduler": {"type": "cosine"}},
            "lr_scheduling",
            {"type": "cosine"},
            id="scheduler",
        ),
        pytest.param(
            {"early_stopping": {"enabled": True, "patience": 3}},
            "early_stopping",
            {"patience": 3},
            id="early stopping",
        ),
        pytest.param(
            {"early_stopping": {"patience": 3}},
            "early_stopping",
            {"patience": 3},
            id="a section without `enabled` is on",
        ),
        pytest.param({"early_stopping": True}, "early_stopping", {}, id="just true"),
        pytest.param({"use_tensorboard": True}, "tensorboard", {}, id="tensorboard"),
    ],
)
def test_a_section_enables_its_plugin(
    training: dict[str, Any], plugin: str, options: dict[str, Any]
) -> None:
    config = config_of({"training": training})
    assert config.plugins[plugin].options == options
    assert "evaluation" in config.plugins, "beside the defaults"


@pytest.mark.parametrize(
    "training",
    [
        pytest.param({"early_stopping": {"enabled": False, "patience": 3}}, id="off"),
        pytest.param({"early_stopping": None}, id="null"),
        pytest.param({"use_tensorboard": False}, id="no tensorboard"),
    ],
)
def test_a_section_that_is_off_enables_nothing(training: dict[str, Any]) -> None:
    config = config_of({"training": training})
    assert set(config.plugins) == {"progress", "csv", "evaluation", "checkpointing"}


def test_a_later_source_switches_off_what_an_earlier_one_enabled() -> None:
    on = {"training": {"early_stopping": {"enabled": True}}}
    off = {"training": {"early_stopping": {"enabled": False}}}
    assert "early_stopping" not in config_of(on, off).plugins


def test_a_section_switches_off_what_its_own_source_lists_under_an_id() -> None:
    listed = ["csv", {"early_stopping": {"id": "own"}}]
    off = {"early_stopping": {"enabled": False}}
    assert list(config_of({"training": off, "plugins": listed}).plugins) == ["csv"]


def test_a_section_changes_a_listed_plugin() -> None:
    listed = {"plugins": [{"early_stopping": {"patience": 3, "mode": "max"}}]}
    changed = {"training": {"early_stopping": {"patience": 9}}}
    config = config_of(listed, changed)
    assert list(config.plugins) == ["early_stopping"]
    assert config.plugins["early_stopping"].options == {"patience": 9, "mode": "max"}


def test_a_plugin_given_twice_in_one_source_is_refused() -> None:
    both = {
        "plugins": [{"early_stopping": {"patience": 3}}],
        "training": {"early_stopping": {"patience": 9}},
    }
    with pytest.raises(ConfigError, match="they mean the same; keep one"):
        config_of(both)


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        pytest.param({"enabled": True, "layers": ["a"]}, ["a"], id="on"),
        pytest.param({"enabled": False, "layers": ["a"]}, [], id="off"),
        pytest.param({"layers": ["a"]}, ["a"], id="without `enabled`"),
    ],
)
def test_freeze_belongs_to_the_model(freeze: dict[str, Any], frozen: list[str]) -> None:
    assert config_of({"training": {"freeze": freeze}}).model.freeze == frozen


def test_the_factory_knows_every_argument_of_the_guide(workplace: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        create_trainer_from_config(
            data_config_path=workplace / "run.yaml",
            model_name="m",
            model_type="blip",
            task="caption",
            num_epochs=0,
            fp16=True,
            gradient_accumulation_steps=2,
            max_grad_norm=1.0,
            save_dir="checkpoints",
            optimizer={"type": "adamw", "lr": 3e-5, "weight_decay": 0.01},
            scheduler={"type": "cosine"},
            early_stopping={"enabled": True, "monitor": "val_loss", "patience": 3},
            use_tensorboard=True,
            freeze={"enabled": True, "layers": ["vision_model"]},
            device="cpu",
        )
    told = str(caught.value)
    assert "training.num_epochs is 0, but must be at least 1" in told
    assert "task 'caption' is not installed" in told
