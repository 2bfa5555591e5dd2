"""The ``data`` section of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from training.documents.document import Key
from training.documents.mistakes import explain
from training.errors import ConfigError
from training.files.named_paths import named_path

__all__ = [
    "CurriculumConfig",
    "DEFAULT_TASK",
    "MIB",
    "DataConfig",
    "OF_EVERY_MODEL",
    "ONCE_FAMILY",
    "ONCE_HERE",
    "SPLITS",
    "SyntheticConfig",
    "parse_data_config",
]

#: Path in a file -> where it was written.
Origin = Callable[[Key], str]

SPLITS = ("train", "validation", "test")
MIB = 1 << 20
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
#: A path, or one reader's name over its options.
Source = Annotated[
    Annotated[FilePath, Tag("path")] | Annotated[dict[str, Any], Tag("reader")],
    Discriminator(lambda value: "reader" if isinstance(value, dict) else "path"),
]
FolderPath = Annotated[Path, Field(strict=False), AfterValidator(named_path)]


class SyntheticConfig(BaseModel):
    """Pictures of shapes drawn on this machine instead of files.

    Attributes:
        num_train_images: pictures to train on.
        num_validation_images: held-out pictures; none equals a training picture.
        seed: of what is drawn; the same seed draws the same pictures.
        folder: where the pictures are written; None: where the caller says.
        about: what rows hold beside their picture: ``questions`` with answers, four of
            each picture; ``colors``, a label; ``captions``.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    num_train_images: int = Field(default=1500, ge=1, lt=2**63)
    num_validation_images: int = Field(default=400, ge=1, lt=2**63)
    seed: int = Field(default=0, ge=0, lt=2**63)
    folder: FolderPath | None = None
    about: Literal["questions", "colors", "captions"] = "questions"


class CurriculumConfig(BaseModel):
    """Which rows are trained on alone in the first epochs.

    Such an epoch has as many rows as any other: those that are chosen come as often as
    it takes, each once before any comes again.

    Attributes:
        epochs: at the start of the run in which they are alone.
        field: of the task, whose value chooses.
        values: that a row may have there.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    epochs: int = Field(ge=1, lt=2**63)
    field: str
    values: list[str] = Field(min_length=1)

    @property
    def told(self) -> str:
        """When, and which, as a plan says it."""
        when = "the first epoch" if self.epochs == 1 else f"epochs 1 to {self.epochs:,}"
        return f"{when}: those of {self.field} {', '.join(self.values)}"


class DataConfig(BaseModel):
    """Where rows and images are, and how they become batches.

    Attributes:
        train: rows to train on: a file, relative to ``root`` or else to the working
            directory, whose reader its suffix tells; or ``{reader: {option: value}}``.
        validation: rows that a run is judged by while it trains.
        test: rows that no run looks at before it is asked to.
        fields: the task's name of a field -> the name that the files have for it.
        root: folder that holds the three and all their images.
        synthetic: draw pictures of shapes; excludes the four above.
        batch_size: rows in a training batch.
        eval_batch_size: rows in other batches; None: ``batch_size``.
        num_workers: processes that make batches; 0 makes them in the training process.
        worker_timeout: seconds after which a batch that no worker delivers is an error
            that names its rows; 0 waits for ever.
        shuffle: whether training rows are drawn in a new order each epoch.
        curriculum: rows that are trained on alone in the first epochs; it takes
            ``shuffle``.
        drop_last: whether a training batch that is not full is left out.
        cache_mb: MiB of what rows were made into that are kept in memory.
        index_above_mb: MiB of a file above which its rows are read and checked as they
            are needed, at 8 bytes of memory a row, and not all at the start.
        max_image_pixels: an image with more is refused.
        on_bad_row: ``error`` refuses a file with a bad row; ``skip`` leaves bad rows
            out, with a warning, and decodes every image at the start to find them
            (about 10 ms a photo).
        max_bad_fraction: share of bad rows in a file that ``skip`` bears, in [0, 1].
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    train: Source | None = None
    validation: Source | None = None
    test: Source | None = None
    fields: dict[str, str] = Field(default_factory=dict)
    root: FolderPath | None = None
    synthetic: SyntheticConfig | None = None
    batch_size: int = Field(default=32, ge=1, lt=2**63)
    eval_batch_size: int | None = Field(default=None, ge=1, lt=2**63)
    num_workers: int = Field(default=0, ge=0, le=256)
    worker_timeout: float = Field(default=600.0, ge=0.0, le=MOST_SECONDS)
    shuffle: bool = True
    curriculum: CurriculumConfig | None = None
    drop_last: bool = False
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
                "file each, or synthetic: {} to draw pictures"
            )
        return self

    @model_validator(mode="after")
    def _draws_a_curriculum(self) -> Self:
        if self.curriculum is not None and not self.shuffle:
            raise ValueError(
                "curriculum draws rows, and shuffle is false; remove one of the two"
            )
        return self

    def drawn_in(self, save_dir: Path) -> Path | None:
        """Return the folder of drawn pictures; None where nothing is drawn."""
        if self.synthetic is None:
            return None
        return self.synthetic.folder or save_dir / "pictures"

    def path_of(self, split: str) -> Path | None:
        """Return the path of a split; None where it is unset or names a reader."""
        path: Path | dict[str, Any] | None = getattr(self, split)
        if not isinstance(path, Path) or self.root is None:
            return path if isinstance(path, Path) else None
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


#: What a configuration asks that names no task.
DEFAULT_TASK = "vqa"
#: Options of a model that stood in this section when there was one family, and that.
ONCE_HERE = ("processor", "image_size", "max_question_length", "max_answer_length")
ONCE_FAMILY = "blip"
#: Keys of the section ``model`` that are not the family's options.
OF_EVERY_MODEL = ("name", "build", "type", "freeze", "lora")
