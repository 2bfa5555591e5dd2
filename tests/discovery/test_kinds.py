"""Tasks, model families and readers are found and chosen as callbacks are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from training.discovery import installed
from training.discovery.parts import build_part, find_part, named_part
from training.discovery.provenance import describe
from training.errors import ConfigError, PluginError

Install = Callable[..., Path]

SOURCE = """
from training import ModelFamily, Task

class Parity(Task):
    fields = {"number": "text", "odd": "text"}
    target = "odd"
    metrics = ("accuracy",)

    def __init__(self, strict: bool = False) -> None:
        if strict:
            raise ValueError("strict is not yet there")

    def score(self, prediction, row):
        return {"accuracy": float(prediction == row["odd"])}

class Table(ModelFamily):
    tasks = ("parity",)

    def __init__(self, *, width: int = 4) -> None:
        self.width = width

    def build(self, rows, *, depth: int = 1): ...
    def collate(self, processor, rows): ...
    def predict(self, model, processor, batch): ...

class Lines:
    def __init__(self, path: str) -> None: ...
    def __len__(self): ...
    def __getitem__(self, index): ...
    def place(self, index): ...
"""
KINDS = {"task": "Parity", "model": "Table", "reader": "Lines"}
GROUPS = "\n".join(
    f"[trainbus.{kind}s]\nlab = {{module}}:{cls}" for kind, cls in KINDS.items()
)


@pytest.fixture
def lab(install: Install, request: pytest.FixtureRequest) -> Path:
    """Return the file of a distribution that calls one of each kind ``lab``."""
    module = f"lab_{abs(hash(request.node.name))}"
    site = install("lab-parts", "1.2", GROUPS.format(module=module))
    (site / f"{module}.py").write_text(SOURCE)
    return site / f"{module}.py"


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_each_kind_is_found_without_an_import(kind: str, lab: Path) -> None:
    (info,) = (each for each in installed.installed(kind) if each.name == "lab")
    assert (info.kind, info.path) == (kind, str(lab))
    assert lab.stem not in sys.modules
    assert installed.load(info).__name__ == KINDS[kind]


def test_a_name_is_unique_within_its_kind_only(lab: Path) -> None:
    found = [i.kind for i in installed.installed(None) if i.name == "lab"]
    assert sorted(found) == sorted(KINDS)
    assert "lab" not in [info.name for info in installed.installed()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_in_a_file_stands_for_a_name(kind: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SOURCE)
    cls = find_part(kind, f"{tmp_path}/mine.py:{KINDS[kind]}", "here")
    assert cls.__name__ == KINDS[kind]


def test_a_folder_offers_what_its_classes_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "_FOLDERS", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").write_text(SOURCE)
    installed.use_folder(tmp_path)
    found = {(i.kind, i.name) for i in installed.installed(None) if i.version == "-"}
    assert found == set(KINDS.items())


@pytest.mark.parametrize(
    ("kind", "noun"),
    [("task", "task"), ("model", "model family"), ("reader", "reader")],
)
def test_an_unknown_name_is_refused_with_the_nearest(
    kind: str, noun: str, lab: Path
) -> None:
    with pytest.raises(PluginError) as caught:
        find_part(kind, "labb", "run.yaml:3: task")
    assert str(caught.value).startswith(
        f"run.yaml:3: task: {noun} 'labb' is not installed (did you mean 'lab'?)"
    )


def test_two_owners_of_a_name_hurt_only_who_chooses_it(
    lab: Path, install: Install
) -> None:
    install("rival", "2", "[trainbus.tasks]\nlab = rival:Task")
    assert find_part("model", "lab", "here").__name__ == "Table"
    with pytest.raises(PluginError, match=r"task 'lab' is provided by .* and rival 2"):
        find_part("task", "lab", "here")


def test_a_broken_one_hurts_only_who_chooses_it(lab: Path, install: Install) -> None:
    site = install("bad-parts", "1", "[trainbus.tasks]\nbad = bad_parts:Task")
    (site / "bad_parts.py").write_text("1 / 0")
    assert find_part("task", "lab", "here").__name__ == "Parity"
    with pytest.raises(PluginError, match=r"task 'bad' of bad-parts 1 .*ZeroDivision"):
        find_part("task", "bad", "here")


@pytest.mark.parametrize(
    ("kind", "cls", "words"),
    [
        ("task", "Table", "is no task: it lacks fields, target, score"),
        ("model", "Parity", "is no model: it lacks tasks, collate, predict"),
        ("reader", "Parity", "is no reader: it lacks __len__, __getitem__, place"),
    ],
)
def test_a_class_of_another_kind_is_refused(
    kind: str, cls: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(SOURCE)
    with pytest.raises(PluginError, match=words):
        find_part(kind, f"{tmp_path}/mine.py:{cls}", "here")


def at_line_7(path: tuple[str | int, ...]) -> str:
    return f"run.yaml:7: {'.'.join(map(str, path))}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"widht": 4}, "model.widht is no option .did you mean 'width'"),
        ({"width": "4"}, r"run.yaml:7: model.width .*4"),
        ({"nam": 1}, "did you mean 'name'"),
    ],
)
def test_a_wrong_option_is_told_with_its_place(
    options: dict[str, object], words: str, lab: Path
) -> None:
    family = find_part("model", "lab", "here")
    with pytest.raises(PluginError, match=words):
        build_part(family, options, ("model",), at_line_7, also=("name", "build"))
    assert build_part(family, {"width": 8}, ("model",)).width == 8


def test_what_a_constructor_refuses_is_told_with_its_place(lab: Path) -> None:
    cls = find_part("task", "lab", "here")
    with pytest.raises(PluginError, match=r"run.yaml:7: task.lab: .* not yet there"):
        build_part(cls, {"strict": True}, ("task", "lab"), at_line_7)


def test_a_class_is_described_with_its_distribution(lab: Path) -> None:
    assert describe(find_part("task", "lab", "here")).endswith("lab-parts 1.2")


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("vqa", ("vqa", {})),
        ({"vqa": None}, ("vqa", {})),
        ({"a": {"b": 1}}, ("a", {"b": 1})),
    ],
)
def test_a_name_stands_alone_or_over_its_options(
    entry: object, found: tuple[str, dict[str, int]]
) -> None:
    assert named_part(entry, "task") == found


@pytest.mark.parametrize("entry", [3, "", [], {}, {"a": {}, "b": {}}, {"a": 3}, None])
def test_another_form_is_refused(entry: object) -> None:
    with pytest.raises(ConfigError, match="must be a name, or one"):
        named_part(entry, "run.yaml:1: task")
