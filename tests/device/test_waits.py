"""A run on a device without data: who would make the CPU wait for a GPU."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import torch
from device.nets import WORKS

from training import (
    Callback,
    CSVLoggerCallback,
    EarlyStoppingCallback,
    EvaluationCallback,
    LearningRateSchedulerCallback,
    ModelCheckpointCallback,
    ProgressBarCallback,
    TensorBoardCallback,
)
from training.testing import assert_no_waits, waits_of
from training.testing.toys import TinyModel
from training.testing.waits import LAST, Wait


@pytest.fixture(autouse=True)
def examples(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the examples be found, which are not installed."""
    monkeypatch.syspath_prepend(str(repository / "examples" / "ema" / "src"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shipped(precision: str) -> list[Any]:
    """Return all that observe and decide; the bar draws at every batch.

    A rate that follows updates depends on whether there was one, which fp16 has to ask.
    """
    interval: Any = "epoch" if precision == "fp16" else "step"
    bar = ProgressBarCallback()
    bar.stream = Terminal()  # type: ignore[assignment]
    return [
        bar,
        CSVLoggerCallback(),
        TensorBoardCallback(),
        LearningRateSchedulerCallback(type="cosine", interval=interval),
        EvaluationCallback(sanity_batches=0),
        EarlyStoppingCallback(monitor="val_loss"),
        ModelCheckpointCallback(monitor="val_loss"),
    ]


def average(precision: str) -> list[Any]:
    from trainbus_ema import EmaCallback

    return [EmaCallback()]


def nothing(precision: str) -> list[Any]:
    return []


PRECISIONS, NORMS, ACCUMULATIONS = ("fp32", "bf16", "fp16"), (None, 1.0), (1, 2)
PLUGINS = (nothing, shipped, average)
#: Lines of a library, in which a forward pass of its model reads a mask.
READ_BY_LIBRARIES = {"chat": "/transformers/masking_utils.py"}


#: 12 of the 144 rows, in which each two values of two columns meet.
PAIRS = [
    ("perceptron", nothing, "fp32", 1.0, 1),
    ("perceptron", shipped, "bf16", 1.0, 2),
    ("perceptron", average, "fp16", None, 1),
    ("blip", nothing, "fp32", None, 2),
    ("blip", shipped, "fp16", None, 2),
    ("blip", average, "bf16", 1.0, 1),
    ("chat", nothing, "fp16", None, 1),
    ("chat", shipped, "fp32", 1.0, 1),
    ("chat", average, "bf16", None, 2),
    ("image_classifier", nothing, "bf16", None, 1),
    ("image_classifier", shipped, "fp16", 1.0, 2),
    ("image_classifier", average, "fp32", 1.0, 2),
]
COLUMNS = ([*WORKS], PLUGINS, PRECISIONS, NORMS, ACCUMULATIONS)


def waits_in(row: Sequence[Any], folder: Path, last: int) -> list[Wait]:
    """Return who waited in a run, but for what is said to."""
    work, plugins, precision, max_norm, accumulation = row
    model, batches, options = WORKS[work]()
    if plugins is shipped:
        options["val_dataloader"] = batches
    present = plugins(precision)
    found = waits_of(
        *present,
        save_dir=folder,
        model=model,
        train_dataloader=batches,
        precision=precision,
        max_grad_norm=max_norm,
        gradient_accumulation_steps=accumulation,
        last=last,
        **options,
    )
    says = {name for each in present for name in each.reads_device}
    library = READ_BY_LIBRARIES.get(work, "nowhere")
    return [w for w in found if w.hook not in says and library not in w.place]


@pytest.mark.parametrize("row", PAIRS, ids=lambda row: f"{row[0]}, {row[1].__name__}")
def test_between_two_steps_nobody_waits_for_the_device(
    row: Sequence[Any], tmp_path: Path
) -> None:
    assert waits_in(row, tmp_path, last=3) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("row", [*product(*COLUMNS)], ids=str)
def test_nobody_waits_whatever_is_put_together(
    row: Sequence[Any], tmp_path: Path
) -> None:
    assert waits_in(row, tmp_path, last=LAST) == []


def test_each_two_of_what_can_be_put_together_are_looked_at() -> None:
    for (i, ones), (j, others) in combinations(enumerate(COLUMNS), 2):
        assert {(row[i], row[j]) for row in PAIRS} == {*product(ones, others)}


class AsksEveryStep(Callback):
    def on_step_end(self, applied: bool) -> None:
        self.last = bool(applied)


class LooksTheLossUp(Callback):
    def on_batch_end(self, logs: Any) -> None:
        self.last = logs["loss"]


class ReadsAnItem(Callback):
    def on_step_end(self, trainer: Any) -> None:
        self.last = next(trainer.model.parameters()).sum().item()


class AsksWhetherAny(Callback):
    def on_before_step(self, trainer: Any) -> None:
        self.last = any((p.grad > 9).any() for p in trainer.model.parameters())


class ChoosesByAMask(Callback):
    def on_before_step(self, trainer: Any) -> None:
        gradient = next(trainer.model.parameters()).grad
        self.last = gradient[gradient > 0].sum()


class CopiesToTheHost(Callback):
    def on_step_end(self, trainer: Any) -> None:
        self.last = [each.cpu() for each in trainer.model.parameters()]


class CopiesFromTheHost(Callback):
    def on_before_step(self, trainer: Any) -> None:
        self.last = torch.ones(3).to(trainer.device)


class Synchronizes(Callback):
    def on_step_end(self) -> None:
        torch.cuda.synchronize()


class AsksForCheckpoints(Callback):
    def on_step_end(self, trainer: Any) -> None:
        trainer.request_checkpoint("always")


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (AsksEveryStep, r"AsksEveryStep\.on_step_end .*a number on its way"),
        (LooksTheLossUp, r"LooksTheLossUp\.on_batch_end .*logs\[\"loss\"\]"),
        (ReadsAnItem, r"ReadsAnItem\.on_step_end .*\.item\(\), in 6 of 6 steps"),
        (AsksWhetherAny, r"AsksWhetherAny\.on_before_step .*\(p\.grad > 9\)"),
        (ChoosesByAMask, r"ChoosesByAMask\.on_before_step .*a mask as an index"),
        (CopiesToTheHost, r"CopiesToTheHost\.on_step_end .*a copy to the host"),
        (CopiesFromTheHost, r"CopiesFromTheHost\..*a copy to the device"),
        (Synchronizes, r"Synchronizes\.on_step_end .*synchronize"),
        (AsksForCheckpoints, r"the trainer waits .*in settle"),
    ],
)
def test_a_plugin_that_waits_is_told_with_its_line(
    plugin: type[Any], words: str
) -> None:
    precision = "fp16" if plugin is AsksEveryStep else "fp32"
    with pytest.raises(AssertionError, match=words):
        assert_no_waits(plugin(), precision=precision)


