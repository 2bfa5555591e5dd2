"""A recorded step does what an unrecorded one does, or is not recorded, and says why.

Here a tape stands for the device's recorder; it is as strict about what is fixed.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import Regression, SavesAt, regression_batches, weights_of

from trainbus_cuda_graphs.graphed_window import GraphedWindow
from training import Callback, NonFiniteError, Trainer, hookimpl
from training.plugin import UnreadWindow

from .graphed import RATE, assert_same_weights, trainer_of

pytestmark = pytest.mark.usefixtures("tape")


class Halves(Callback):
    """Halves the rate after some steps, as a schedule does."""

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step % 3 == 0:
            for group in trainer.optimizer.param_groups:
                group["lr"] /= 2


class Logger(Callback):
    """Keeps the logs as mappings, and reads them when the run is over."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def on_step_end(self, logs: Any) -> None:
        self.kept.append(logs)

    def on_train_end(self) -> None:
        self.logs = [dict(logs) for logs in self.kept]


def momentum(parameters: Any, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, momentum=0.9, **options)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("norm", [None, 0.5], ids=["no clipping", "clipping"])
@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, momentum])
def test_replayed_steps_end_in_the_weights_of_a_run_without_recordings(
    precision: str, norm: float | None, accumulation: int, optimizer: Any, tape: Any
) -> None:
    runs = []
    for graphs in (False, True):
        logger = Logger()
        trainer = trainer_of(
            None,
            logger,
            Halves(),
            cuda_graphs=graphs,
            precision=precision,
            max_grad_norm=norm,
            gradient_accumulation_steps=accumulation,
            optimizer=optimizer,
            num_epochs=3,
        )
        trainer.train()
        runs.append((trainer, logger.logs))
    (plain, plain_logs), (recorded, logs) = runs
    assert type(plain._run.window) is UnreadWindow
    batches, steps = 30 - 3 * accumulation, recorded.step - 3
    assert (tape.recordings, tape.replays) == (2, batches + steps)
    assert_same_weights(plain, recorded)
    assert logs == plain_logs
    assert recorded.update == plain.update


def uneven_batches() -> list[Any]:
    """Return ten batches of two rows and then one of one row, as an epoch ends."""
    *batches, (x, y) = regression_batches(11)
    return [*batches, (x[:1], y[:1])]


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_batch_of_another_form_joins_the_recorded_ones_unrecorded(
    accumulation: int, tape: Any, caplog: pytest.LogCaptureFixture
) -> None:
    plain, recorded = (
        trainer_of(
            cuda_graphs=graphs,
            batches=uneven_batches(),
            gradient_accumulation_steps=accumulation,
            num_epochs=3,
        )
        for graphs in (False, True)
    )
    plain.train()
    recorded.train()
    assert tape.recordings == 2
    assert_same_weights(plain, recorded)
    said = [r.message for r in caplog.records if "other forms" in r.message]
    assert len(said) == 1


