"""A checkpoint names what prepared its pictures, and another one is told of."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from chats import chat
from drawn import colours, questions

from trainbus_data.image_classification.task import ImageClassification
from trainbus_models.blip.family import Blip
from trainbus_models.image_classifier.family import ImageClassifier
from trainbus_models.processor_files import processor_of


def blip(tiny: dict[str, Any]) -> tuple[Any, Any, Any]:
    return Blip(), tiny["model"], tiny["processor"]


def chats(tiny: dict[str, Any]) -> tuple[Any, Any, Any]:
    family = chat()
    return (family, *family.build(questions(2)))


def classifier(tiny: dict[str, Any]) -> tuple[Any, Any, Any]:
    family = ImageClassifier()
    family.task = ImageClassification()
    return (family, *family.build(colours(4)))


@pytest.mark.parametrize("make", [blip, chats, classifier])
def test_a_model_whose_pictures_are_prepared_by_another_class_is_told_of(
    make: Callable[[Any], tuple[Any, Any, Any]],
    tiny: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    family, model, processor = make(tiny)
    told = json.loads(json.dumps(family.describe(model, processor)))
    used = getattr(processor, "image_processor", processor)
    assert told["image_processor"] == type(used).__name__

    def warnings_of(description: dict[str, Any]) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            family.rebuild(description)
        return [r.getMessage() for r in caplog.records if "pictures" in r.getMessage()]

    assert warnings_of(told) == []
    (said,) = warnings_of({**told, "image_processor": "OfElsewhere"})
    assert "prepared by OfElsewhere in training and are by" in said
    assert said.endswith("install torchvision")
    (said,) = warnings_of({**told, "image_processor": "OfElsewherePil"})
    assert said.endswith("leave torchvision out")
    del told["image_processor"]  # of an earlier release
    assert warnings_of(told) == []


class ShowsPictures:
    """Stands for a processor of the library, which has a part for the pictures."""

    def __init__(self, pictures: Any) -> None:
        self.image_processor = pictures


class Torchvision:
    """What the library chooses where torchvision is installed."""

    image_mean = 0.5


class TorchvisionPil:
    """Its counterpart."""

    image_mean = 0.5


@pytest.mark.parametrize("is_part", [True, False], ids=["a part of it", "it is one"])
@pytest.mark.parametrize(
    ("saved", "used", "options"),
    [
        ("TorchvisionPil", TorchvisionPil, [{"backend": "pil"}]),
        ("Torchvision", Torchvision, []),
        (None, Torchvision, []),
    ],
    ids=["by Pillow", "by torchvision", "of an earlier release"],
)
def test_pillow_prepares_again_what_it_prepared_also_beside_torchvision(
    saved: str | None,
    used: type,
    options: list[Any],
    is_part: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Auto:
        @staticmethod
        def from_pretrained(folder: str, trust_remote_code: bool) -> object:
            return ShowsPictures(Torchvision()) if is_part else Torchvision()

    heard = []

    def from_pretrained(folder: str, trust_remote_code: bool, **told: str) -> object:
        heard.append(told)
        return TorchvisionPil()

    chosen = "transformers.AutoImageProcessor.from_pretrained"
    monkeypatch.setattr(chosen, from_pretrained)
    found = processor_of({"processor_files": {}, "image_processor": saved}, Auto)
    assert isinstance(found.image_processor if is_part else found, used)
    assert heard == options