class ReadsLater(Callback):
    """Reads what has come by then, and copies without waiting."""

    def on_setup(self) -> None:
        self.coming: Any = None

    def on_step_end(self, trainer: Any, logs: Any) -> None:
        torch.ones(3).to(trainer.device, non_blocking=True)
        gradient = next(trainer.model.parameters())
        gradient[torch.zeros(2, dtype=torch.int64)]
        if self.coming is not None and self.coming.is_here:
            self.coming.value()
        self.coming = logs.later("loss")


class SaysThatItReads(LooksTheLossUp):
    reads_device = {"on_batch_end": "the next batch depends on the loss"}  # noqa: RUF012


@pytest.mark.parametrize("plugin", [ReadsLater, SaysThatItReads])
def test_who_reads_what_is_there_or_says_so_passes(plugin: type[Any]) -> None:
    assert_no_waits(plugin(), precision="fp32")


class SeesGradients(Callback):
    """Reads nothing; under fp16 the trainer does, before it lets anybody see them."""

    def on_before_step(self) -> None: ...


class SaysThatItSeesThem(SeesGradients):
    reads_device = ("on_before_step",)


class SaysSoAndReads(SaysThatItSeesThem):
    def on_step_end(self, logs: Any) -> None:
        self.last = logs["loss"]


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (SeesGradients, "the trainer, for a listener to on_before_step, waits .*_step"),
        (SaysSoAndReads, r"device\nSaysSoAndReads\.on_step_end waits [^\n]*$"),
    ],
)
def test_a_listener_before_the_step_that_does_not_say_what_it_costs_is_told(
    plugin: type[Any], words: str
) -> None:
    with pytest.raises(AssertionError, match=words):
        assert_no_waits(plugin(), precision="fp16")


