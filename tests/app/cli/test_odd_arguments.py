"""What stands in an argument ends in a sentence, whatever it is."""

from __future__ import annotations

import errno
import os
import resource
from argparse import Namespace
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from training.app.cli.argument_checks import refusal_of
from training.app.cli.command_line import build_parser
from training.files.durable import write_json
from training.files.named_paths import path_mistake

Command = Callable[..., tuple[int, str, str]]

CONFIG = """\
data: {train: rows/train.jsonl, validation: rows/val.jsonl, batch_size: 1}
model: {build: {}}
training: {num_epochs: 4, save_dir: out}
plugins: [evaluation, checkpointing, csv]
"""
LONG, HUGE = "a" * 5000, "9" * 290


@pytest.fixture
def planned(workplace: Path) -> Path:
    (workplace / "run.yaml").write_text(CONFIG)
    (workplace / "escape.yaml").write_text(CONFIG + '"\\e[2J\\e]0;title\\a": 1\n')
    (workplace / "circle").symlink_to("circle")
    return workplace


def sets(*words: str) -> list[str]:
    return ["plan", "run.yaml", *(part for word in words for part in ("--set", word))]


REFUSED: dict[str, list[str]] = {
    "a number for a plugin": sets("plugins.csv=1"),
    "null for a plugin": sets("plugins.csv=null"),
    "a list for a plugin": sets("plugins.csv=[1]"),
    "a text for all plugins": sets("plugins=csv"),
    "a save_dir of 5,000 letters": sets(f"training.save_dir={LONG}"),
    "a save_dir of a long name below none": sets(f"training.save_dir=x/{'a' * 300}"),
    "a data folder of 5,000 letters": sets(f"data.root={LONG}"),
    "a data file of 5,000 letters": sets(f"data.train={LONG}"),
    "a long key": sets(f"{LONG}=1"),
    "a key of dots": sets("...=1"),
    "a key with an escape sequence": sets("\x1b[2J=1"),
    "a value with an escape sequence": sets("task=\x1b[2J"),
    "a key with a NUL": sets("a\0=1"),
    "a key with half a character": sets("a\ud800=1"),
    "no key": sets("=1"),
    "num_epochs of 290 digits": sets(f"training.num_epochs={HUGE}"),
    "num_epochs of 5,000 digits": sets("training.num_epochs=" + "9" * 5000),
    "an infinite num_epochs": sets("training.num_epochs=.inf"),
    "a plugin file of 300 letters": ["plan", "run.yaml", "-p", f"./{'a' * 300}.py:X"],
    "a NUL in a plugin file": ["plan", "run.yaml", "-p", "./x\0.py:Y"],
    "a NUL in a plugin's name": ["plan", "run.yaml", "-p", "x\0"],
    "an escape sequence in a plugin's name": ["plan", "run.yaml", "-p", "\x1b[2J"],
    "an empty plugin": ["plan", "run.yaml", "-p", ""],
    "a NUL in --plugins-dir": ["plan", "run.yaml", "--plugins-dir", "\0"],
    "a --plugins-dir of 5,000 letters": ["plan", "run.yaml", "--plugins-dir", LONG],
    "an empty configuration": ["plan", ""],
    "a configuration of 5,000 letters": ["plan", LONG],
    "a configuration with a NUL": ["plan", "a\0.yaml"],
    "a configuration with an escape sequence": ["plan", "\x1b[2J.yaml"],
    "a folder for a configuration": ["plan", "."],
    "escape sequences in a key of the file": ["plan", "escape.yaml"],
    "a checkpoint with a NUL": ["export", "a\0", "b.safetensors"],
    "a target with a NUL": ["export", "a", "b\0.safetensors"],
    "a device of a million digits": [
        *("predict", "--checkpoint", "a", "--image", "b", "--question", "c"),
        *("--device", "cuda:" + "9" * 1_000_000),
    ],
    "an odd device": [
        *("predict", "--checkpoint", "a", "--image", "b", "--question", "c"),
        *("--device", "\x1b[2J"),
    ],
    "a NUL in a question": [
        *("predict", "--checkpoint", "a", "--image", "b", "--question", "c\0"),
    ],
    "a question that is not UTF-8": [
        *("predict", "--checkpoint", "a", "--image", "b", "--question", "caf\udce9"),
    ],
    "a folder to export to that is not UTF-8": ["export", "a", "caf\udce9"],
    "a csv file of 300 letters": sets(f"plugins.csv.filename={'a' * 300}"),
    "checkpoints in a folder of 300 letters": sets(
        f"plugins.checkpointing.save_dir={'a' * 300}"
    ),
    "a batch of more rows than can be counted": sets("data.batch_size=1" + "0" * 22),
    "a batch of 400 digits": sets("data.batch_size=" + "9" * 400),
    "a rate beyond float32": sets("training.optimizer.lr=1e39"),
    "a rate that is no number": sets("training.optimizer.lr=.nan"),
    "a rate of negative zero": sets("training.optimizer.lr=-0.0"),
    "an endless worker_timeout": sets("data.worker_timeout=.inf"),
    "a worker_timeout beyond the clock": sets("data.worker_timeout=1e22"),
    "a worker_timeout that is no number": sets("data.worker_timeout=.nan"),
    "a model's seed of 23 digits": sets("model.build.seed=1" + "0" * 22),
    "more sanity batches than can be counted": sets(
        "plugins.evaluation.sanity_batches=1" + "0" * 22
    ),
    "more beams than can be counted": sets("plugins.evaluation.num_beams=1" + "0" * 22),
    "more beams than anybody searches": sets("plugins.evaluation.num_beams=1001"),
    "layers without end": sets("model.build.text_layers=1" + "0" * 9),
    "a picture of a million pixels a side": sets("data.image_size=1" + "0" * 6),
    "a device with a line break": sets('training.device="cpu\\n"'),
    "a line break in a key": sets("a\nb=1"),
    "a line break in a plugin's option": sets("plugins.a\nb.x=1"),
    "a line break in a plugin's name": ["plan", "run.yaml", "-p", "a\nb"],
    "a line break in a configuration's name": ["plan", "a\nb.yaml"],
    "a line separator in a configuration's name": ["plan", "a\u2028b.yaml"],
    "a line break in a plugin to show": ["plugins", "show", "a\nb"],
    "a watchdog of 300 million years": ["run", "run.yaml", "--watchdog=1e17"],
    "a watchdog of negative zero": ["run", "run.yaml", "--watchdog=-0.0"],
    "no steps to verify": ["verify-resume", "run.yaml", "--before", "0"],
    "a schema of plugins in a file": ["config", "schema", "--plugins-dir", "run.yaml"],
    "plugins in a circle of links": ["plugins", "list", "--plugins-dir", "circle"],
    "a plugin to check with an escape": ["plugins", "check", "\x1b[2J"],
    "a new plugin below a file": ["plugins", "new", "a_b", "--into", "run.yaml"],
    "a NUL for --resume": ["run", "run.yaml", "--resume", "a\0"],
    "an empty --resume": ["run", "run.yaml", "--resume", ""],
    "a trace of 5,000 letters": ["run", "run.yaml", "--profile-trace", LONG],
    "an endless watchdog": ["run", "run.yaml", "--watchdog", "inf"],
    "predictions with a NUL": [
        *("evaluate", "run.yaml", "--checkpoint", "a", "--predictions", "\0"),
    ],
    "a plugin to show of 5,000 letters": ["plugins", "show", LONG],
    "a plugin to explain with an escape": ["plugins", "why", "\x1b[2J"],
    "a new plugin with a NUL": ["plugins", "new", "a\0"],
    "a new plugin in a long folder": ["plugins", "new", "a_b", "--into", LONG],
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED)
def test_an_odd_argument_is_refused_in_printable_words(
    planned: Path, command: Command, arguments: list[str]
) -> None:
    code, _, err = command(*arguments)
    assert code == 2, err[-300:]
    assert "Traceback" not in err
    assert err.replace("\n", "").isprintable()
    assert err.count("\n") == 1


