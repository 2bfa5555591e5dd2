"""P12: whatever becomes of the list of checkpoints, no checkpoint is lost by it."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.sweep import build

from trainbus_checkpointing.manifest import Manifest
from training import CheckpointError, TrainbusError
from training.builtin.resume import resume

#: What may stand where something else belongs; each is written as JSON.
ODD: list[Any] = [
    *(None, True, -1, 2**63, 10**400, 1.5, float("inf"), float("nan"), -0.0),
    *(
        "",
        "..",
        ".",
        "../victim.txt",
        "/etc/passwd",
        "a\0b.pt",
        "\x1b[2J.pt",
        "\ud800.pt",
    ),
    *("victim.txt", "manifest.json", "run.lock", "a/b.pt", "a\\b.pt", ".pt", "x" * 300),
    *([], [[]], {}, {"a": {}}, ["x"]),
]


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value below ``value``."""
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, below in items:
        yield (*path, key)
        yield from paths(below, (*path, key))


def damaged(good: Any, draw: random.Random, count: int) -> Iterator[bytes]:
    """Yield ``count`` contents that differ from ``good`` in one or two places."""
    places = list(paths(good))
    for _ in range(count):
        content = copy.deepcopy(good)
        for _ in range(draw.choice((1, 1, 2))):
            *above, last = draw.choice(places)
            parent = content
            try:
                for key in above:
                    parent = parent[key]
                if draw.random() < 0.2:
                    del parent[last]
                elif draw.random() < 0.2 and isinstance(parent, list):
                    parent.append(copy.deepcopy(parent[last]))
                else:
                    parent[last] = draw.choice(ODD)
            except (LookupError, TypeError):
                continue  # the first change took the second one's place away
        text = json.dumps(content).encode()
        if draw.random() < 0.1:
            at = draw.randrange(len(text))
            text = text[:at] + bytes([draw.randrange(256)]) * draw.choice((0, 1, 9))
        yield text


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.[pt][tx]*")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, bytes]]:
    """Return the list and the checkpoints of a run that kept four."""
    folder = tmp_path_factory.mktemp("trained")
    build(folder, lambda step: None, save_top_k=4, save_best_only=False).train()
    return (folder / "manifest.json").read_bytes(), files_in(folder)


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in {**files, "victim.txt": b"mine"}.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("seed", range(4))
def test_p12_no_damage_of_a_list_is_a_traceback(
    tmp_path: Path, trained: Any, seed: int, record_property: Callable[..., None]
) -> None:
    told: list[str] = []
    good, draw = json.loads(trained[0]), random.Random(seed)
    for text in damaged(good, draw, 500):
        (tmp_path / "manifest.json").write_bytes(text)
        try:
            manifest = Manifest.read(tmp_path)
        except TrainbusError as error:
            told.append(str(error))
            continue
        names = [entry.file for entry in manifest.entries]
        assert len(set(names)) == len(names), text
        assert all(os.path.basename(n) == n and n.endswith(".pt") for n in names)
        manifest.begin_run(manifest.run, (2**62, 2**62))
        json.dumps([entry.metrics for entry in manifest.entries], allow_nan=False)
    record_property("damaged lists", len(told))
    assert len(told) > 100, "most changes make no list"
    assert [each for each in told if not each.isprintable() or len(each) > 600] == []


WHOLE = {
    "nothing": b"",
    "a list": b"[]",
    "null": b"null",
    "a text": b'"x"',
    "no text": b"\xff\xfe\x00",
    "nested deeply": b"[" * 100_000,
    "endless": b'{"a": ' * 50_000,
}
CHANGES: dict[str, Callable[[Any], object]] = {
    "entries are texts": lambda of: of.update(checkpoints=["x"]),
    "entries are a mapping": lambda of: of.update(checkpoints={}),
    "a file beside": lambda of: of["checkpoints"][0].update(
        file="victim.txt", num_bytes=4, is_ranked=False
    ),
    "a file above": lambda of: of["checkpoints"][0].update(file="../victim.pt"),
    "a file twice": lambda of: of["checkpoints"].insert(
        0, {**of["checkpoints"][-1], "is_ranked": False, "step": 0, "epoch": 0}
    ),
    "metrics are null": lambda of: of["checkpoints"][0].update(metrics=None),
    "metrics are a number": lambda of: of["checkpoints"][0].update(metrics=5),
    "a metric of 400 digits": lambda of: of["checkpoints"][0].update(
        metrics={"val_loss": 10**400}
    ),
    "an infinite metric": lambda of: of["checkpoints"][0].update(
        metrics={"val_loss": float("inf")}
    ),
    "a step that is a text": lambda of: of["checkpoints"][0].update(step="1"),
    "a step below zero": lambda of: of["checkpoints"][0].update(step=-1),
    "a ranked that is a number": lambda of: of["checkpoints"][0].update(is_ranked=1),
    "the run is infinite": lambda of: of.update(run=float("inf")),
    "the run is a truth": lambda of: of.update(run=True),
    "the version is infinite": lambda of: of.update(version=float("inf")),
    "the version is a text": lambda of: of.update(version="1"),
}


