"""Freezing is by name, and a name that matches nothing is an error."""

import copy

import pytest
from torch import nn

from trainbus_models.model_utils import freeze_model, unfreeze_model
from training.errors import ConfigError
from training.modules.train_mode import frozen_parameters


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


ALL = ["body.0.weight", "body.0.bias", "head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("names", "thawed"),
    [
        pytest.param(None, ALL, id="all"),
        pytest.param(["body", "head"], ALL, id="both modules"),
        pytest.param(["body"], ALL[:2], id="a module"),
        pytest.param(["body.0"], ALL[:2], id="a module in a frozen one"),
        pytest.param("head.bias", ALL[3:], id="a parameter of a frozen module"),
        pytest.param([], [], id="nothing"),
    ],
)
@pytest.mark.parametrize("frozen", [["body", "head"], ALL])
def test_what_is_named_is_unfrozen_and_the_rest_stays(frozen, names, thawed):
    model = toy().train()
    freeze_model(model, frozen)
    assert unfreeze_model(model, names) == thawed
    named = dict(model.named_parameters())
    assert [n for n, each in named.items() if each.requires_grad] == thawed
    left = frozen_parameters(model)
    assert [n for n, each in named.items() if each not in left] == thawed
    assert freeze_model(model, []) == [n for n in ALL if n not in thawed]


def test_a_layer_without_a_bias_is_unfrozen_by_its_weight():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1))
    freeze_model(model, ["0"])
    assert unfreeze_model(model, ["0.weight"]) == ["0.weight"]
    assert frozen_parameters(model) == set()


def test_what_is_unfrozen_is_in_the_mode_of_the_model():
    model = toy().train()
    freeze_model(model, ["body"])
    unfreeze_model(model, ["body.1"])  # a dropout, which has no parameters
    assert model["body"][1].training
    assert not model["body"][0].training
    unfreeze_model(model)
    assert all(module.training for module in model.modules())
    assert not unfreeze_model(model)


def test_of_no_name_all_that_freeze_model_froze_is_unfrozen_and_nothing_else():
    model = toy()
    model["head"].requires_grad_(False)
    freeze_model(model, ["body"])
    thawed = unfreeze_model(model)
    assert thawed == [name for name in ALL if name.startswith("body")]
    assert not model["head"].weight.requires_grad


def test_what_is_shared_with_a_frozen_part_stays_frozen():
    model = toy()
    model["tail"] = nn.Linear(2, 1)
    model["tail"].weight = model["head"].weight
    freeze_model(model, ["head", "tail"])
    assert unfreeze_model(model, ["tail"]) == ["tail.bias"]


def test_a_name_to_unfreeze_that_matches_nothing_is_refused_and_all_stays_frozen():
    model = toy()
    freeze_model(model, ["body"])
    with pytest.raises(ConfigError, match=r"^unfreeze names 'bodi', .* names: body"):
        unfreeze_model(model, ["body.0", "bodi"])
    assert not model["body"][0].weight.requires_grad
