"""``trainbus export``: weights that other programs read."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoProcessor, BlipForQuestionAnswering

import training
from training import ModelCheckpointCallback, Trainer
from training.checkpoint_io import read_checkpoint, write_checkpoint

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def checkpoint(workplace: Path, command: Command) -> Path:
    """Return the last checkpoint of a short run."""
    code, _, err = command("run", "run.yaml")
    assert code == 0, err
    return next((workplace / "out" / "checkpoints").glob("*.pt"))


def test_a_file_holds_every_weight_under_its_name(
    checkpoint: Path, workplace: Path, command: Command
) -> None:
    code, out, err = command("export", str(checkpoint), "w.safetensors")
    assert code == 0, err
    assert "w.safetensors: the weights of" in out
    assert "epoch 1, step 2" in out
    weights, saved = load_file("w.safetensors"), read_checkpoint(checkpoint)["model"]
    assert weights.keys() == saved.keys()
    assert all(torch.equal(weights[name], saved[name]) for name in saved)


@pytest.mark.parametrize("target", ["folder", "w.safetensors"])
def test_where_the_disk_takes_no_more_the_place_is_told_in_a_sentence(
    checkpoint: Path, workplace: Path, command: Command, target: str
) -> None:
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, most[1]))  # as if it were full
    try:
        code, _, err = command("export", str(checkpoint), target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert code in (2, 3)
    assert target in err
    assert "Traceback" not in err
    assert not (workplace / target).exists()


def test_a_file_that_left_nothing_out_is_exported_whole(
    checkpoint: Path, workplace: Path, command: Command
) -> None:
    state = {**read_checkpoint(checkpoint), "left_out": {"names": [], "digest": ""}}
    write_checkpoint(workplace / "a.pt", state)
    for target in ("w.safetensors", "folder"):
        code, _, err = command("export", "a.pt", target)
        assert code == 0, err
    weights = load_file(workplace / "w.safetensors")
    assert weights.keys() == state["model"].keys()


def test_a_folder_is_read_by_transformers_alone(
    checkpoint: Path, workplace: Path, command: Command
) -> None:
    code, _, err = command("export", str(checkpoint), "folder")
    assert code == 0, err
    model = BlipForQuestionAnswering.from_pretrained("folder", local_files_only=True)
    AutoProcessor.from_pretrained("folder", local_files_only=True)
    saved = read_checkpoint(checkpoint)["model"]
    own = model.state_dict()
    assert own.keys() == saved.keys()
    assert all(torch.equal(own[name], saved[name]) for name in saved)


def _own_trainer(*callbacks: object) -> Trainer:
    """Return a trainer of a model that no recipe built; half of it is frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1)
    return Trainer(
        model,
        [torch.ones(1, 2)],
        optimizer=optimizer,
        step_fn=lambda model, batch: model(batch).mean(),
        device="cpu",
        save_dir="out",
        plugins=["no:progress"],
        callbacks=list(callbacks),
    )


@pytest.fixture
def own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Linear:
    """Return a model made in Python, whose checkpoint is ``a.pt``."""
    monkeypatch.chdir(tmp_path)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, [(torch.ones(1, 2),)], optimizer=optimizer, device="cpu")
    trainer.save_checkpoint("a.pt")
    return model


def test_a_checkpoint_of_ones_own_model_predicts_by_the_line_that_the_refusal_names(
    own_model: nn.Linear, command: Command
) -> None:
    code, _, err = command("predict", "--checkpoint", "a.pt", "--field", "x=1")
    assert code == 4
    model = nn.Linear(2, 1)
    exec(err.partition("fill it: ")[2], {"model": model, "training": training})
    assert torch.equal(model.weight, own_model.weight)


def test_a_checkpoint_of_ones_own_model_exports_as_a_file_only(
    own_model: nn.Linear, command: Command
) -> None:
    code, _, err = command("export", "a.pt", "folder")
    assert (code, "name a file instead: folder.safetensors" in err) == (4, True)
    assert command("export", "a.pt", "folder.safetensors")[0] == 0
    assert torch.equal(load_file("folder.safetensors")["weight"], own_model.weight)


@pytest.mark.parametrize("target", ["folder", "w.safetensors"])
def test_adapters_of_ones_own_whole_model_are_answered_with_the_command_that_works(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.chdir(tmp_path)
    _own_trainer().save_checkpoint("a.pt")
    code, _, err = command("export", "--adapter", "a.pt", target)
    way = f"name a file instead, without --adapter: {Path(target).stem}.safetensors"
    assert (code, way in err, "safetensors.safetensors" in err) == (4, True, False)


def test_trained_weights_of_ones_own_model_are_sent_to_the_model_not_in_a_circle(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    callback = ModelCheckpointCallback(monitor=None, weights="trained")
    _own_trainer(callback).train()
    (file,) = Path("out", "checkpoints").glob("*.pt")
    for arguments in (["w.safetensors"], ["folder"], ["--adapter", "folder"]):
        *options, target = arguments
        code, _, err = command("export", *options, str(file), target)
        assert (code, "load_checkpoint(FILE, weights_only=True)" in err) == (4, True)
    again = _own_trainer()
    again.load_checkpoint(file, weights_only=True)
    again.save_checkpoint("whole.pt")
    assert command("export", "whole.pt", "w.safetensors")[0] == 0


def test_of_a_sharded_checkpoint_adapters_are_not_written_as_one_file_of_its_state(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.ckpt").mkdir()  # of which nothing can be read
    code, _, err = command("export", "a.ckpt", "w.pt", "--adapter")
    assert (code, "adapters are written as a folder; name 'w'" in err) == (2, True)
    code, _, err = command("export", "a.ckpt", "w.PT")
    assert (code, "named as a file" in err) == (4, False)


@pytest.mark.parametrize("out", ["folder", "w.safetensors"])
def test_of_a_checkpoint_without_adapters_that_is_said_first(
    checkpoint: Path, command: Command, out: str
) -> None:
    code, _, err = command("export", "--adapter", str(checkpoint), out)
    assert (code, "has no adapters; leave --adapter out" in err) == (4, True)


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("a.pt", "exists"),
        ("no/such/w.safetensors", "does not exist"),
        ("w.pt", "name 'w.safetensors', or a folder"),
        ("w.bin", "name 'w.safetensors', or a folder"),
        ("w.onnx", "name 'w.safetensors', or a folder"),
        ("w.npz", "name 'w.safetensors', or a folder"),
        ("w.SAFETENSORS", "name 'w.safetensors', or a folder"),
        ("w.Pth", "name 'w.safetensors', or a folder"),
        ("--adapter w.bin", "adapters are written as a folder; name 'w'"),
    ],
)
def test_where_nothing_can_be_written_is_said_before_anything_is_read(
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    out: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.pt").write_text("not even a checkpoint")
    code, _, err = command("export", "a.pt", *out.split())
    assert (code, said in err) == (2, True)
