"""A description in JSON rebuilds model and processor without any folder."""

import json

import pytest
import torch

from trainbus_models.packing import describe_model, rebuild_model
from training.errors import CheckpointError


def test_a_description_survives_json_and_rebuilds_both(tiny, encode):
    description = describe_model(tiny["model"], tiny["processor"], "blip")
    rebuilt = rebuild_model(json.loads(json.dumps(description)))
    model = rebuilt["model"].eval()
    model.load_state_dict(tiny["model"].state_dict())
    inputs = encode(["is it red?"])
    assert torch.equal(model.generate(**inputs), tiny["model"].generate(**inputs))
    again = rebuilt["processor"]
    assert (
        again.tokenizer("dark red")["input_ids"]
        == (tiny["processor"].tokenizer("dark red")["input_ids"])
    )
    assert again.image_processor.size == tiny["processor"].image_processor.size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"model_type": "vilt"}, "of type 'vilt'", id="another family"),
        pytest.param({"format": 99}, "format 99", id="a later format"),
        pytest.param({"config": None}, "damaged", id="no configuration"),
        pytest.param({"processor_files": {}}, "damaged", id="no processor"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tiny, changes, message):
    description = describe_model(tiny["model"], tiny["processor"], "blip") | changes
    with pytest.raises(CheckpointError, match=message):
        rebuild_model(description)


def test_a_foreign_description_cannot_write_outside_its_folder(tiny, tmp_path):
    description = describe_model(tiny["model"], tiny["processor"], "blip")
    description["processor_files"][f"{tmp_path}/escaped.json"] = "{}"
    rebuild_model(description)
    assert list(tmp_path.iterdir()) == []