def test_a_listener_before_the_step_that_says_what_it_costs_passes() -> None:
    assert_no_waits(SaysThatItSeesThem())


class AsksForEvaluations(Callback):
    def on_step_end(self, trainer: Any) -> None:
        if trainer.step % 4 == 0:
            trainer.request_evaluation("every four steps")


class ShortensEpochs(Callback):
    """Reads at the ends of an epoch, of which there are more than one."""

    alters_training = True

    def wrap_dataloader(self, dataloader: Any) -> Any:
        return dataloader[:3]

    def on_epoch_begin(self, trainer: Any) -> None:
        self.last = next(trainer.model.parameters()).sum().item()

    on_epoch_end = on_epoch_begin


@pytest.mark.parametrize("plugin", [AsksForEvaluations, ShortensEpochs])
def test_what_belongs_to_an_evaluation_or_an_epochs_end_is_not_the_plugins(
    plugin: type[Any],
) -> None:
    assert_no_waits(plugin())


class AsksAndReads(AsksForEvaluations):
    def on_step_end(self, trainer: Any, logs: Any) -> None:
        super().on_step_end(trainer)
        self.last = logs["loss"]


def test_who_asks_for_evaluations_is_still_held_to_its_own_reads() -> None:
    with pytest.raises(AssertionError, match=r"AsksAndReads\.on_step_end .*in 6 of 6"):
        assert_no_waits(AsksAndReads(), precision="fp32")


def test_by_default_both_a_plain_and_a_scaled_run_are_looked_at() -> None:
    with pytest.raises(AssertionError, match="AsksEveryStep"):
        assert_no_waits(AsksEveryStep())


@pytest.mark.parametrize(
    ("options", "begins"),
    [
        pytest.param({"make_optimizer": torch.optim.AdamW}, 2, id="not fused"),
        pytest.param({"nonfinite": "skip"}, 2, id="must know each step"),
        pytest.param({"last": 40}, 16, id="the host is 16 steps ahead"),
    ],
)
def test_the_trainer_waits_in_each_step_where_it_has_to(
    options: dict[str, Any], begins: int, tmp_path: Path
) -> None:
    found = waits_of(save_dir=tmp_path, **options)
    assert {wait.owner for wait in found} == {"the trainer"}
    steps = {wait.step for wait in found}
    assert begins <= min(steps) <= begins + 1
    assert steps == {*range(min(steps), options.get("last", LAST))}


class Reads(TinyModel):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        x[x.sum() > 0]
        if y.sum() > 0:
            x = x + 1
        return super().forward(x, y)


def test_a_model_that_waits_is_told_from_the_trainer(tmp_path: Path) -> None:
    found = waits_of(save_dir=tmp_path, model=Reads(), loss_per="samples")
    assert {wait.owner for wait in found} == {"the model"}
    assert "if y.sum() > 0" in found[-1].place


class Counts(TinyModel):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        if int((y == y).sum()) != y.numel():
            raise RuntimeError("some targets are no numbers")
        return super().forward(x, y)


def test_a_model_that_cannot_go_on_without_numbers_is_told_with_the_line(
    tmp_path: Path,
) -> None:
    with pytest.raises(RuntimeError, match="are no numbers") as raised:
        waits_of(save_dir=tmp_path, model=Counts(), loss_per="samples")
    (note,) = [n for n in raised.value.__notes__ if n.startswith("its numbers")]
    assert "int((y == y).sum())" in note