#: What a run is told at the start, when it knows its model and its machine.
REFUSED_AT_THE_START: dict[str, tuple[str, str]] = {
    "a question longer than the model": ("data.max_question_length=600", "64 tokens"),
    "an answer longer than the model": ("data.max_answer_length=65", "64 tokens"),
    "another image size": ("data.image_size=64", "32 x 32 pixels"),
    "a width beyond any memory": (f"model.build.hidden_size={2**62}", "into memory"),
    "a device without numbers": ("training.device=meta", "none to train on"),
    "a hundredth processor": ("training.device=cpu:99", "none to train on"),
    "a device of another machine": ("training.device=xla", "cannot use here"),
    "a save_dir in a circle of links": ("training.save_dir=circle", "symbolic links"),
}


@pytest.mark.parametrize(
    ("change", "told"), REFUSED_AT_THE_START.values(), ids=REFUSED_AT_THE_START
)
def test_what_does_not_fit_is_refused_before_training(
    planned: Path, command: Command, change: str, told: str
) -> None:
    small = "model.build={hidden_size: 16, image_size: 32, num_attention_heads: 2}"
    code, _, err = command("run", "run.yaml", *sets(small, change)[2:])
    assert (code, told in err) == (2, True), err[-300:]
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["config.yaml", "history.json", "summary.json"])
def test_a_folder_in_place_of_the_record_is_named_before_a_run_goes_on(
    workplace: Path, command: Command, name: str
) -> None:
    assert command("run", "run.yaml")[0] == 0
    (workplace / "out" / name).unlink()
    (workplace / "out" / name).mkdir()
    more = ("--resume", "auto", "--set", "training.num_epochs=2")
    code, _, err = command("run", "run.yaml", *more)
    assert (code, f"{name}' is a folder" in err) == (2, True), err
    assert "Traceback" not in err


