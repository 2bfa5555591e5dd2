"""What a configuration may say: every key, its type, its range and its default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from trainbus_data.config import DEFAULT_TASK, DataConfig
from training.app.config.guide_keys import GUIDE_KEYS
from training.discovery.specs import PluginSpec
from training.documents.document import Document, dotted
from training.errors import ConfigError
from training.files.named_paths import named_path
from training.weighing.units import check_unit

__all__ = [
    "Config",
    "DataConfig",
    "ModelConfig",
    "OptimizerConfig",
    "TrainingConfig",
]


def _unit(name: str) -> str:
    try:
        return check_unit(name, "the value")
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _not_empty(path: Any) -> Any:
    if path == "":  # as a Path it would be the folder that one stands in
        raise ValueError("it is '', which names no folder; write . for this one")
    return path


#: The largest float32, rounded down: what weights and their updates are computed in.
MOST = 3.4e38

#: Text in a file, a Path in Python, text again in JSON.
Folder = Annotated[
    Path,
    Field(strict=False),
    BeforeValidator(_not_empty),
    AfterValidator(named_path),
]
Positive = Annotated[float, Field(gt=0, le=MOST, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, lt=2**63)]


#: Of a run that says nothing of its length.
USUAL_EPOCHS = 3


class Section(BaseModel):
    """Base of all sections: no unknown key, no silent conversion, no later change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ModelConfig(BaseModel):
    """Which model is trained; whatever else stands here is an option of its family.

    Attributes:
        name: hub name or local folder; excludes ``build``.
        build: make a small one with fresh weights, by these options; excludes ``name``.
        type: model family; None: the one that the task names.
        freeze: module names whose weights stay as they are.
        lora: train low-rank adapters instead of the weights, by these options.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: Annotated[str, Field(min_length=1)] | None = None
    build: dict[str, Any] | None = None
    type: Annotated[str, Field(min_length=1)] | None = None
    freeze: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    lora: dict[str, Any] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What the family's constructor is given."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if self.name is not None and self.build is not None:
            raise ValueError("name and build are both given; keep one of them")
        if self.name is None and self.build is None:
            raise ValueError(
                "name is missing; give a hub name or a folder, or build: {} for a "
                "small fresh model"
            )
        return self


class OptimizerConfig(Section):
    """How weights are updated; what is left out has torch's default.

    Attributes:
        type: ``adamw``, ``adam`` or ``sgd``.
        lr: learning rate; schedules take it as the full rate.
        weight_decay: decay of the weights.
        betas: decay rates of the two moments, in [0, 1); not for ``sgd``.
        eps: added to the denominator; not for ``sgd``.
        momentum: for ``sgd`` only.
        no_decay_on_vectors: leave biases and norms (parameters of fewer than two
            dimensions) out of the weight decay.
    """

    type: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Positive = 5e-5
    weight_decay: NotNegative = 0.01
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] | None = None
    eps: Positive | None = None
    momentum: NotNegative | None = None
    no_decay_on_vectors: bool = False

    @model_validator(mode="after")
    def _fits_the_type(self) -> Self:
        foreign = ("betas", "eps") if self.type == "sgd" else ("momentum",)
        for name in foreign:
            if getattr(self, name) is not None:
                raise ValueError(f"{name} does not belong to {self.type!r}; remove it")
        return self


class TrainingConfig(Section):
    """The loop: how long, how precise, where to.

    Attributes:
        num_epochs: passes over the training rows; None: 3, or as many as
            ``max_steps`` takes.
        max_steps: steps after which training ends, whatever the epoch; None: no limit.
        precision: number format of the forward and backward pass.
        gradient_accumulation_steps: batches of one optimizer step.
        max_grad_norm: 2-norm that gradients are clipped to; None or 0: no clipping.
        save_dir: folder of the run, relative to the working directory.
        device: ``cpu``, ``cuda``, ``cuda:N``; None: CUDA when there is one.
        nonfinite: stop with an error, or skip, at a NaN or infinite loss or gradient.
        stop_on_sigusr1: whether SIGUSR1 ends the run as SIGTERM does; else it only
            saves. A batch system can send it ahead of its time limit.
        tf32: whether fp32 products may round their factors to TF32; None: as torch has
            it.
        compile: compile the forward pass; true, or arguments of ``torch.compile``.
        cuda_graphs: record the work of a step once and replay it.
        loss_per: what the loss of a batch is a mean over, such as ``samples``, where
            batches do not say it, as those of model families do; None: it is measured.
        optimizer: how weights are updated.
    """

    older_keys: ClassVar = GUIDE_KEYS

    num_epochs: Count | None = None
    max_steps: Count | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_accumulation_steps: Count = 1
    max_grad_norm: NotNegative | None = None
    save_dir: Folder = Path("runs/default")
    device: str | None = None
    nonfinite: Literal["stop", "skip"] = "stop"
    stop_on_sigusr1: bool = False
    tf32: bool | None = None
    compile: bool | dict[str, Any] = False
    cuda_graphs: bool = False
    loss_per: Annotated[str, AfterValidator(_unit)] | None = None
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)

    @model_validator(mode="before")
    @classmethod
    def _has_an_end(cls, given: Any) -> Any:
        lengths = ("num_epochs", "max_steps")
        if isinstance(given, dict) and all(given.get(each) is None for each in lengths):
            return {**given, "num_epochs": USUAL_EPOCHS}
        return given


class Config(Section):
    """A whole configuration.

    Attributes:
        task: what the model is asked to do: a name, or one over its options.
        seed: of weights, data order and dropout.
        data: rows, images and batches.
        model: which model is trained.
        training: the loop.
        plugins: what is enabled, by the name it has in the run.
        requires: distributions that must be installed, as pip would be told:
            ``trainbus-ema>=0.2,<1``.
    """

    task: str | dict[str, Any] = DEFAULT_TASK
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: DataConfig
    model: ModelConfig
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    plugins: dict[str, PluginSpec] = Field(default_factory=dict)
    requires: list[str] = Field(default_factory=list)

    # Knows where each value was written; None for one made in Python.
    _source: Document | None = PrivateAttr(default=None)

    def place(self, path: tuple[str | int, ...]) -> str:
        """Return ``"file:line: a.b"`` of a value, for messages."""
        if self._source is None:
            return dotted(path)
        if path[:1] == ("plugins",):
            return self._source.plugin_place(path)
        return self._source.place(path)
