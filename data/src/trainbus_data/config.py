"""The ``data`` section of a configuration, and the guide's older form of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from training.documents.document import Key
from training.documents.mistakes import explain
from training.errors import ConfigError, did_you_mean
from training.files.named_paths import named_path

__all__ = ["DataConfig", "SyntheticConfig", "from_guide", "parse_data_config"]

#: Path in a file -> where it was written.
Origin = Callable[[Key], str]

TASKS = ("vqa",)
SPLITS = ("train", "validation", "test")
#: What a clock of the system can count to; inf and NaN are beyond it.
MOST_SECONDS = 1e9


def _nowhere(path: Key) -> str:
    return "data"


def _not_empty(path: Path) -> Path:
    if str(path) == "." or "\0" in str(path):
        raise ValueError("write the path of a file, or null")
    return named_path(path)


#: Text in a file, a Path in Python, text again in JSON.
FilePath = Annotated[Path, Field(strict=False), AfterValidator(_not_empty)]
FolderPath = Annotated[Path, Field(strict=False), AfterValidator(named_path)]


class SyntheticConfig(BaseModel):
    """Pictures of shapes drawn on this machine instead of files.

    Attributes:
        num_train_images: pictures to train on, each with four questions.
        num_validation_images: held-out pictures; none equals a training picture.
        seed: of what is drawn; the same seed draws the same pictures.
        folder: where the pictures are written; None: where the caller says.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    num_train_images: int = Field(default=1500, ge=1, lt=2**63)
    num_validation_images: int = Field(default=400, ge=1, lt=2**63)
    seed: int = Field(default=0, ge=0, lt=2**63)
    folder: FolderPath | None = None


class DataConfig(BaseModel):
    """Where rows and images are, and how they become batches.

    Attributes:
        train: JSON-lines file to train on, relative to ``root`` or else to the working
            directory.
        validation: JSON-lines file that a run is judged by while it trains.
        test: JSON-lines file that no run looks at before it is asked to.
        root: folder that holds the three and all their images.
        synthetic: draw pictures of shapes; excludes the four above.
        processor: hub name or folder of the image processor and tokenizer.
        batch_size: rows in a training batch.
        eval_batch_size: rows in other batches; None: ``batch_size``.
        num_workers: processes that make batches; 0 makes them in the training process.
        worker_timeout: seconds after which a batch that no worker delivers is an error
            that names its rows; 0 waits for ever.
        shuffle: whether training rows are drawn in a new order each epoch.
        drop_last: whether a training batch that is not full is left out.
        image_size: side in pixels that images are resized to; None: the processor's.
        max_question_length: tokens every question is padded or cut to.
        max_answer_length: tokens an answer is cut to.
        cache_mb: MiB of resized pixels that are kept in memory, over all splits.
        index_above_mb: MiB of a file above which its rows are read and checked as they
            are needed, at 8 bytes of memory a row, and not all at the start.
        max_image_pixels: an image with more is refused.
        on_bad_row: ``error`` refuses a file with a bad row; ``skip`` leaves bad rows
            out, with a warning, and decodes every image at the start to find them
            (about 10 ms a photo).
        max_bad_fraction: share of bad rows in a file that ``skip`` bears, in [0, 1].
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    train: FilePath | None = None
    validation: FilePath | None = None
    test: FilePath | None = None
    root: FolderPath | None = None
    synthetic: SyntheticConfig | None = None
    processor: str = Field(default="Salesforce/blip-vqa-base", min_length=1)
    batch_size: int = Field(default=32, ge=1, lt=2**63)
    eval_batch_size: int | None = Field(default=None, ge=1, lt=2**63)
    num_workers: int = Field(default=0, ge=0, le=256)
    worker_timeout: float = Field(default=600.0, ge=0.0, le=MOST_SECONDS)
    shuffle: bool = True
    drop_last: bool = False
    image_size: int | None = Field(default=None, ge=16, le=2**16)
    max_question_length: int = Field(default=32, ge=3, lt=2**63)
    max_answer_length: int = Field(default=10, ge=3, lt=2**63)
    cache_mb: int = Field(default=512, ge=0, lt=2**63)
    index_above_mb: int = Field(default=64, ge=0, lt=2**63)
    max_image_pixels: int = Field(default=50_000_000, ge=1, lt=2**63)
    on_bad_row: Literal["error", "skip"] = "error"
    max_bad_fraction: float = Field(default=0.01, ge=0.0, le=1.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        files = [name for name in SPLITS if getattr(self, name) is not None]
        if self.synthetic is not None and (files or self.root is not None):
            given = ", ".join([*files, *(["root"] if self.root is not None else [])])
            raise ValueError(f"synthetic excludes {given}; remove one of the two")
        if self.synthetic is None and not files:
            raise ValueError(
                "there is nothing to read; give train (and validation, test) a "
                "JSON-lines file each, or synthetic: {} to draw pictures"
            )
        return self

    def path_of(self, split: str) -> Path | None:
        """Return the file of ``train``, ``validation`` or ``test``, or None."""
        path: Path | None = getattr(self, split)
        if path is None or self.root is None:
            return path
        return self.root / path


def parse_data_config(
    mapping: Mapping[str, Any], origin: Origin = _nowhere, prefix: Key = ()
) -> DataConfig:
    """Return the validated section.

    Args:
        mapping: the keys of ``DataConfig``.
        origin: path in the whole file -> where it was written, for errors.
        prefix: path of ``mapping`` in that file, such as ``("data",)``.
    Raises:
        ConfigError: one sentence per mistake.
    """
    values = dict(mapping)
    try:
        return DataConfig.model_validate(values)
    except ValidationError as error:
        told = explain(error, values, DataConfig, origin, prefix)
        raise ConfigError("\n".join(told)) from None


def from_guide(mapping: Mapping[str, Any], origin: Origin = _nowhere) -> DataConfig:
    """Translate the guide's ``task_type`` and ``data_paths`` to a DataConfig.

    A key of ``DataConfig`` may stand beside them, such as ``batch_size``. A
    ``training`` section, which the guide allows in the same file, is left to others.

    Raises:
        ConfigError: an unknown key, another task than ``vqa``, or no ``data_paths``.
    """
    values = {key: value for key, value in mapping.items() if key != "training"}
    task = values.pop("task_type", "vqa")
    if task not in TASKS:
        raise ConfigError(
            f"{origin(('task_type',))}: task_type is {task!r}, but must be "
            f"one of: {', '.join(TASKS)}"
        )
    paths = values.pop("data_paths", None)
    here = origin(("data_paths",))
    if not isinstance(paths, Mapping):
        raise ConfigError(
            f"{here}: data_paths is {paths!r}, but must map train, validation and test "
            "to files"
        )
    for key in paths:
        if key not in SPLITS:
            raise ConfigError(
                f"{origin(('data_paths', key))}: data_paths.{key} is not "
                f"a split{did_you_mean(str(key), SPLITS)}; known here: "
                f"{', '.join(SPLITS)}"
            )
        if key in values:
            raise ConfigError(f"{here}: data_paths.{key} and {key} say the same twice")
    return parse_data_config(values | dict(paths), origin)
