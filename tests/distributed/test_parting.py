"""A process that fails and lives on keeps nobody waiting; nor does one out of step."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ranks import Ranks
from torch.distributed import DistNetworkError
from toy import make_trainer

from trainbus_distributed.farewell import lost_words
from trainbus_distributed.group import hang_up_all
from trainbus_distributed.lines import LineError
from trainbus_distributed.waiting import (
    Call,
    OutOfStepError,
    Waiting,
    is_mixed,
    out_of_step,
)
from training import Callback, NonFiniteError, PluginError, TrainbusError, Trainer

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(300)]

#: Seconds within which all know: less than the timeout by far.
SOON, TIMEOUT = 10.0, 60.0


class DoesAlone(Callback):
    """Does one thing in the second step, in one process only."""

    name = "does_alone"

    def __init__(self, rank: int, work: Callable[[Trainer], object]) -> None:
        self.rank, self.work = rank, work

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == 2 and trainer.rank == self.rank:
            self.work(trainer)


def run_of(*callbacks: Callback, **options: Any) -> Trainer:
    options["plugins"] = [{"distributed": {"timeout": TIMEOUT}}]
    return make_trainer(None, None, *callbacks, device="cpu", **options)


def told(work: Callable[[], object]) -> tuple[str, float]:
    """Return what ``work`` raises, and after how many seconds."""
    begun = time.monotonic()
    try:
        work()
    except (TrainbusError, OSError) as error:
        return f"{type(error).__name__}: {error}", time.monotonic() - begun
    return "", time.monotonic() - begun


def breaks(trainer: Trainer) -> None:
    raise OSError("broken")


def failing_alike_and_alone() -> list[tuple[str, float]]:
    """Fail on all processes, train, and fail on one; what each learns of it."""
    nans = run_of(step_fn=lambda model, batch: model(*batch)["loss"] * float("nan"))
    with pytest.raises(NonFiniteError):
        nans.train()
    return [
        told(run_of().train),
        told(run_of(DoesAlone(1, breaks)).train),
        told(run_of),  # of one that lives on
    ]


class Unsendable:
    """What cannot be pickled."""

    def __reduce__(self) -> Any:
        raise TypeError("cannot be sent")


def asked_of_main() -> list[str]:
    """Let main return what cannot be sent; what each learns of it, then a sum."""
    strategy = run_of().strategy
    found = []
    for work in (Unsendable, lambda: 1 / 0):
        try:
            strategy.on_main(work)
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
    return [*found, str(strategy.sum([1.0]))]


def test_d35_what_main_cannot_send_is_everybody_s_error(two: Ranks) -> None:
    told = ["TypeError: cannot be sent", "ZeroDivisionError: division by zero"]
    assert two.run(asked_of_main) == [[*told, "[2.0]"]] * 2


@pytest.mark.slow
def test_d35_one_that_fails_and_lives_on_keeps_nobody_waiting(parted: Ranks) -> None:
    main, other = parted.run(failing_alike_and_alone)
    assert main[0][0] == other[0][0] == ""  # all failed alike: they go on together
    assert main[1][0] == "PeerFailedError: rank 1 failed: OSError: broken"
    assert other[1][0] == "OSError: broken"
    for words, _ in (main[2], other[2]):
        assert "have parted (rank 1 failed: OSError: broken)" in words
        assert words.endswith("end this one, and start all anew")
    assert all(seconds < SOON for _, seconds in (*main, *other))


def failing_a_batch_apart() -> list[tuple[str, float]]:
    """Fail in the second or third batch of a window, by the rank; then train again."""
    calls = [0]

    def fails(model: Any, batch: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2 + trainer.rank:
            raise OSError("broken")
        return model(*batch)["loss"]

    options = {"loss_per": "samples", "gradient_accumulation_steps": 4}
    trainer = run_of(step_fn=fails, **options)
    return [told(trainer.train), told(run_of().train)]


@pytest.mark.slow
def test_d35_who_has_failed_a_batch_later_may_train_again_with_the_others(
    parted: Ranks,
) -> None:
    for (first, _), (second, seconds) in parted.run(failing_a_batch_apart):
        assert first == "OSError: broken"
        assert second == ""
        assert seconds < SOON


def saving_alone(folder: Path) -> tuple[str, float]:
    plugin = DoesAlone(0, lambda trainer: trainer.save_checkpoint(folder / "a.pt"))
    return told(run_of(plugin).train)


@pytest.mark.exhaustive
def test_a_save_by_one_process_alone_is_told_on_all(
    parted: Ranks, tmp_path: Path
) -> None:
    for words, seconds in parted.run(saving_alone, tmp_path):
        assert "wait for one another in different calls: rank 0 in save_check" in words
        assert "(test_parting.py, line " in words
        assert seconds < SOON + 5.0


def calling_after_a_run(call: str, engine: str, folder: Path) -> str:
    """Train; then main saves or loads, and the other has ended; what main is told."""
    plugins = [{"distributed": {"timeout": TIMEOUT, "engine": engine}}]
    trainer = make_trainer(None, None, device="cpu", plugins=plugins)
    trainer.train()
    if not trainer.is_main:
        hang_up_all()  # as the end of a process does
        return ""
    words, seconds = told(lambda: getattr(trainer, call)(folder / "a.pt"))
    assert seconds < SOON
    return words


@pytest.mark.parametrize(
    ("call", "engine"),
    [
        ("save_checkpoint", "ddp"),
        pytest.param("save_checkpoint", "fsdp2", marks=pytest.mark.exhaustive),
        pytest.param("load_checkpoint", "ddp", marks=pytest.mark.exhaustive),
    ],
)
def test_d35_who_calls_alone_after_a_run_is_told_to_call_in_all(
    parted: Ranks, tmp_path: Path, call: str, engine: str
) -> None:
    words, _ = parted.run(calling_after_a_run, call, engine, tmp_path)
    assert words.startswith(f"PeerFailedError: {call} (test_parting.py, line ")
    assert "waits for all processes of the run, and another one has ended" in words
    assert "call it in all of them, not only 'if trainer.is_main'" in words


def resuming_alone() -> str:
    trainer = run_of()
    return told(lambda: trainer.train(resume="auto" if trainer.is_main else None))[0]


@pytest.mark.exhaustive
def test_d35_who_resumes_alone_is_told_so_on_all(parted: Ranks) -> None:
    for words in parted.run(resuming_alone):
        assert "wait for one another in different calls: rank 0 in train (" in words
        assert "by 'gather go_on', rank 1 in train (" in words


class CallsAlone(Callback):
    """Waits for the others at a place to which only the main process comes.

    Args:
        place: before a batch, or behind an optimizer's step.
    """

    name = "calls_alone"

    def __init__(self, place: str) -> None:
        self.place = place

    def on_setup(self, trainer: Trainer) -> None:
        if self.place == "behind an optimizer's step":
            trainer.optimizer.register_step_post_hook(lambda *_: self.call(trainer))

    def on_batch_begin(self, trainer: Trainer) -> None:
        if self.place == "before a batch":
            self.call(trainer)

    def call(self, trainer: Trainer) -> None:
        if trainer.is_main and trainer.step == 1:
            trainer.strategy.gather(1)


def calling_alone(place: str) -> tuple[str, float]:
    return told(run_of(CallsAlone(place)).train)


@pytest.mark.parametrize("place", ["before a batch", "behind an optimizer's step"])
def test_d35_who_waits_while_the_others_are_in_a_pass_is_told_so(
    parted: Ranks, place: str
) -> None:
    (words, soon), (_, seconds) = parted.run(calling_alone, place)
    assert words.startswith("OutOfStepError: ")
    assert "rank 0 in gather (test_parting.py, line " in words
    if place == "before a batch":
        assert "rank 1 in a pass of the model" in words
    assert soon < SOON
    assert seconds < SOON


@pytest.mark.parametrize(
    ("calls", "mixed"),
    [
        ([[7, "sum of 1", "a"], [7, "sum of 1", "a"]], False),
        ([[7, "sum of 1", "a"], None], False),
        ([[7, "sum of 1", "a"], [7, "gather of 0", "a"]], True),
        ([[7, "sum of 1", "a"], [8, "sum of 1", "a"]], True),
    ],
    ids=["the same", "one computes", "other calls", "one call more"],
)
def test_processes_are_out_of_step_when_all_wait_elsewhere(
    calls: list[Any], mixed: bool
) -> None:
    assert is_mixed(calls) is mixed


def test_who_is_out_of_step_is_told_by_rank() -> None:
    words = out_of_step([[7, "sum of 1", "save_checkpoint (a.py, line 3)"], None])
    assert "rank 0 in save_checkpoint (a.py, line 3), rank 1 is elsewhere" in words


def test_who_is_out_of_step_at_one_place_is_told_by_the_inner_call() -> None:
    at = "train (a.py, line 3)"
    words = out_of_step([[7, "gather go_on", at], [7, "on_main agree", at]])
    assert f"rank 0 in {at}, by 'gather go_on', rank 1 in {at}, by 'on_main ag" in words


@pytest.mark.parametrize(
    "other",
    [(7, "gather "), (8, "sum of 1"), (7, "sum of 2")],
    ids=["of another kind", "a later one", "of more numbers"],
)
def test_d35_what_was_said_in_another_call_is_no_answer(other: Call) -> None:
    own = (7, "sum of 1")
    waiting = Waiting(None, rank=0, size=2)
    waiting.require_same([own, own], own)
    told = f"in different calls: .*, rank 1 in the call '{other[1]}'"
    with pytest.raises(OutOfStepError, match=told):
        waiting.require_same([own, other], own)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (LineError("connection closed by another process"), True),
        (RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed"), True),
        (DistNetworkError("Broken pipe"), True),
        (RuntimeError("connection to the database was refused"), False),
        (RuntimeError("the store has no socket, timeout"), False),
        (OSError("gloo is no room"), False),
    ],
    ids=["a line", "gloo", "the store", "a database", "words alone", "another class"],
)
def test_d35_only_what_torch_or_a_line_says_is_a_lost_process(
    error: Exception, lost: bool
) -> None:
    behind = PluginError("cannot measure")
    behind.__cause__ = error
    assert (lost_words(error) is not None) is lost
    assert (lost_words(behind) is not None) is lost
