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


@pytest.mark.parametrize(
    ("saved", "asked"),
    [("APil", {"backend": "pil"}), ("A", {}), (None, {})],
    ids=["by Pillow", "by torchvision", "of an earlier release"],
)
def test_pillow_prepares_again_what_it_prepared_also_beside_torchvision(
    saved: str | None, asked: dict[str, str]
) -> None:
    heard: dict[str, Any] = {}

    class Auto:
        @staticmethod
        def from_pretrained(folder: str, **options: Any) -> object:
            heard.update(options)
            return object()

    processor_of({"processor_files": {}, "image_processor": saved}, Auto)
    assert heard == {"trust_remote_code": False, **asked}
