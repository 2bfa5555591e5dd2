"""From a configuration to a trainer: model, optimizer, processor, plugins."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from training import Callback, create_trainer_from_config
from training.app.building.optimizer import build_optimizer
from training.app.building.saved_model import SavedModel
from training.app.config.schema import OptimizerConfig, TrainingConfig
from training.checkpoint_io import read_checkpoint
from training.errors import ConfigError, PluginError


class Counting(Callback):
    name = "counting"

    def __init__(self) -> None:
        self.batches = 0

    def on_batch_end(self, trainer: Any, batch: int, logs: Any, **kwargs: Any) -> None:
        self.batches += 1


def test_a_run_leaves_its_record(workplace: Path) -> None:
    counting = Counting()
    trainer = create_trainer_from_config("run.yaml", callbacks=[counting])
    trainer.train()
    summary = json.loads((workplace / "out/summary.json").read_text())
    assert counting.batches == 2
    assert summary["stop_reason"] == "num_epochs=1 reached"
    assert summary["stop_owner"] == "trainer"
    assert (summary["epochs"], summary["steps"], summary["updates"]) == (1, 2, 2)
    assert summary["final"]["epoch"] == 1
    assert summary["best"][0]["monitor"] == "accuracy"
    assert summary["plugins"]["evaluation"]["distribution"] == "trainbus-evaluation"
    assert summary["data"]["floors"]["most_frequent"]["all"] == 0.25
    for name in ("config", "history", "best_checkpoint"):
        assert (workplace / summary["paths"][name]).is_file()


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ({"plugins": ["no:csv"]}, r"argument: plugins.no:csv: plugin 'no:csv' is not"),
        ({"plugins": [{"csv": {"fil": 1}}]}, r"argument: plugins.csv.fil"),
        ({"num_epochs": -1}, r"argument: training.num_epochs"),
        ({"seed": "x"}, r"argument: seed"),
        ({"optimizer": {"lr": -1.0}}, r"argument: training.optimizer.lr"),
        ({"scheduler": {"typ": "cosine"}}, r"argument: plugins.lr_scheduling.typ is"),
        ({"early_stopping": {"patienc": 3}}, r"argument: plugins.early_stopping.pat"),
        ({"task": "nope"}, r"argument: task: task 'nope' is not installed"),
        ({"model_type": "nope"}, r"argument: model.type: model family 'nope'"),
    ],
    ids=str,
)
def test_a_mistake_in_an_argument_is_not_blamed_on_the_file(
    workplace: Path, argument: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        create_trainer_from_config("run.yaml", **argument)
    assert "run.yaml" not in str(caught.value)


@pytest.mark.parametrize("hook", ["on_train_begin", "on_step_end", "on_train_end"])
def test_a_change_of_the_working_directory_moves_no_record(
    workplace: Path, hook: str
) -> None:
    (workplace / "elsewhere").mkdir()
    moves = Callback()
    setattr(moves, hook, lambda: os.chdir(workplace / "elsewhere"))
    create_trainer_from_config("run.yaml", callbacks=[moves]).train()
    assert Path.cwd() == workplace / "elsewhere"
    assert list(Path.cwd().iterdir()) == []
    summary = json.loads((workplace / "out/summary.json").read_text())
    for name in ("config", "history", "best_checkpoint", "last_checkpoint"):
        assert (workplace / summary["paths"][name]).is_file()


def test_a_checkpoint_can_rebuild_model_and_processor(workplace: Path) -> None:
    trainer = create_trainer_from_config("run.yaml")
    trainer.train()
    path = json.loads((workplace / "out/summary.json").read_text())["paths"]
    metadata = read_checkpoint(path["best_checkpoint"])["metadata"]
    model, recipe = SavedModel("a.pt", metadata["model"]).rebuilt()
    model.load_state_dict(trainer.model.state_dict())
    tokens = recipe.processor.tokenizer("what color?")["input_ids"]
    assert tokens == trainer.processor.tokenizer("what color?")["input_ids"]


def test_frozen_parameters_are_not_in_the_optimizer(workplace: Path) -> None:
    freeze = {"enabled": True, "layers": ["vision_model"]}
    trainer = create_trainer_from_config("run.yaml", freeze=freeze)
    trained = {id(p) for g in trainer.optimizer.param_groups for p in g["params"]}
    model: Any = trainer.model
    assert not trained & {id(p) for p in model.vision_model.parameters()}
    assert trained >= {id(p) for p in model.text_encoder.parameters()}


def test_the_same_seed_gives_the_same_weights(workplace: Path) -> None:
    weights = []
    for _ in range(2):
        trainer = create_trainer_from_config("run.yaml", seed=3)
        trainer.train()
        weights.append(trainer.model.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_speed_options_come_from_a_file_or_an_argument(workplace: Path) -> None:
    path = workplace / "run.yaml"
    text = path.read_text()
    options = "training:\n  tf32: true\n  compile: {backend: eager}\n"
    path.write_text(text.replace("training:\n", options))
    trainer = create_trainer_from_config("run.yaml")
    assert trainer.tf32
    trainer.train()
    assert hasattr(trainer._run.window.model, "_orig_mod")
    changed = create_trainer_from_config("run.yaml", tf32=False, compile=False)
    changed.train()
    assert changed.tf32 is False
    assert not hasattr(changed._run.window.model, "_orig_mod")
    with pytest.raises(ConfigError, match="Invalid backend: 'nope'"):
        create_trainer_from_config("run.yaml", compile={"backend": "nope"})


def test_each_setting_of_training_is_an_argument_too(workplace: Path) -> None:
    arguments = inspect.signature(create_trainer_from_config).parameters
    assert TrainingConfig.model_fields.keys() <= arguments.keys()
    trainer = create_trainer_from_config("run.yaml", stop_on_sigusr1=True)
    assert trainer.stop_on_sigusr1


def test_an_instance_replaces_the_default_plugin_of_its_name(workplace: Path) -> None:
    from training import CSVLoggerCallback

    text = (workplace / "run.yaml").read_text().partition("plugins:")[0]
    (workplace / "plain.yaml").write_text(text)
    mine = CSVLoggerCallback(filename="mine.csv")
    trainer = create_trainer_from_config("plain.yaml", callbacks=[mine])
    assert trainer.plugins["csv"] is mine
    assert {"progress", "evaluation", "checkpointing"} <= set(trainer.plugins)


def test_plugins_in_python_replace_the_list_of_the_file(workplace: Path) -> None:
    trainer = create_trainer_from_config(
        "run.yaml", plugins=["csv", {"csv": {"id": "two", "filename": "two.csv"}}]
    )
    assert set(trainer.plugins) == {"csv", "two", "run_record"}
    assert trainer.val_dataloader is None, "nobody would measure on it"


def test_a_mapping_is_a_configuration_too(workplace: Path) -> None:
    trainer = create_trainer_from_config(
        {
            "data": {"train": "rows/train.jsonl"},
            "model": {"build": {"hidden_size": 16}},
        },
        plugins=[],
        device=torch.device("cpu"),
        optimizer={"betas": (0.8, 0.9)},
    )
    assert trainer.optimizer.param_groups[0]["betas"] == (0.8, 0.9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param({"num_epochs": True}, "num_epochs is true", id="a bool"),
        pytest.param({"optimizer": {"lrr": 1}}, "did you mean 'lr'", id="an option"),
        pytest.param({"freeze": {"layers": ["vison"]}}, "matches no part", id="freeze"),
        pytest.param({"device": "gpu"}, "device is 'gpu'", id="a device"),
        pytest.param({"model_name": "m"}, "keep one of them", id="two models"),
        pytest.param(
            {"plugins": [{"csv": {"file": 1}}]}, "csv.file is no option", id="p"
        ),
        pytest.param(
            {"data_config_path": "no.yaml"}, "cannot read no.yaml", id="a file"
        ),
    ],
)
def test_a_wrong_argument_is_refused_and_nothing_is_written(
    arguments: dict[str, Any], words: str, workplace: Path
) -> None:
    before = sorted(workplace.rglob("*"))
    with pytest.raises(ConfigError, match=words):
        create_trainer_from_config("run.yaml", **arguments)
    assert sorted(workplace.rglob("*")) == before


def test_a_callback_and_a_plugin_of_one_name_are_refused(workplace: Path) -> None:
    from training import CSVLoggerCallback

    with pytest.raises(PluginError, match="two plugins are named 'csv'"):
        create_trainer_from_config(
            "run.yaml", callbacks=[CSVLoggerCallback()], plugins=["csv"]
        )


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        pytest.param({"type": "adamw"}, torch.optim.AdamW, id="adamw"),
        pytest.param({"type": "adam", "eps": 1e-6}, torch.optim.Adam, id="adam"),
        pytest.param({"type": "sgd", "momentum": 0.9}, torch.optim.SGD, id="sgd"),
    ],
)
def test_an_optimizer_is_of_its_type(config: dict[str, Any], kind: type[Any]) -> None:
    optimizer = build_optimizer(torch.nn.Linear(2, 2), OptimizerConfig(**config))
    assert type(optimizer) is kind
    for name in config.keys() - {"type"}:
        assert optimizer.param_groups[0][name] == config[name]


def test_vectors_can_be_left_out_of_the_decay() -> None:
    model = torch.nn.Linear(3, 2)
    config = OptimizerConfig(weight_decay=0.5, no_decay_on_vectors=True)
    groups = build_optimizer(model, config).param_groups
    assert [(g["weight_decay"], g["params"]) for g in groups] == [
        (0.5, [model.weight]),
        (0.0, [model.bias]),
    ]


def test_a_wholly_frozen_model_is_refused() -> None:
    model = torch.nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        build_optimizer(model, OptimizerConfig())


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.cuda,
                pytest.mark.skipif(
                    not torch.cuda.is_available(), reason="needs a CUDA device"
                ),
            ],
        ),
    ],
)
def test_an_optimizer_is_fused_where_its_parameters_are_on_a_gpu(
    kind: Any, device: str
) -> None:
    model = torch.nn.Linear(2, 2).to(device)
    optimizer = build_optimizer(model, OptimizerConfig(type=kind))
    assert optimizer.defaults["fused"] is (device == "cuda")


def test_a_function_as_a_metric_is_none_of_the_tasks(workplace: Path) -> None:
    def mine(outputs: Any, targets: Any) -> float:
        return 0.0

    plugins = [{"evaluation": {"metrics": ["loss", mine]}}]
    with pytest.raises(ConfigError, match=r"metrics has <function.*the task 'vqa'"):
        create_trainer_from_config("run.yaml", plugins=plugins)
