"""`trainbus init` looks at rows and writes a configuration that runs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

COLOURS = ("red", "green", "blue", "white")
Command = Callable[..., tuple[int, str, str]]
Rows = Callable[[Path], Path]


def _lines(file: Path, row: Callable[[str], dict[str, object]]) -> None:
    file.write_text("".join(json.dumps(row(each)) + "\n" for each in COLOURS))


def questions(folder: Path) -> Path:
    """Two files, as the workplace has them: the folder is enough."""
    return folder


def a_table(folder: Path) -> Path:
    """A table whose columns have other names."""
    for split in ("train", "valid"):
        lines = [f"{c}.png,what color?,{c}\n" for c in COLOURS]
        text = "file_name,Question,label\n" + "".join(lines)
        (folder / f"{split}.csv").write_text(text)
    return folder / "train.csv"


def chats(folder: Path) -> Path:
    def row(colour: str) -> dict[str, object]:
        turns = [
            {"from": "human", "value": "<image>\nWhat color?"},
            {"from": "gpt", "value": f"It is {colour}."},
        ]
        return {"image": f"{colour}.png", "conversations": turns}

    _lines(folder / "chats.jsonl", row)
    return folder / "chats.jsonl"


def captions(folder: Path) -> Path:
    _lines(folder / "c.jsonl", lambda c: {"image": f"{c}.png", "text": f"all {c}"})
    return folder / "c.jsonl"


def classes(folder: Path) -> Path:
    """Folders of classes in a folder for each split."""
    top = folder.parent / "classes"
    for split in ("train", "val"):
        for colour in COLOURS:
            (top / split / colour).mkdir(parents=True)
            shutil.copy(folder / f"{colour}.png", top / split / colour / "1.png")
    return top


@pytest.mark.parametrize(
    ("rows", "task", "reader", "splits", "others"),
    [
        pytest.param(questions, "vqa", "jsonl", 2, {}, id="questions"),
        pytest.param(
            a_table,
            "vqa",
            "csv",
            2,
            {
                "fields": {
                    "image": "file_name",
                    "question": "Question",
                    "answer": "label",
                }
            },
            id="a table with other names",
        ),
        pytest.param(chats, "vqa", "jsonl", 1, {"type": "chat"}, id="chat data"),
        pytest.param(
            captions,
            "captioning",
            "jsonl",
            1,
            {"fields": {"caption": "text"}},
            id="captions",
        ),
        pytest.param(
            classes, "image_classification", "folders", 2, {}, id="folders of classes"
        ),
    ],
)
def test_what_is_written_describes_the_rows_and_runs(
    rows: Rows,
    task: str,
    reader: str,
    splits: int,
    others: dict[str, object],
    workplace: Path,
    command: Command,
) -> None:
    place = rows(workplace / "rows").relative_to(workplace)
    code, out, err = command("init", str(place))
    assert code == 0, err
    assert f"({reader}, 4 rows of: " in out
    assert "conflicts: none found" in out
    assert not (workplace / "runs").exists()
    config = yaml.safe_load((workplace / "config.yaml").read_text())
    assert config["task"] == task
    assert len({"train", "validation"} & config["data"].keys()) == splits
    found = {**config["data"], **config["model"]}
    assert {key: found.get(key) for key in others} == others
    assert out.rstrip().endswith("trainbus run config.yaml")
    shorter = ["training.num_epochs=1", "model.build.hidden_size=16"]
    options = [word for each in shorter for word in ("--set", each)]
    code, _, err = command("run", "config.yaml", *options)
    assert code == 0, err


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        pytest.param("rows/trian.jsonl", "did you mean 'train.jsonl'", id="no file"),
        pytest.param("rows/odd.csv", "vqa takes image, question, answer", id="no task"),
        pytest.param("rows/gone.jsonl", "gone.png", id="a picture that is not there"),
        pytest.param("rows/red.png", "is a picture", id="no rows"),
        pytest.param("rows/cut.jsonl", "cut.jsonl:2: is not JSON", id="a cut line"),
        pytest.param("rows/odd.csv", "--field FIELD=COLUMN", id="the way out"),
    ],
)
def test_rows_of_no_use_are_told_of_and_nothing_is_written(
    rows: str, words: str, workplace: Path, command: Command
) -> None:
    (workplace / "rows/odd.csv").write_text("a,b\n1,2\n")
    (workplace / "rows/cut.jsonl").write_text('{"image": "red.png"}\n{"image": \n')
    _lines(workplace / "rows/gone.jsonl", lambda c: {"image": "gone.png", "label": c})
    code, _, err = command("init", rows)
    assert code in (2, 3)
    assert words in err
    assert "Traceback" not in err
    assert not (workplace / "config.yaml").exists()


def test_columns_may_be_named(workplace: Path, command: Command) -> None:
    _lines(workplace / "rows/de.jsonl", lambda c: {"bild": f"{c}.png", "farbe": c})
    fields = ("--field", "image=bild", "--field", "label=farbe")
    code, _, err = command("init", "rows/de.jsonl", *fields)
    assert code == 0, err
    config = yaml.safe_load((workplace / "config.yaml").read_text())
    assert config["task"] == "image_classification"
    assert config["data"]["fields"] == {"image": "bild", "label": "farbe"}


def test_what_validation_rows_add_stands_there_as_comments(
    workplace: Path, command: Command
) -> None:
    command("init", str(captions(workplace / "rows").relative_to(workplace)))
    file = workplace / "config.yaml"
    lines = file.read_text().replace("# validation: FILE ", "validation: rows/c.jsonl")
    lines = lines.replace("{monitor: null}  # with them ", "").replace(
        "# - eval", "- eval"
    )
    file.write_text(lines)
    _, out, _ = command("plan", "config.yaml")
    assert "evaluations  10:" in out
    assert "conflicts: none found" in out


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("image=bidl", "has no column 'bidl' (did you mean 'bild'?)"),
        ("imag=bild", "no installed task has a field 'imag' (did you mean 'image'?)"),
        ("image", "--field 'image' has no value"),
    ],
)
def test_a_column_named_amiss_is_refused(
    field: str, words: str, workplace: Path, command: Command
) -> None:
    _lines(workplace / "rows/de.jsonl", lambda c: {"bild": f"{c}.png", "farbe": c})
    code, _, err = command("init", "rows/de.jsonl", "--field", field)
    assert code in (2, 3)
    assert words in err
    assert not (workplace / "config.yaml").exists()


def test_a_file_that_is_there_stays(workplace: Path, command: Command) -> None:
    (workplace / "config.yaml").write_text("mine")
    code, _, err = command("init", "rows")
    assert code == 2
    assert "exists; name a new file" in err
    assert (workplace / "config.yaml").read_text() == "mine"


def _two_tasks(workplace: Path) -> str:
    def row(colour: str) -> dict[str, object]:
        return {"image": f"{colour}.png", "label": colour, "caption": f"all {colour}"}

    _lines(workplace / "rows/two.jsonl", row)
    return "rows/two.jsonl"


def test_without_a_terminal_nothing_is_asked(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", None)
    rows = _two_tasks(workplace)
    assert command("init", rows)[0] == 0
    assert "also fit: image_classification" in (workplace / "config.yaml").read_text()
    named = command("init", rows, "--task", "image_classification", "--out", "b.yaml")
    assert named[0] == 0
    assert "task: image_classification" in (workplace / "b.yaml").read_text()
    code, _, err = command("init", rows, "--task", "vqa", "--out", "c.yaml")
    assert code == 2
    assert "they fit: captioning, image_classification" in err


def test_at_a_terminal_a_doubtful_task_is_asked_for(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "image_classification")
    assert command("init", _two_tasks(workplace))[0] == 0
    assert "task: image_classification" in (workplace / "config.yaml").read_text()


def test_a_reader_with_options_is_taken_as_a_configuration_takes_it(
    workplace: Path, command: Command
) -> None:
    lines = "".join(f"{c}.png;what color?;{c}\n" for c in COLOURS)
    for split in ("train", "val"):
        file = workplace / f"rows/{split}.csv"
        file.write_text("image;question;answer\n" + lines)
    code, _, err = command("init", "rows/train.csv")
    assert code != 0
    told = err.partition("write ")[2].strip()
    assert told == '{csv: {path: rows/train.csv, separator: ";"}}'
    code, out, err = command("init", told)
    assert code == 0, err
    assert "(csv, 4 rows of: image, question, answer)" in out
    data = yaml.safe_load((workplace / "config.yaml").read_text())["data"]
    for split, name in (("train", "train"), ("validation", "val")):
        options = {"path": f"rows/{name}.csv", "separator": ";"}
        assert data[split] == {"csv": options}


def test_a_class_that_is_called_as_a_split_is_a_class(
    workplace: Path, command: Command
) -> None:
    for name in ("train", "bus"):
        (workplace / "vehicles" / name).mkdir(parents=True)
        for colour in COLOURS:
            shutil.copy(workplace / f"rows/{colour}.png", workplace / "vehicles" / name)
    code, out, err = command("init", "vehicles")
    assert code == 0, err
    assert "(folders, 8 rows of: image, label)" in out


def _elsewhere(
    workplace: Path, text: str, files: str, rows: str = "my rows/train.jsonl"
) -> str:
    """Write rows whose pictures, called ``text``, lie in ``files``; return the rows."""
    for place, colour in enumerate(COLOURS):
        picture = workplace / files.format(colour=colour, place=place)
        picture.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(workplace / f"rows/{colour}.png", picture)

    def row(colour: str) -> dict[str, object]:
        place = COLOURS.index(colour)
        image = text.format(here=workplace, colour=colour, place=place)
        return {"image": image, "question": "what color?", "answer": colour}

    (workplace / rows).parent.mkdir(parents=True, exist_ok=True)
    _lines(workplace / rows, row)
    _lines((workplace / rows).with_name("val.jsonl"), row)
    return rows


@pytest.mark.parametrize(
    ("text", "files", "root", "train"),
    [
        pytest.param(
            "{here}/\u56fe #1/{colour}.png",
            "\u56fe #1/{colour}.png",
            ".",
            "my rows/train.jsonl",
            id="absolute paths",
        ),
        pytest.param(
            "../../im \u00fc/{colour}.png",
            "top/im \u00fc/{colour}.png",
            "top",
            "a/rows/train.jsonl",
            id="beside the folder of rows",
        ),
        pytest.param(
            "../../im{place}/{colour}.png",
            "top/im{place}/{colour}.png",
            "top",
            "a/rows/train.jsonl",
            id="in several folders",
        ),
    ],
)
@pytest.mark.parametrize("is_absolute", [False, True], ids=["", "rows from / on"])
def test_the_folder_that_holds_rows_and_pictures_is_found(
    text: str,
    files: str,
    root: str,
    train: str,
    is_absolute: bool,
    workplace: Path,
    command: Command,
) -> None:
    rows = _elsewhere(workplace, text, files, f"{root}/{train}")
    code, _, err = command("init", str(workplace / rows) if is_absolute else rows)
    assert code == 0, err
    data = yaml.safe_load((workplace / "config.yaml").read_text())["data"]
    assert data["root"] == (str(workplace / root) if is_absolute else root)
    assert data["train"] == train
    assert data["validation"] == train.replace("train", "val")
    shorter = ["training.num_epochs=1", "model.build.hidden_size=16"]
    options = [word for each in shorter for word in ("--set", each)]
    code, _, err = command("run", "config.yaml", *options)
    assert code == 0, err


def test_so_it_is_where_a_reader_has_options(workplace: Path, command: Command) -> None:
    _elsewhere(workplace, "../pictures/{colour}.png", "pictures/{colour}.png")
    given = '{json: {path: "my rows/list.json", key: rows}}'
    lines = (workplace / "my rows/train.jsonl").read_text().splitlines()
    document = {"rows": [json.loads(line) for line in lines]}
    (workplace / "my rows/list.json").write_text(json.dumps(document))
    code, _, err = command("init", given)
    assert code == 0, err
    data = yaml.safe_load((workplace / "config.yaml").read_text())["data"]
    assert data["root"] == "."
    assert data["train"] == {"json": {"path": "my rows/list.json", "key": "rows"}}
    assert command("plan", "config.yaml")[0] == 0


def test_a_picture_that_is_missing_elsewhere_is_told_of_with_what_to_do(
    workplace: Path, command: Command
) -> None:
    rows = _elsewhere(workplace, "../im/{colour}.png", "im/{colour}.png")
    (workplace / "im/blue.png").unlink()
    code, _, err = command("init", rows)
    assert code == 3
    assert "train.jsonl:3: image '../im/blue.png' does not exist" in err
    assert "mend the rows and call it again" in err
    assert not (workplace / "config.yaml").exists()


@pytest.mark.parametrize("row", [{"text": "a", "label": "b"}, {"x": 1, "y": 2}])
def test_rows_that_no_task_takes_are_told_how_to_get_one(
    row: dict[str, object], workplace: Path, command: Command
) -> None:
    (workplace / "rows.jsonl").write_text(json.dumps(row) + "\n")
    code, _, err = command("init", "rows.jsonl")
    assert code == 3
    assert "trainbus plugins new NAME --kind task (docs/your-own-task.md)" in err