def contents(good: bytes) -> dict[str, bytes]:
    """Return the damaged lists by what is wrong with them."""
    made = dict(WHOLE)
    for what, change in CHANGES.items():
        content = json.loads(good)
        change(content)
        made[what] = json.dumps(content).encode()
    return made


@pytest.mark.parametrize("what", [*WHOLE, *CHANGES])
def test_p12_a_list_damaged_in_any_way_is_moved_aside_and_no_file_is_lost(
    tmp_path: Path, trained: Any, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, files = trained
    fill(tmp_path, files)
    content = contents(good)[what]
    (tmp_path / "manifest.json").write_bytes(content)
    before = files_in(tmp_path)
    build(tmp_path, lambda step: None).train()
    assert before.items() <= files_in(tmp_path).items()
    assert (tmp_path / "manifest.damaged.json").read_bytes() == content
    assert "it is now manifest.damaged.json" in caplog.text
    assert Manifest.read(tmp_path).entries


@pytest.mark.parametrize(
    "what", ["nested deeply", "metrics are null", "a file twice", "gone"]
)
def test_p12_a_resumed_run_still_knows_its_best_and_deletes_no_other(
    tmp_path: Path, trained: Any, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, files = trained
    fill(tmp_path, files)
    if what != "gone":  # as where files alone are copied to another machine
        (tmp_path / "manifest.json").write_bytes(contents(good)[what])
    run = build(tmp_path, lambda step: None)
    resume(run, str(tmp_path / "checkpoint-003-3.5000.pt"))
    run.max_steps = 6  # nothing is left to train: what is known comes from the files
    run.train()
    kept = run.plugins["checkpointing"]
    assert kept.best_path == tmp_path / "checkpoint-002-3.0000.pt"
    assert kept.best_value == 3.0
    assert caplog.text.count("checkpoint-002-3.0000.pt is listed again") == 1
    assert all(each.is_spared for each in kept._saver.store.entries)
    assert files.items() <= files_in(tmp_path).items()


def test_p12_a_checkpoint_that_is_no_longer_what_it_was_is_not_listed_again(
    tmp_path: Path, trained: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, trained[1])
    (tmp_path / "manifest.json").write_bytes(b"{")
    (tmp_path / "checkpoint-002-3.0000.pt").write_bytes(b"PK")
    run = build(tmp_path, lambda step: None)
    resume(run, str(tmp_path / "checkpoint-003-3.5000.pt"))
    run.max_steps = 6
    run.train()
    assert "checkpoint-002-3.0000.pt is not listed: " in caplog.text
    assert (tmp_path / "checkpoint-002-3.0000.pt").read_bytes() == b"PK"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a FIFO", "a folder"])
def test_p12_what_is_no_file_is_no_list(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "manifest.json")
    with pytest.raises(CheckpointError, match="it is no regular file"):
        Manifest.read(tmp_path)
    build(tmp_path, lambda step: None).train()
    assert Manifest.read(tmp_path).entries
    assert (tmp_path / "manifest.damaged.json").exists()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        pytest.param(os.mkfifo, "it is a named pipe, not a file", id="a FIFO"),
        pytest.param(
            lambda path: path.symlink_to("/dev/zero"),
            "it is a device, not a file",
            id="a device",
        ),
        pytest.param(lambda path: None, "No such file", id="nothing"),
    ],
)
def test_p12_an_entry_of_what_is_no_file_is_passed_over_and_not_waited_for(
    tmp_path: Path, trained: Any, make: Any, told: str
) -> None:
    fill(tmp_path, trained[1])
    path = tmp_path / "manifest.json"
    content = json.loads(trained[0])
    newest = content["checkpoints"][-1]
    (tmp_path / newest["file"]).unlink()
    make(tmp_path / newest["file"])
    newest["num_bytes"] = 0  # as such files have
    path.write_text(json.dumps(content))
    run = build(tmp_path, lambda step: None)
    found = run.plugins["checkpointing"].resume_candidates(run)
    assert found[0][0].name == newest["file"]
    assert told in found[0][1]
    resume(run, "auto")
    assert 0 < run.step < newest["step"]
