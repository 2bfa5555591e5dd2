"""Whether a plugin is right on many processes: it runs on two, which are compared.

They are forked, so that any ``make`` will do and none imports torch again. Where the
plugin that divides a run is not installed, or torch has begun threads for devices,
nothing is tried.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from training.discovery.installed import installed
from training.errors import ConfigError, MetricError, PluginError
from training.hardware.launch import number_started
from training.messages.tables import count
from training.testing.case import Case
from training.testing.checking import error_with_notes
from training.testing.seen_by_rank import SeenByRank

#: What divides a run.
DIVIDER = "distributed"
#: Seconds that a process waits for the other one, and that both may take in all.
WAITS, ENDS = 15.0, 60.0
#: What an error says where one process has waited for another, which was elsewhere.
NOT_THERE = (
    *("in different calls", "has not come for", "which waits for all processes"),
    "gone without a word",
)
#: What is said where processes can be forked, but not train.
NOT_TRIED = (
    "the plugin was not tried on two processes: where torch sees a GPU, or has come to "
    "its first backward pass after torch.compile, a forked process cannot train; set "
    "CUDA_VISIBLE_DEVICES to nothing for these tests, and run them alone"
)


def check_processes(case: Case) -> list[str]:
    """Whether two processes of one run decide alike, meet, and write a file once."""
    if not is_possible():
        if _could_be():
            warnings.warn(NOT_TRIED, stacklevel=2)
        return []
    plugin = case.make()
    name = case.name_of(plugin)
    plugins = list(case.options.get("plugins", ()))
    # Whoever gives it options, as this plugin may need, has it there.
    if name != DIVIDER and not any(
        each == DIVIDER or (isinstance(each, Mapping) and DIVIDER in each)
        for each in plugins
    ):
        plugins.append({DIVIDER: {"timeout": WAITS}})
    return problems_of(
        run_on_two(lambda: case.trainer("two", plugin, plugins=plugins), name, case)
    )


def is_possible() -> bool:
    """Whether two processes can be started here and divide a run: one is, to see."""
    # Where torch sees a GPU, the first backward pass starts threads for it, and no
    # process forked later can have a backward pass.
    has_gpu = torch.accelerator.is_available()
    # Some builds start them without one. Only a forked process knows.
    return _could_be() and not has_gpu and _ended([_forked(_go_backward)]) == [0]


def _go_backward() -> None:
    torch.ones((), requires_grad=True).backward()  # type: ignore[no-untyped-call]


def _could_be() -> bool:
    """Whether they could, were there no GPU."""
    known = any(info.name == DIVIDER for info in installed())
    return known and hasattr(os, "fork") and number_started() == 1


def run_on_two(
    make_trainer: Callable[[], Any], name: str, case: Case
) -> Sequence[Mapping[str, Any]]:
    """Train on two processes; return what each has to tell.

    Args:
        make_trainer: builds the same trainer in each.
        name: of the plugin that is watched.
        case: whose folder receives what they tell.
    """
    case.folder.mkdir(parents=True, exist_ok=True)
    files = [case.folder / f"rank{rank}.json" for rank in range(2)]
    port = _free_port()
    # What divides a run imports it, in seconds: here once for all that are forked.
    importlib.import_module("torch._dynamo")
    codes = _ended(
        [
            _forked(partial(_be_rank, rank, port, make_trainer, name, file))
            for rank, file in enumerate(files)
        ]
    )
    return [_told(*each) for each in zip(files, codes, strict=True)]


def _forked(work: Callable[[], None]) -> int:
    """Return the number of a new process that does ``work``, and nothing else."""
    with warnings.catch_warnings():
        # Of threads, which may hold locks: the children compute on one of their own.
        warnings.simplefilter("ignore", DeprecationWarning)
        if pid := os.fork():
            return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)  # the end of the parent is not ours, nor what it is to print


def problems_of(told: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is wrong, from what two processes have told."""
    errors = [each["error"] for each in told]
    if all(each["is_refusal"] for each in told):
        return []  # it says that this cannot be, and both are gone
    problems = [*_asked_alone(told), *_written_twice(told)]
    # That one has failed is why the other is left waiting.
    failed = [
        each
        for each in told
        if each["error"] and not any(words in each["error"] for words in NOT_THERE)
    ]
    if any(each["is_late"] for each in told) or (any(errors) and not failed):
        places = [f"rank {r} in {each['place']}" for r, each in enumerate(told)]
        return [
            *problems,
            "on 2 processes one waits for the other, which is not there "
            f"({', '.join(places)}): sum, gather, on_main and save_checkpoint are "
            "calls of all processes, never behind an 'if' that one of them takes "
            f"({next(filter(None, errors), 'both had to be ended')})",
        ]
    return problems + [
        f"on 2 processes, after {count(each['step'], 'step')}: {each['error']}"
        for each in failed[:1]
    ]


