"""A description in JSON rebuilds model and processor without any folder."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from trainbus_models.blip.family import Blip
from training.app.building.saved_model import SavedModel
from training.errors import CheckpointError


@pytest.fixture(params=[1, 2], ids=["format 1", "format 2"])
def description(tiny: dict[str, Any], request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return what a checkpoint says of its model, as it was and as it is written."""
    told = Blip().describe(tiny["model"], tiny["processor"])
    if request.param == 1:
        return {"format": 1, "model_type": "blip", **told}
    parts = {"task": {"name": "vqa"}, "family": {"name": "blip", "options": {}}}
    return {"format": 2, **parts, "model": told}


def model_of(description: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = description.get("model", description)
    return found


def test_a_description_survives_json_and_rebuilds_both(description, tiny, encode):
    model, recipe = SavedModel("a.pt", json.loads(json.dumps(description))).rebuilt()
    model.eval()
    model.load_state_dict(tiny["model"].state_dict())
    inputs = encode(["is it red?"])
    assert torch.equal(model.generate(**inputs), tiny["model"].generate(**inputs))
    ours, theirs = recipe.processor, tiny["processor"]
    words = "dark red"
    assert ours.tokenizer(words)["input_ids"] == theirs.tokenizer(words)["input_ids"]
    assert ours.image_processor.size == theirs.image_processor.size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"config": None}, "damaged", id="no configuration"),
        pytest.param({"processor_files": {}}, "damaged", id="no processor"),
    ],
)
def test_a_damaged_description_is_refused(description, changes, message):
    model_of(description).update(changes)
    with pytest.raises(CheckpointError, match=message):
        SavedModel("a.pt", description).rebuilt()


def test_a_later_format_is_refused(description):
    with pytest.raises(CheckpointError, match="in format 99; this version rebuilds"):
        SavedModel("a.pt", description | {"format": 99}).rebuilt()


def test_a_family_that_is_not_here_is_named_with_where_it_came_from(description):
    if description["format"] == 1:
        description["model_type"] = "vilt"
    else:
        description["family"] |= {"name": "vilt", "from": "trainbus-vilt"}
    with pytest.raises(CheckpointError) as caught:
        SavedModel("a.pt", description).rebuilt()
    assert "model family 'vilt' is not installed" in str(caught.value)
    is_told = "(the run had it from trainbus-vilt)" in str(caught.value)
    assert is_told == (description["format"] == 2)


def test_a_description_of_a_task_that_the_family_does_not_do_is_refused(description):
    config = {"task": "captioning"}  # where format 1 has it
    if description["format"] == 2:
        description["task"]["name"] = "captioning"
    with pytest.raises(CheckpointError, match="'blip' does not do the task 'captio"):
        SavedModel("a.pt", description, config=config).parts()


def test_format_1_has_the_options_of_its_family_in_the_configuration(tiny):
    told = Blip().describe(tiny["model"], tiny["processor"])
    config = {"data": {"max_question_length": 7, "batch_size": 3, "image_size": None}}
    old = {"format": 1, "model_type": "blip", **told}
    family: Any = SavedModel("a.pt", old, config=config).parts()[1]
    assert family.max_question_length == 7


def test_a_foreign_description_cannot_write_outside_its_folder(description, tmp_path):
    model_of(description)["processor_files"][f"{tmp_path}/escaped.json"] = "{}"
    SavedModel("a.pt", description).rebuilt()
    assert list(tmp_path.iterdir()) == []
