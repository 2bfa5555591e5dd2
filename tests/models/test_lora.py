"""Adapters train alone, and leave as a whole model or by themselves."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from chats import chat
from drawn import colours, questions
from processes import printed_by
from torch import nn

from trainbus_data.image_classification.task import ImageClassification
from trainbus_models.image_classifier.family import ImageClassifier
from trainbus_models.lora import Lora, has_lora, merged, save_adapter
from trainbus_models.model_utils import freeze_model
from training.errors import ConfigError

needs_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None,
    reason="the package peft is not installed (extra lora)",
)
TARGETS = ["q_proj", "v_proj"]
WIDE = {"hidden_size": 96}


class Adapted:
    """A model before, and one with adapters that have learnt a little."""

    def __init__(self, family: Any, rows: list[dict[str, Any]], **lora: Any) -> None:
        self.family, self.rows = family, rows
        self.base, self.processor = family.build(rows, **WIDE)
        self.model = copy.deepcopy(self.base)
        self.trained = Lora(TARGETS, **lora).add_to(self.model)
        self.batch = family.collate(self.processor, rows)
        self._learn()

    def _learn(self) -> None:
        weights = [v for v in self.model.parameters() if v.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=1e-2)
        self.model.train()
        for _ in range(10):
            self.model(**self.batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        self.model.eval()

    def logits(self, model: nn.Module) -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = model(**self.batch).logits
        return logits

    def said(self, model: nn.Module) -> list[str]:
        with torch.no_grad():
            texts: list[str] = self.family.predict(model, self.processor, self.batch)
        return texts


def classifier() -> ImageClassifier:
    family = ImageClassifier()
    family.task = ImageClassification()
    return family


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((chat, questions, {}), id="chat"),
        pytest.param(
            (classifier, colours, {"modules_to_save": ["classifier"]}),
            id="classifier with its head",
        ),
    ],
)
def adapted(request: pytest.FixtureRequest) -> Adapted:
    make, rows, options = request.param
    return Adapted(make(), rows(4), **options)


@needs_peft
def test_only_adapters_train(adapted: Adapted) -> None:
    own = dict(adapted.base.named_parameters())
    now = dict(adapted.model.named_parameters())
    assert {n for n, v in now.items() if v.requires_grad} == set(adapted.trained)
    kinds = ("lora_A", "lora_B", "classifier.")
    assert all(any(k in name for k in kinds) for name in adapted.trained)
    kept = {name: v for name, v in own.items() if name not in adapted.trained}
    for name, value in kept.items():
        inside = [n for n in now if n.replace(".base_layer", "") == name]
        assert all(torch.equal(now[n], value) for n in inside)


@needs_peft
def test_the_class_and_the_other_names_stay(adapted: Adapted) -> None:
    assert type(adapted.model) is type(adapted.base)
    assert has_lora(adapted.model)
    assert not has_lora(adapted.base)


@needs_peft
def test_merged_it_is_a_model_like_the_one_before(
    adapted: Adapted, tmp_path: Path
) -> None:
    whole = merged(adapted.model)
    assert whole.state_dict().keys() == adapted.base.state_dict().keys()
    own = adapted.logits(adapted.model)
    assert not torch.allclose(own, adapted.logits(adapted.base), atol=1e-3)
    assert torch.allclose(own, adapted.logits(whole), atol=1e-5)
    whole.save_pretrained(tmp_path)
    loaded = type(adapted.base).from_pretrained(tmp_path).eval()
    assert torch.equal(adapted.logits(loaded), adapted.logits(whole))
    assert adapted.said(loaded) == adapted.said(adapted.model)
    assert has_lora(adapted.model), "the model itself is not changed"


@needs_peft
def test_by_itself_it_loads_beside_the_base_to_the_bit(
    adapted: Adapted, tmp_path: Path
) -> None:
    from peft import PeftModel

    save_adapter(adapted.model, tmp_path, "a/base")
    loaded = PeftModel.from_pretrained(copy.deepcopy(adapted.base), tmp_path).eval()
    assert torch.equal(adapted.logits(loaded), adapted.logits(adapted.model))
    assert loaded.peft_config["default"].base_model_name_or_path == "a/base"
    assert adapted.said(loaded) == adapted.said(adapted.model)
    size = (tmp_path / "adapter_model.safetensors").stat().st_size
    whole = sum(v.nbytes for v in adapted.base.state_dict().values())
    assert size < whole / 5


@needs_peft
def test_what_is_frozen_by_name_gets_no_adapter() -> None:
    model, _ = chat().build(questions(2))
    freeze_model(model, ["vision_model"])
    trained = Lora(TARGETS).add_to(model)
    assert trained
    assert not any("vision" in name for name in trained)


@needs_peft
@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            {"target_modules": ["q_prj"]}, "did you mean 'q_proj'", id="misspelt"
        ),
        pytest.param({"target_modules": "q_prj"}, "matches no part", id="a pattern"),
        pytest.param(
            {"target_modules": ["q_proj"], "modules_to_save": ["head"]},
            r"modules_to_save names 'head'",
            id="no such head",
        ),
        pytest.param(
            {"target_modules": ["text_model"]}, "does not fit the model", id="no layer"
        ),
        pytest.param({"target_modules": "(q"}, "no regular expression", id="broken"),
    ],
)
def test_names_that_match_nothing_are_refused(options: Any, message: str) -> None:
    model, _ = chat().build(questions(2))
    with pytest.raises(ConfigError, match=message):
        Lora(**options).add_to(model)
    assert not has_lora(model)


@needs_peft
def test_what_is_frozen_altogether_is_refused() -> None:
    model, _ = chat().build(questions(2))
    freeze_model(model, ["model"])
    with pytest.raises(ConfigError, match=r"model\.freeze freezes all of it"):
        Lora(TARGETS).add_to(model)


def test_without_peft_one_sentence_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['peft'] = None\n"
        "from torch import nn\n"
        "from trainbus_models.lora import Lora\n"
        "try: Lora(['a']).add_to(nn.Linear(1, 1))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    assert printed_by(code) == (
        "ConfigError model.lora needs the package peft, which is not installed; "
        "install it: pip install 'trainbus[lora]'"
    )
