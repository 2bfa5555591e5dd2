"""Freezing is by name, and a name that matches nothing is an error."""

import copy

import pytest
from torch import nn

from trainbus_models.model_utils import freeze_model
from training.errors import ConfigError


def toy() -> nn.Module:
    inner = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    return nn.ModuleDict({"body": inner, "head": nn.Linear(2, 1)})


@pytest.mark.parametrize(
    ("names", "frozen"),
    [
        pytest.param(["body"], ["body.0.weight", "body.0.bias"], id="a module"),
        pytest.param(["body.0"], ["body.0.weight", "body.0.bias"], id="a dotted path"),
        pytest.param(["head.bias"], ["head.bias"], id="a parameter"),
        pytest.param(["0"], ["body.0.weight", "body.0.bias"], id="the end of a path"),
        pytest.param("head", ["head.weight", "head.bias"], id="one name as text"),
        pytest.param([], [], id="nothing"),
    ],
)
def test_what_is_named_is_frozen(names, frozen):
    assert freeze_model(toy(), names) == frozen


def test_a_frozen_module_is_marked_and_in_eval_mode():
    model = toy().train()
    freeze_model(model, ["body"])
    assert all(part._is_frozen for part in model["body"].modules())
    assert not model["body"][1].training
    assert model["head"].training
    assert not hasattr(model["head"], "_is_frozen")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bodi", "near names: body"),
        ("zzz", "top-level names: body, head"),
        ("", "matches no part"),
    ],
)
def test_a_name_that_matches_nothing_is_refused_and_nothing_is_frozen(name, message):
    model = toy()
    with pytest.raises(ConfigError, match=message):
        freeze_model(model, ["body", name])
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_guides_vision_model_is_frozen_in_a_blip(tiny):
    model = copy.deepcopy(tiny["model"])
    names = freeze_model(model, freeze_layers=["vision_model"])
    assert names
    assert all(name.startswith("vision_model.") for name in names)
