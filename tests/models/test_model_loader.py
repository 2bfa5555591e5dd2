"""A model loads from a folder or a hub name, or says in one sentence why not."""

import json

import pytest
import torch

from trainbus_models.blip.model import BlipVQA
from trainbus_models.model_loader import load_model
from training.errors import ConfigError


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("blip")
    tiny["model"].save_pretrained(path)
    tiny["processor"].save_pretrained(path)
    return path


def test_a_folder_gives_model_and_processor_with_the_same_answers(folder, tiny, encode):
    loaded = load_model(str(folder), "blip", "vqa", device="cpu", load_processor=True)
    assert type(loaded["model"]) is BlipVQA
    assert not loaded["model"].training
    inputs = encode(["is it red?"])
    assert torch.equal(
        loaded["model"].generate(**inputs), tiny["model"].generate(**inputs)
    )
    assert loaded["processor"].tokenizer("yes") == tiny["processor"].tokenizer("yes")


def test_the_processor_comes_only_when_asked_for(folder):
    assert set(load_model(folder, "blip", "vqa", device="cpu")) == {"model"}


def test_weights_are_float32_whatever_the_file_holds(tiny, tmp_path):
    model = BlipVQA(tiny["model"].config).to(torch.float16)
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, "blip", "vqa", device="cpu")["model"]
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"model_type": "blpi"}, r"did you mean 'blip'.*; installed are: blip",
            id="an unknown family",
        ),
        pytest.param({"task": "caption"}, "task is 'caption'; blip does: vqa",
                     id="an unknown task"),
        pytest.param({"device": "gpu"}, "device is 'gpu'; use", id="no device"),
        pytest.param({"model_name": "./none"}, "not a folder here", id="no folder"),
        pytest.param({"model_name": "a/b/c"}, "not a folder here", id="no long path"),
        pytest.param({"model_name": "someone/unknown-model-x"}, "hf download someone/",
                     id="a name that no cache holds"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_refused(folder, monkeypatch, changes, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    settings = {"model_name": str(folder), "model_type": "blip", "task": "vqa"}
    with pytest.raises(ConfigError, match=message):
        load_model(**(settings | {"device": "cpu"} | changes))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_cuda_is_refused(folder):
    with pytest.raises(ConfigError, match="PyTorch sees 0 CUDA devices"):
        load_model(folder, "blip", "vqa", device="cuda")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_and_answering_run_on_a_gpu(folder, encode):
    model = load_model(folder, "blip", "vqa", device="cuda")["model"]
    inputs = {k: v.cuda() for k, v in encode(["is it red?"], ["yes"]).items()}
    model(**inputs).loss.backward()
    keys = ("input_ids", "pixel_values", "attention_mask")
    model.generate(**{key: inputs[key] for key in keys})


def edit_config(path, **changes):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


NO_CONFIGURATION = r"config\.json is missing or not"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(
            '{"model_type": "vilt"}', "says model_type 'vilt'", id="of another family"
        ),
        pytest.param(None, NO_CONFIGURATION, id="without a configuration"),
        pytest.param("{", NO_CONFIGURATION, id="whose configuration is torn"),
        pytest.param("[]", NO_CONFIGURATION, id="whose configuration is a list"),
    ],
)
def test_a_folder_is_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=words):
        load_model(tmp_path, "blip", "vqa", device="cpu")


def test_a_captioning_checkpoint_is_refused_instead_of_trained_from_random(
    tiny, tmp_path
):
    from transformers import BlipForConditionalGeneration

    BlipForConditionalGeneration(tiny["model"].config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"holds no BLIP for vqa: .* \d+ weights"):
        load_model(tmp_path, "blip", "vqa", device="cpu")


def test_damaged_weights_are_a_clear_error(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ConfigError, match="cannot be loaded: "):
        load_model(tmp_path, "blip", "vqa", device="cpu")