NAMED = Namespace(
    out="out/a", question="q", settings={"plugins": [{"csv": {"f": "x"}}]}
)
ERRORS: dict[str, tuple[OSError, str | None]] = {
    "the path itself": (OSError(28, "full", "out/a"), "the argument 'out/a' cannot"),
    "a file below it": (OSError(28, "full", "out/a/b"), "'out/a/b': full"),
    "a folder above it": (OSError(13, "no", "out"), "'out': no"),
    "a plugin's path": (OSError(13, "no", "x"), "plugins.csv.f 'x' cannot be used: no"),
    "a path that nobody named": (OSError(13, "no", "elsewhere"), None),
    "a folder above everything": (OSError(13, "no", os.getcwd()), None),
    "no path at all": (OSError(28, "full"), None),
    "a question": (OSError(2, "none", "q"), None),
}


@pytest.mark.parametrize(("error", "told"), ERRORS.values(), ids=ERRORS)
def test_the_system_refuses_a_path_that_was_named(
    error: OSError, told: str | None
) -> None:
    refusal = refusal_of(error, NAMED)
    assert (refusal is None) if told is None else (told in str(refusal))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("predict --checkpoint c --rows r --out full", "--out 'full' cannot"),
        ("plan c -p full", "--plugin 'full' cannot"),
        ("export c full", "the argument 'full' cannot"),
    ],
)
def test_it_names_the_option_that_the_path_is_of(line: str, told: str) -> None:
    arguments = build_parser().parse_args(line.split())
    refusal = refusal_of(OSError(28, "no space left", "full"), arguments)
    assert str(refusal).startswith(told)


def test_a_file_that_a_plugin_misses_below_a_named_path_is_its_own_mistake() -> None:
    error = FileNotFoundError(2, "none", "out/a/b")
    error.add_note("raised by plugin 'mine'")
    assert refusal_of(error, NAMED) is None


def test_what_code_asks_of_a_distribution_in_vain_is_no_fault_of_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\n")
    (broken / "entry_points.txt").write_bytes(b"[others]\na = caf\xe9:A\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(metadata.PackageNotFoundError) as missing:
        metadata.version("not-there")
    assert refusal_of(missing.value, NAMED) is None
    with pytest.raises(UnicodeDecodeError) as met:
        metadata.entry_points()
    assert "cannot be listed: broken" in str(refusal_of(met.value, NAMED))


def test_a_disk_that_is_full_is_told_with_the_file_that_was_named(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match=r"No space left on device: 'a\.json'"):
            write_json("a.json", {})
    assert not Path("a.json").exists()


@pytest.mark.parametrize("letters", [240, 255])
def test_a_name_may_be_as_long_as_the_system_lets_it(
    workplace: Path, letters: int
) -> None:
    assert write_json("a" * letters, {}).exists()


ACCEPTED: dict[str, list[str]] = {
    "a mapping for a plugin": sets("plugins.csv={filename: a.csv}"),
    "a very long run": sets("training.num_epochs=1000000000000"),
    "the longest run": sets(f"training.num_epochs={2**63 - 1}"),
    "endless max_steps": sets("training.max_steps=1000000000000"),
    "endless patience": [
        *sets(f"plugins.early_stopping.patience={HUGE}"),
        *("-p", "early_stopping"),
    ],
    "endless cadence": sets(f"plugins.checkpointing.save_frequency={HUGE}"),
    "endless top k": sets(f"plugins.checkpointing.save_top_k={HUGE}"),
    "an endless warmup": [
        *sets(f"plugins.lr_scheduling.warmup={HUGE}"),
        *("--set", "plugins.lr_scheduling.type=linear", "-p", "lr_scheduling"),
    ],
}


@pytest.mark.parametrize("arguments", ACCEPTED.values(), ids=ACCEPTED)
@pytest.mark.timeout(60)
def test_a_plan_of_any_length_is_answered(
    planned: Path, command: Command, arguments: list[str]
) -> None:
    code, out, err = command(*arguments)
    assert (code, err) == (0, ""), err[-300:]
    assert "plan of vqa" in out


def test_a_run_too_long_to_count_through_says_so(
    planned: Path, command: Command
) -> None:
    _, out, _ = command(*sets("training.num_epochs=1000000000000"))
    assert "4,000,000,000,000 in all" in out
    assert "evaluations  not counted: the run has more than 1,000,000 steps" in out
    assert "checkpointing: not counted" in out


def test_a_device_without_end_is_no_configuration(
    planned: Path, command: Command
) -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0])
    limit: Any = resource.getrlimit(resource.RLIMIT_AS)
    room = size * resource.getpagesize() + (500 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (room, limit[1]))
    try:
        code, _, err = command("plan", "/dev/zero")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)
    assert (code, "it is a device, not a file" in err) == (2, True)


@pytest.mark.parametrize("path", ["", ".", "a/b", "~", "a" * 255, "\udcff", Path("x")])
def test_what_the_system_can_have_is_a_path(path: str | Path) -> None:
    assert path_mistake(path) == ""
