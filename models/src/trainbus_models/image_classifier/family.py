"""Any image classifier of the library: one of some labels for each picture."""

from __future__ import annotations

import copy
import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import torch

from trainbus_models.pixels import PixelCache
from trainbus_models.pretrained import load_model, load_part
from trainbus_models.sizes import (
    Count,
    Deviation,
    Fraction,
    Layers,
    Seed,
    check_sizes,
    fresh_weights,
)
from trainbus_models.transformers_family import TransformersFamily
from training.errors import ConfigError, DataError
from training.messages.tables import count
from training.recipes.batch import Batch
from training.recipes.likeliest import likeliest

__all__ = ["ImageClassifier"]

logger = logging.getLogger(__name__)

#: Labels that a message names.
MOST_NAMED = 8

#: Label number that a loss leaves out.
IGNORED = -100


class ImageClassifier(TransformersFamily):
    """``AutoModelForImageClassification``: a picture in, one of the labels out.

    The labels are those of the training rows, sorted; the processor carries them in
    ``label_names``, and the model's configuration in ``id2label``. A label that is not
    among them is refused in a training row; of another row, as of validation, it is no
    part of the loss, and no prediction can be right about it. Where a logit is NaN,
    None is predicted, which is no label.
    """

    tasks = ("image_classification",)
    auto_model = "AutoModelForImageClassification"
    auto_processor = "AutoImageProcessor"
    is_deterministic = True
    confidence = "probability"

    def __init__(self) -> None:
        self._pixels: PixelCache | None = None
        self._made_for: Any = None
        self._has_told_of_nan = False

    def load(self, name: str, rows: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
        """Return the model and its processor.

        A model that was fine-tuned for these labels keeps its head, and all labels that
        it knows; another one gets a fresh head for those of the training rows, with a
        warning where it knows some of them.

        Args:
            name: a folder written by ``save_pretrained``, or a hub name.
            rows: of training; their labels are looked at.
        Raises:
            ConfigError: there is no such model, or it is no image classifier.
        """
        from transformers import AutoConfig, AutoImageProcessor
        from transformers import AutoModelForImageClassification as Auto

        labels = self._labels_of(rows)
        config = load_part(AutoConfig, name)
        known = [text for _, text in sorted(config.id2label.items())]
        if set(labels) <= set(known):
            model = load_model(Auto, name)
        else:
            new = [label for label in labels if label not in known]
            if len(new) < len(labels):
                logger.warning(
                    "the model %r knows %d of the %d labels of the training rows, but "
                    "not %s: it gets a fresh head, and all of them are learnt anew; to "
                    "keep its head, train on rows of the labels that it knows",
                    name,
                    len(labels) - len(new),
                    len(labels),
                    _listed(new),
                )
            known = labels
            fresh = _head_of(Auto, config, len(labels))
            model = load_model(Auto, name, fresh, **_config_of(labels))
        processor = load_part(AutoImageProcessor, name)
        processor.label_names = known
        return model, processor

    def build(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        hidden_size: Count = 64,
        num_layers: Layers = 2,
        patch_size: Count = 16,
        image_size: Count = 64,
        num_attention_heads: Count = 4,
        initializer_range: Deviation = 0.08,
        dropout: Fraction = 0.0,
        seed: Seed = 0,
    ) -> tuple[Any, Any]:
        """Return a small ViT with random weights, and its processor.

        Args:
            rows: of training; their labels are looked at.
            hidden_size: width; the feed-forward part is 4 times that.
            num_layers: of attention and feed-forward.
            patch_size: side of an image patch, in pixels; must divide ``image_size``.
            image_size: side of the square images, in pixels.
            num_attention_heads: must divide ``hidden_size``.
            initializer_range: standard deviation of the weights; the library's 0.02 is
                meant for width 768.
            dropout: of hidden states and attention.
            seed: of the weights; the global random state is left as it was.
        Raises:
            ConfigError: the sizes do not divide.
        """
        from transformers import ViTConfig, ViTForImageClassification
        from transformers.models.vit.image_processing_pil_vit import (
            ViTImageProcessorPil,
        )

        check_sizes(hidden_size, num_attention_heads, image_size, patch_size)
        labels = self._labels_of(rows)
        config = ViTConfig(
            hidden_size=hidden_size,
            intermediate_size=4 * hidden_size,
            num_hidden_layers=num_layers,
            num_attention_heads=num_attention_heads,
            image_size=image_size,
            patch_size=patch_size,
            initializer_range=initializer_range,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            **_config_of(labels),
        )
        size = {"height": image_size, "width": image_size}
        processor = ViTImageProcessorPil(size=size)
        processor.label_names = labels
        sizes = {"hidden_size": hidden_size, "image_size": image_size}
        with fresh_weights(seed, **sizes, patch_size=patch_size):
            model = ViTForImageClassification(config)
        return model.eval(), processor

    def prepare(self, processor: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        """Warn of labels that the model is not trained on.

        Raises:
            DataError: no validation row has another one.
        """
        given = (row.get(self.task.target) for row in rows)
        labels = Counter(str(label) for label in given if label is not None)
        unknown = labels - Counter(dict.fromkeys(processor.label_names, len(rows)))
        if self.split == "train" or not unknown:
            return
        told = (
            f"the model is not trained on the labels of {unknown.total():,} of "
            f"{count(labels.total(), f'{self.split} row')} that were looked at: "
            f"{_counted(unknown)}"
        )
        trained = {unicodedata.normalize("NFC", each) for each in processor.label_names}
        if alike := [n for n in unknown if unicodedata.normalize("NFC", n) in trained]:
            told += (
                f"; labels of its training differ in their Unicode form only from "
                f"{_listed([ascii(each) for each in alike])}: write them alike (NFC)"
            )
        if self.split == "validation" and unknown == labels:
            raise DataError(
                f"{told}; name rows with the labels of its training: "
                f"{_listed(processor.label_names)}"
            )
        logger.warning("%s; they are left out of val_loss and count as wrong", told)

    def collate(self, processor: Any, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Return pixels (B, 3, H, W), float32, and label numbers (B,), int64.

        Pixels are bytes, uint8, where their normalising is left to the device.

        Raises:
            DataError: a training row has a label that the model does not know.
        """
        task = self.task
        pixels = self._pixels_of(processor)
        tensors = {"pixel_values": pixels.get([row[self._picture] for row in rows])}
        labels = [row.get(task.target) for row in rows]
        weight = 0
        if any(label is not None for label in labels):
            names = enumerate(processor.label_names)
            number_of = {name: number for number, name in names}
            numbers = [number_of.get(str(label), IGNORED) for label in labels]
            tensors["labels"] = torch.tensor(numbers)
            if self.split == "train" and IGNORED in numbers:
                self._refuse_label(rows[numbers.index(IGNORED)], processor)
            weight = sum(number != IGNORED for number in numbers)
        deferred = {"pixel_values": pixels.normalise}
        batch = Batch(tensors, [dict(row) for row in rows], weight, deferred)
        return batch if self.is_fed_from_host else batch.finished()

    def _refuse_label(self, row: Mapping[str, Any], processor: Any) -> NoReturn:
        raise DataError(
            f"the training row of {self._picture} {str(row[self._picture])!r} has "
            f"{self.task.target} {str(row.get(self.task.target))!r}, which the model "
            f"does not know; its labels are {_listed(processor.label_names)}: give the "
            "row one of them, or train a model of these rows' labels"
        )

    def predict(
        self, model: Any, processor: Any, batch: Mapping[str, Any]
    ) -> list[str | None]:
        """Return the likeliest label of each row; None where a logit is NaN."""
        return self._named(processor, _logits(model, batch))

    def predict_with_confidence(
        self, model: Any, processor: Any, batch: Mapping[str, Any]
    ) -> list[tuple[str | None, float]]:
        """Return the same with the probability that the model gives the label."""
        logits = _logits(model, batch)
        labels = self._named(processor, logits)
        sure = logits.float().softmax(dim=-1).amax(dim=-1)
        return list(zip(labels, sure.tolist(), strict=True))

    def _named(self, processor: Any, logits: torch.Tensor) -> list[str | None]:
        """Return the labels of the highest; tell, once, of rows without any."""
        labels = likeliest(logits, processor.label_names)
        if (number := labels.count(None)) and not self._has_told_of_nan:
            self._has_told_of_nan = True
            logger.warning(
                "the model returned NaN among the logits of %s of a batch, of "
                "which nothing is predicted: that counts as wrong; look for "
                "what makes it in the rows, the model or its precision",
                count(number, "row"),
            )
        return labels

    def _pixels_of(self, processor: Any) -> PixelCache:
        if self._pixels is None or self._made_for is not processor:
            self._pixels = PixelCache(processor, self.cache_bytes)
            self._made_for = processor
        return self._pixels

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None, "_made_for": None}

    @property
    def _picture(self) -> str:
        fields = self.task.fields.items()
        return next(name for name, kind in fields if kind == "picture")

    def _labels_of(self, rows: Iterable[Mapping[str, Any]]) -> list[str]:
        labels = sorted({str(row[self.task.target]) for row in rows})
        if len(labels) < 2:
            raise ConfigError(
                f"the training rows have {count(len(labels), 'label')} "
                f"({', '.join(labels)}); a classifier needs at least two"
            )
        by_look: dict[str, list[str]] = {}
        for label in labels:
            by_look.setdefault(unicodedata.normalize("NFC", label), []).append(label)
        if alike := [ascii(same) for same in by_look.values() if len(same) > 1]:
            logger.warning(
                "labels of the training rows differ in their Unicode form only and are "
                "learnt as different ones: %s; write them alike (NFC)",
                _listed(alike),
            )
        return labels


def _counted(labels: Counter[str]) -> str:
    return _listed([f"{label} ({number:,})" for label, number in labels.most_common()])


def _listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - MOST_NAMED
    rest = [f"and {more:,} more"] if more > 0 else []
    return ", ".join([*names[:MOST_NAMED], *rest])


def _logits(model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """Return a score for each label, (B, labels)."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits: torch.Tensor = model(**inputs).logits
    return logits


def _config_of(labels: Sequence[str]) -> dict[str, Any]:
    """Return the labels as a model's configuration has them."""
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
    }


def _head_of(auto: Any, config: Any, num_labels: int) -> set[str]:
    """Return the names of the weights that depend on the number of labels."""
    shapes = []
    for number in (num_labels, num_labels + 1):
        config = copy.deepcopy(config)
        config.num_labels = number
        with torch.device("meta"):
            model = auto.from_config(config)
        shapes.append({name: w.shape for name, w in model.state_dict().items()})
    return {name for name, shape in shapes[0].items() if shape != shapes[1][name]}