def test_batches_that_are_never_alike_are_never_recorded(
    tape: Any, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = [2, 3] * 5
    batches = [
        (torch.ones(size, 4) * i, torch.ones(size, 1)) for i, size in enumerate(sizes)
    ]
    trainer_of(batches=batches).train()
    assert tape.recordings == 0
    assert "two batches of one form in a row" in caplog.text


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("norm", [None, 1.0], ids=["no clipping", "clipping"])
def test_a_bad_batch_never_reaches_the_weights_through_a_replay(
    precision: str, norm: float | None, tape: Any
) -> None:
    batches = regression_batches(10)
    x, y = batches[6]
    batches[6] = (x * float("nan"), y)
    good = trainer_of(batches=batches[:6], precision=precision, max_grad_norm=norm)
    good.train()
    bad = trainer_of(batches=batches, precision=precision, max_grad_norm=norm)
    with pytest.raises(NonFiniteError, match="left the weights alone"):
        bad.train()
    assert (bad.step, bad.update) == (6, 6)
    assert_same_weights(good, bad)


def test_a_batch_without_items_changes_nothing(tape: Any) -> None:
    class Weighed(dict[str, Tensor]):
        loss_weight = 2

    def batches() -> list[Any]:
        made = [Weighed(x=x, y=y) for x, y in regression_batches(10)]
        made[7].loss_weight = 0
        return made

    runs = [trainer_of(cuda_graphs=graphs, batches=batches()) for graphs in (0, 1)]
    for trainer in runs:
        trainer.train()
        assert trainer.state.progress.skipped_windows == 1
    assert tape.recordings == 2
    assert_same_weights(*runs)


def test_gradients_that_a_plugin_changes_are_changed_in_an_unrecorded_attempt(
    tape: Any,
) -> None:
    class Doubles:
        @hookimpl
        def on_before_step(self, trainer: Trainer) -> None:
            for parameter in trainer.model.parameters():
                assert parameter.grad is not None
                parameter.grad *= 2

    runs = [trainer_of(None, Doubles(), cuda_graphs=graphs) for graphs in (False, True)]
    for trainer in runs:
        trainer.train()
    assert tape.replays == 7  # the batches after the first three; no attempt
    assert_same_weights(*runs)


class Meddles(Callback):
    """Does something after step 6 that a recording would not notice."""

    def __init__(self, what: str) -> None:
        self.what = what

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step != 6:
            return
        weight = next(trainer.model.parameters())
        if self.what == "a decay":
            trainer.optimizer.param_groups[0]["weight_decay"] = 0.5
        elif self.what == "a frozen weight":
            weight.requires_grad_(False)
        elif self.what == "a mode":
            trainer.model.layers[2].eval()  # type: ignore[index, union-attr]
        elif self.what == "a weight's place":
            weight.data = weight.data * 2
        elif self.what == "the optimizer's state":
            trainer.optimizer.load_state_dict(trainer.optimizer.state_dict())
        elif self.what == "a group":
            new = nn.Parameter(torch.ones(1))
            trainer.optimizer.add_param_group({"params": [new], "lr": RATE})


@pytest.mark.parametrize(
    "what",
    [
        "a decay",
        "a frozen weight",
        "a mode",
        "a weight's place",
        "the optimizer's state",
        "a group",
    ],
)
def test_a_change_behind_a_recording_starts_it_over(what: str, tape: Any) -> None:
    runs = []
    for graphs in (False, True):
        torch.manual_seed(0)
        model = Regression(dropout=0.5 if what == "a mode" else 0.0)
        trainer = trainer_of(
            model, Meddles(what), cuda_graphs=graphs, batches=regression_batches(14)
        )
        trainer.train()
        runs.append(trainer)
    assert tape.recordings == 4
    if what != "a mode":  # a CPU's dropout draws from another place in a replay
        assert_same_weights(*runs)


def test_what_keeps_changing_ends_the_recording_with_a_sentence(
    tape: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Cycles(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            if trainer.step % 5 == 0:
                trainer.optimizer.param_groups[0]["weight_decay"] *= 0.5

    runs = [
        trainer_of(None, Cycles(), cuda_graphs=graphs, batches=regression_batches(40))
        for graphs in (False, True)
    ]
    for trainer in runs:
        trainer.train()
    assert tape.recordings == 2 * 3
    assert "keeps changing" in caplog.text
    assert_same_weights(*runs)


def test_a_resumed_run_ends_in_the_weights_of_a_whole_one(tmp_path: Any) -> None:
    whole = trainer_of(
        None, SavesAt(7, tmp_path / "half.pt"), batches=regression_batches(20)
    )
    whole.train()
    resumed = trainer_of(batches=regression_batches(20))
    resumed.load_checkpoint(tmp_path / "half.pt")
    resumed.train()
    assert_same_weights(whole, resumed)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_parts_of_a_loss_are_logged_by_replays_as_without(
    accumulation: int, tape: Any
) -> None:
    def step(model: nn.Module, batch: Any) -> dict[str, Any]:
        loss = model(*batch)["loss"]
        return {"loss": loss, "half": loss / 2, "size": batch[0].abs().max()}

    logs = []
    for graphs in (False, True):
        logger = Logger()
        options = {"gradient_accumulation_steps": accumulation, "step_fn": step}
        trainer_of(None, logger, cuda_graphs=graphs, num_epochs=2, **options).train()
        logs.append(logger.logs)
    assert tape.replays > 0
    assert logs[0] == logs[1]
    assert len({each["size"] for each in logs[0]}) > 2


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_on_a_gpu_replayed_steps_end_in_the_weights_of_a_run_without(
    precision: str, accumulation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    runs = []
    for graphs in (False, True):
        model = Regression().cuda()
        trainer = Trainer(
            model=model,
            train_dataloader=uneven_batches(),
            optimizer=torch.optim.AdamW(model.parameters(), lr=RATE, fused=True),
            device="cuda",
            precision=precision,
            max_grad_norm=0.5,
            gradient_accumulation_steps=accumulation,
            num_epochs=3,
            cuda_graphs=graphs,
        )
        trainer.train()
        runs.append(trainer)
    assert isinstance(runs[1]._run.window, GraphedWindow)
    assert runs[1]._run.window._recording is not None
    for a, b in zip(*(weights_of(each.model) for each in runs), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_bad_batch_never_reaches_the_weights_through_a_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    model = Regression().cuda()
    batches = regression_batches(10)
    batches[6] = (batches[6][0] * float("nan"), batches[6][1])
    trainer = Trainer(
        model=model,
        train_dataloader=batches,
        optimizer=torch.optim.AdamW(model.parameters(), lr=RATE, fused=True),
        device="cuda",
        cuda_graphs=True,
    )
    with pytest.raises(NonFiniteError):
        trainer.train()
    assert trainer.step == 6
    assert all(bool(torch.isfinite(weight).all()) for weight in weights_of(model))


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_what_a_recording_reads_is_of_float32_whatever_the_default_type_of_torch_is(
    kind: torch.dtype, tape: Any
) -> None:
    plain, recorded = (trainer_of(cuda_graphs=graphs) for graphs in (False, True))
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        plain.train()
        recorded.train()
    finally:
        torch.set_default_dtype(before)
    assert tape.replays
    assert_same_weights(plain, recorded)
