"""Adapters in a run: they alone train, are saved, resumed, predicted with, exported."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from chats import chat

from trainbus_data.captioning.task import Captioning
from trainbus_data.images.picture import Picture
from trainbus_data.vqa.synthetic import write_shapes
from training import (
    CheckpointError,
    ConfigError,
    Trainer,
    create_trainer_from_config,
)
from training.app.cli import main
from training.checkpoint_io import read_checkpoint, write_checkpoint

needs_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None,
    reason="the package peft is not installed (extra lora)",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``base``, a saved model, and ``shapes``, its data."""
    folder = tmp_path_factory.mktemp("world")
    shapes = write_shapes(folder / "drawn", 32, 8, about="captions")
    shapes.rename(folder / "shapes")
    lines = (folder / "shapes" / "train.jsonl").read_text().splitlines()
    family = chat(Captioning())
    rows = [json.loads(line) for line in lines]
    family.export(*family.build(rows, hidden_size=128), folder / "base")
    return folder


def config_of(world: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    data = {"train": "train.jsonl", "validation": "val.jsonl"}
    config = {
        "task": "captioning",
        "seed": 1,
        "data": {**data, "root": str(world / "shapes"), "batch_size": 8},
        "model": {
            "type": "chat",
            "name": str(world / "base"),
            "lora": {"target_modules": ["q_proj", "v_proj"], "r": 2},
        },
        "training": {
            "num_epochs": 2,
            "save_dir": str(folder),
            "device": "cpu",
            "optimizer": {"type": "adamw", "lr": 1e-2},
        },
        "plugins": [
            {"checkpointing": {"monitor": None, "weights": "trained"}},
        ],
    }
    for section, values in changes.items():
        is_section = isinstance(config.get(section), dict)
        config[section] = {**config[section], **values} if is_section else values
    return config


def run(world: Path, folder: Path, **changes: Any) -> Path:
    """Train, and return the last checkpoint."""
    trainer = create_trainer_from_config(config_of(world, folder, **changes))
    trainer.train()
    last: Path = trainer.plugins["checkpointing"].last_path
    return last


@pytest.fixture(scope="module")
def trained(world: Path) -> Path:
    return run(world, world / "run")


@needs_peft
def test_only_adapters_are_trained_and_saved(world: Path, trained: Path) -> None:
    state = read_checkpoint(trained)
    assert all("lora_" in name for name in state["trainable"])
    saved = {f"model.{name}" for name in state["model"]}
    assert saved == set(state["trainable"])
    kept = sum(value.nbytes for value in state["model"].values())
    base = sum(v.nbytes for v in base_weights(world).values())
    assert kept < (kept + base) / 20


def base_weights(world: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(world / "base" / "model.safetensors")


@needs_peft
def test_a_run_goes_on_bit_for_bit(world: Path, trained: Path, tmp_path: Path) -> None:
    half = run(world, tmp_path / "half", training={"max_steps": 3})
    config = config_of(world, tmp_path / "rest")
    trainer = create_trainer_from_config(config)
    trainer.load_checkpoint(half, allow_changes=["max_steps"])
    trainer.train()
    last = read_checkpoint(trainer.plugins["checkpointing"].last_path)
    through = read_checkpoint(trained)
    assert last["progress"]["step"] == through["progress"]["step"] == 8
    for name, value in through["model"].items():
        assert torch.equal(last["model"][name], value), name


def said_by(model: Any, processor: Any, world: Path) -> list[str]:
    family = chat(Captioning())
    paths = sorted((world / "shapes" / "val" / "images").iterdir())
    rows = [{"image": Picture(path.name, str(path))} for path in paths]
    with torch.no_grad():
        return family.predict(model.eval(), processor, family.collate(processor, rows))


@needs_peft
def test_a_checkpoint_alone_predicts(
    world: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = world / "shapes" / "val" / "images" / "00000.png"
    main(["predict", "--checkpoint", str(trained), "--field", f"image={image}"])
    assert capsys.readouterr().out.strip()


@needs_peft
def test_both_exports_load_elsewhere_and_answer_alike(
    world: Path, trained: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    merged, alone = tmp_path / "merged", tmp_path / "alone"
    main(["export", str(trained), str(merged)])
    main(["export", str(trained), str(alone), "--adapter"])
    processor = AutoProcessor.from_pretrained(merged)
    auto = AutoModelForImageTextToText
    whole = auto.from_pretrained(merged, dtype=torch.float32)
    beside = PeftModel.from_pretrained(auto.from_pretrained(world / "base"), alone)
    assert {p.name for p in alone.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    answers = said_by(whole, processor, world)
    assert answers == said_by(beside, processor, world)
    base = auto.from_pretrained(world / "base")
    assert answers != said_by(base, processor, world)


@needs_peft
def test_an_evaluation_uses_the_base_with_the_adapters(
    world: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = world / "run" / "config.yaml"
    main(["evaluate", str(config), "--checkpoint", str(trained)])
    assert "8 validation rows" in capsys.readouterr().out


@needs_peft
def test_another_base_is_refused(world: Path, trained: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    weights = base_weights(world)
    name = next(name for name in weights if name.endswith("down_proj.weight"))
    weights[name] = weights[name] + 1e-3
    other = tmp_path / "other"
    other.mkdir()
    for path in (world / "base").iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    model = {**config_of(world, tmp_path)["model"], "name": str(other)}
    trainer = create_trainer_from_config(config_of(world, tmp_path, model=model))
    with pytest.raises(CheckpointError, match="load the same base model"):
        trainer.load_checkpoint(trained)


@needs_peft
def test_a_file_of_weights_is_not_made_of_adapters(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(trained), str(tmp_path / "a.safetensors")]) != 0
    assert "holds trained weights alone" in capsys.readouterr().err


@needs_peft
def test_a_file_of_adapters_of_ones_own_says_that_they_are_not_merged(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    from peft import LoraConfig, get_peft_model

    base = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    model: Any = get_peft_model(base, LoraConfig(target_modules=["0"], r=2))
    trainer = Trainer(
        model,
        [(torch.ones(2, 4), torch.ones(2, 2))],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=torch.nn.functional.mse_loss,
    )
    file, out = trainer.save_checkpoint(tmp_path / "a.pt"), tmp_path / "w.safetensors"
    assert main(["export", str(file), str(out)]) == 0
    assert "w.safetensors has adapters beside the weights" in caplog.text
    assert "model.merge_and_unload().save_pretrained(FOLDER)" in caplog.text
    assert main(["export", "--adapter", str(file), str(tmp_path / "folder")]) == 4
    assert "model.merge_and_unload()" in capsys.readouterr().err


@needs_peft
def test_adapters_are_not_written_as_a_folder_that_is_named_as_a_file(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No model is built for that: the base of this one is gone."""
    state, lone = read_checkpoint(trained), tmp_path / "lone.pt"
    described = {**state["metadata"]["model"], "base": str(tmp_path / "gone")}
    state["metadata"] = {**state["metadata"], "model": described}
    write_checkpoint(lone, state)
    for name in ("a.safetensors", "a.onnx"):
        out = tmp_path / name
        assert main(["export", str(lone), str(out), "--adapter"]) == 2
        assert f"as a folder; name {str(tmp_path / 'a')!r}" in capsys.readouterr().err
        assert not out.exists()


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        pytest.param({}, "target_modules is missing", id="no names"),
        pytest.param(
            {"target_modules": ["q_proj"], "rank": 4}, "'rank'|rank is", id="unknown"
        ),
        pytest.param({"target_modules": ["q_proj"], "r": 0}, "r is 0", id="no rank"),
    ],
)
def test_a_mistake_is_told_before_there_is_a_model(
    world: Path, tmp_path: Path, lora: dict[str, Any], message: str
) -> None:
    config = config_of(world, tmp_path)
    config["model"] = {**config["model"], "lora": lora, "name": "no/such/model"}
    with pytest.raises(ConfigError, match=message):
        create_trainer_from_config(config)


@needs_peft
@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"lora": 5}, "description of its model is damaged", id="options"),
        pytest.param({"freeze": 5}, "description of its model is damaged", id="names"),
        pytest.param({"base": None}, "holds trained weights alone", id="no base"),
        pytest.param({"base": "./gone"}, "gone", id="a base that is gone"),
    ],
)
def test_a_description_that_does_not_fit_is_told(
    trained: Path,
    tmp_path: Path,
    change: dict[str, Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = read_checkpoint(trained)
    state["metadata"]["model"] |= change
    path = tmp_path / "changed.pt"
    torch.save(state, path)
    code = main(["predict", "--checkpoint", str(path), "--field", "image=a.png"])
    told = capsys.readouterr().err
    assert code in (2, 4)
    assert message in told
    assert "Traceback" not in told