def _asked_alone(told: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    asked = [[tuple(each) for each in one["asked"]] for one in told]
    for rank, own in enumerate(asked):
        alone = [each for each in own if each not in asked[1 - rank]]
        # Main's own requests are right: a plugin may be called there alone.
        if alone and not told[rank]["is_main_only"]:
            hook, kind, step = alone[0]
            yield (
                f"on 2 processes {hook} asks for {kind} at step {step} on rank {rank} "
                "alone: it decides by what differs between them, such as a clock (that "
                "of rank 1 is fast here); count steps, or ask the main process: "
                "trainer.strategy.on_main(lambda: ...)"
            )
            return  # what follows from it differs, too


def _written_twice(told: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    written = [dict(each["written"]) for each in told]
    for path in sorted(written[0].keys() & written[1].keys()):
        yield (
            f"on 2 processes each writes {Path(path).name!r} ({written[0][path]}): say "
            "ranks = 'main', or write in trainer.strategy.on_main(work)"
        )


def _be_rank(
    rank: int, port: int, make_trainer: Callable[[], Any], name: str, file: Path
) -> None:
    """Be one of the two processes, and tell what it has seen."""
    with file.with_suffix(".txt").open("wb") as printed:
        for number in (1, 2):
            os.dup2(printed.fileno(), number)
    for known in [each for each in os.environ if each.startswith("TORCHELASTIC")]:
        del os.environ[known]
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    os.environ.update(WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    seen = SeenByRank(name=name, file=file, is_fast=rank == 1)
    error: BaseException | None = None
    try:
        trainer = make_trainer()
        seen.watch_process(trainer)
        trainer.train()
    except BaseException as raised:
        error = raised
        traceback.print_exception(raised)
    sys.stdout.flush()
    sys.stderr.flush()
    refuses = is_refusal(error, seen.trainer)
    seen.tell("" if error is None else error_with_notes(error), refuses)


def is_refusal(error: BaseException | None, trainer: Any) -> bool:
    """Whether it says that a run cannot be so, before it has trained."""
    is_of_settings = isinstance(error, (ConfigError, MetricError))
    # What has trained was not refused: it dies, and hours may be lost.
    is_early = trainer is None or trainer.step == 0
    return is_of_settings and not isinstance(error, PluginError) and is_early


def _ended(pids: Sequence[int]) -> list[int | None]:
    """Wait for processes; return the exit code of each, None: it had to be killed."""
    codes: dict[int, int | None] = {}
    until = time.monotonic() + ENDS
    while len(codes) < len(pids):
        for pid in (pid for pid in pids if pid not in codes):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                codes[pid] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                codes[pid] = None
        time.sleep(0.02)
    return [codes[pid] for pid in pids]


def _told(file: Path, code: int | None) -> dict[str, Any]:
    """Return what a process has told, or what is known of one that could not."""
    told: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    nothing: dict[str, Any] = {"asked": [], "written": [], "place": "its start"}
    nothing |= {"error": "", "step": 0, "is_main_only": False, "is_refusal": False}
    known = {**nothing, **told}
    known["is_late"] = code is None
    if code:
        printed = file.with_suffix(".txt").read_text(errors="replace").strip()
        last = (printed.splitlines() or ["without a word"])[-1]
        known["error"] = f"the process ended with exit code {code}: {last}"
        # gloo ends a process where two calls of other kinds meet.
        known["is_late"] = code == -signal.SIGABRT
    return known


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        number: int = found.getsockname()[1]
        return number
