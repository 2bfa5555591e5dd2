"""``predict --rows`` answers a file of rows; files of predictions have two forms."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from training.app.cli import predict as command_predict

Command = Callable[..., tuple[int, str, str]]
COLOURS = ("red", "green", "blue", "white")
CONFIG = """\
data:
  train: rows/train.jsonl
  validation: rows/train.jsonl
  batch_size: 2
  fields: {question: asked}
model:
  build: {hidden_size: 16, image_size: 32, patch_size: 16, num_attention_heads: 2}
training: {num_epochs: 1, save_dir: out, device: cpu}
plugins: [evaluation, checkpointing]
"""


def rows_of(*, answered: bool = True) -> list[dict[str, Any]]:
    rows = [
        {"image": f"{c}.png", "asked": "what color?", "answer": c, "question_id": 7 + n}
        for n, c in enumerate(COLOURS)
    ]
    if not answered:
        for row in rows:
            del row["answer"]
    return rows


def write_lines(path: str, rows: list[dict[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    Path(path).write_text("".join(lines), encoding="utf-8")


def lines_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``rows/``, ``run.yaml`` and a trained ``model.pt``."""
    from training.app.cli import main

    folder, before = tmp_path_factory.mktemp("world"), Path.cwd()
    os.chdir(folder)
    try:
        Path("rows").mkdir()
        for colour in COLOURS:
            Image.new("RGB", (40, 30), colour).save(f"rows/{colour}.png")
        write_lines("rows/train.jsonl", rows_of())
        Path("run.yaml").write_text(CONFIG)
        assert main(["run", "run.yaml"]) == 0
        (saved,) = Path("out/checkpoints").glob("*.pt")
        saved.rename("model.pt")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of the test's own, beside the rows."""
    monkeypatch.chdir(tmp_path)
    for name in ("rows", "run.yaml", "model.pt"):
        Path(name).symlink_to(world / name)
    Path("own").mkdir()
    for colour in COLOURS:
        Path(f"own/{colour}.png").symlink_to(world / f"rows/{colour}.png")


def ask(command: Command, rows: str, out: str = "said.jsonl") -> tuple[int, str, str]:
    return command(
        *("predict", "--checkpoint", "model.pt", "--device", "cpu"),
        *("--rows", rows, "--out", out),
    )


def test_every_row_is_answered_as_alone_in_order_with_its_fields(
    command: Command,
) -> None:
    write_lines("own/ask.jsonl", rows_of(answered=False)[:3])
    code, out, err = ask(command, "own/ask.jsonl")
    assert (code, out) == (0, "said.jsonl: 3 rows\n"), err
    said = lines_of("said.jsonl")
    alone = [
        command(
            *("predict", "--checkpoint", "model.pt", "--device", "cpu"),
            *("--image", f"own/{colour}.png", "--question", "what color?"),
        )
        for colour in COLOURS[:3]
    ]
    for row, (_, _, err) in zip(said, alone, strict=True):
        sure = row.pop("mean_log_probability")
        assert sure < 0
        assert err == f"trainbus: mean_log_probability {sure:.4g}\n"
    assert said == [
        {
            "image": f"{colour}.png",
            "question": "what color?",
            "question_id": 7 + number,
            "prediction": alone[number][1].rstrip("\n"),
        }
        for number, colour in enumerate(COLOURS[:3])
    ]


@pytest.mark.parametrize("name", ["question", "asked"])
def test_one_row_is_asked_by_the_tasks_names_or_by_the_files(
    name: str, command: Command
) -> None:
    fields = ("--field", "image=own/red.png", "--field", f"{name}=what color?")
    given = ("predict", "--checkpoint", "model.pt", "--device", "cpu")
    code, out, err = command(*given, *fields)
    assert code == 0, err
    assert ask(command, "rows/train.jsonl")[0] == 0
    assert out == lines_of("said.jsonl")[0]["prediction"] + "\n"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["image", "aksed"], "aksed: the task has no such field (did you mean 'asked'"),
        (["image", "x"], "no such field; it needs: image, question (or asked)"),
        (["question", "asked"], "--field question and --field asked are one field"),
    ],
)
def test_a_field_of_no_name_or_of_both_is_refused(
    names: list[str], words: str, command: Command
) -> None:
    fields = (part for name in names for part in ("--field", f"{name}=a"))
    code, _, err = command("predict", "--checkpoint", "model.pt", *fields)
    assert code == 2
    assert words in err


def test_rows_of_which_some_have_the_target_get_the_same_predictions(
    command: Command,
) -> None:
    rows = rows_of()
    del rows[1]["answer"]
    rows[2]["answer"] = "an answer that no training row had"
    write_lines("own/some.jsonl", rows)
    write_lines("own/none.jsonl", rows_of(answered=False))
    assert ask(command, "own/some.jsonl", "some.jsonl")[0] == 0
    assert ask(command, "own/none.jsonl", "none.jsonl")[0] == 0
    some, none = lines_of("some.jsonl"), lines_of("none.jsonl")
    assert [row["prediction"] for row in some] == [row["prediction"] for row in none]
    assert [row.get("answer") for row in some] == [row.get("answer") for row in rows]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        pytest.param("own/a.csv", "image,asked\nred.png,007\n", id="csv"),
        pytest.param("own/a.tsv", "image\tasked\nred.png\t007\n", id="tsv"),
        pytest.param(
            "own/a.json", '[{"image": "red.png", "asked": "007"}]', id="a list"
        ),
        pytest.param(
            "own/a.json", '{"image": "red.png", "asked": "007"}\n', id="lines as .json"
        ),
        pytest.param(
            "own/a.txt", '{"image": "red.png", "asked": "007"}\n', id="another suffix"
        ),
    ],
)
def test_the_reader_is_chosen_as_in_a_configuration(
    rows: str, text: str, command: Command
) -> None:
    Path(rows).write_text(text)
    code, _, err = ask(command, rows)
    assert code == 0, err
    (row,) = lines_of("said.jsonl")
    assert (row["image"], row["question"]) == ("red.png", "007")


def test_a_reader_with_options_is_written_as_in_a_configuration(
    command: Command,
) -> None:
    Path("own/a.csv").write_text("image;asked\nred.png;what?\n")
    code, _, err = ask(command, "own/a.csv")
    assert (code, "separator" in err) == (3, True)
    code, _, err = ask(command, '{csv: {path: own/a.csv, separator: ";"}}')
    assert code == 0, err
    code, _, err = ask(command, '{csv: {path: own/a.csv, seperator: ";"}}', "b.jsonl")
    assert (code, "did you mean 'separator'" in err) == (2, True)
    assert "--rows.csv.seperator" in err


def test_texts_stand_in_the_file_as_they_are(command: Command) -> None:
    row = {"image": "red.png", "asked": "caf\u00e9 \u8272", "question_id": "\ud800"}
    Path("own/a.jsonl").write_text(json.dumps(row) + "\n")
    code, _, err = ask(command, "own/a.jsonl")
    assert code == 0, err
    assert '"caf\u00e9 \u8272"' in Path("said.jsonl").read_text(encoding="utf-8")
    assert lines_of("said.jsonl")[0]["question_id"] == "\ud800"


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        pytest.param(
            ["--rows", "no.csv", "--out", "a.jsonl"],
            *(3, "--rows 'no.csv' is not a file here"),
            id="no rows",
        ),
        pytest.param(
            ["--rows", "", "--out", "a.jsonl"], 2, "--rows is empty", id="an empty text"
        ),
        pytest.param(
            ["--rows", "own/lacks.csv", "--out", "a.jsonl"],
            *(2, "did you mean 'aksed'?), which no row of own/lacks.csv has"),
            id="a missing field",
        ),
        pytest.param(
            ["--rows", "own/gone.csv", "--out", "a.jsonl"],
            *(3, "own/gone.csv:3: image 'gone.png' does not exist"),
            id="a missing picture",
        ),
        pytest.param(
            ["--rows", "own/broken.csv", "--out", "a.jsonl"],
            *(3, "own/broken.csv:2: image 'broken.png' is no image"),
            id="no picture that can be decoded",
        ),
        pytest.param(
            ["--rows", "own/good.csv", "--out", "own"],
            *(2, "--out 'own' exists; name a new file"),
            id="a folder",
        ),
        pytest.param(
            ["--rows", "own/good.csv", "--out", "run.yaml"],
            *(2, "exists; name a new file"),
            id="a file that is there",
        ),
        pytest.param(
            ["--rows", "own/good.csv", "--out", "no/a.jsonl"],
            *(2, "the folder 'no' does not exist"),
            id="no folder",
        ),
        pytest.param(
            ["--rows", "own/good.csv", "--out", "a.txt"],
            *(2, "--out 'a.txt' must end in .jsonl"),
            id="another suffix",
        ),
        pytest.param(
            ["--rows", "own/good.csv"], 2, "add --out FILE", id="rows without a file"
        ),
        pytest.param(
            ["--out", "a.jsonl"], 2, "add --rows FILE", id="a file without rows"
        ),
        pytest.param(
            ["--rows", "own/good.csv", "--out", "a.jsonl", "--question", "what?"],
            *(2, "keep one"),
            id="rows and a field",
        ),
    ],
)
def test_a_mistake_is_refused_and_leaves_no_file(
    options: list[str], code: int, words: str, command: Command
) -> None:
    Path("own/good.csv").write_text("image,asked\nred.png,what?\n")
    Path("own/lacks.csv").write_text("image,aksed\nred.png,a\nblue.png,b\n")
    Path("own/gone.csv").write_text("image,asked\nred.png,what?\ngone.png,what?\n")
    Path("own/broken.png").write_text("no picture")
    Path("own/broken.csv").write_text("image,asked\nbroken.png,a\nbroken.png,b\n")
    before = {path for path in Path().iterdir() if path.name != "own"}
    given = ("predict", "--checkpoint", "model.pt", "--device", "cpu", *options)
    got, out, err = command(*given)
    assert (got, out) == (code, ""), err
    assert words in err
    assert "Traceback" not in err
    assert "data.on_bad_row" not in err
    assert {path for path in Path().iterdir() if path.name != "own"} == before


def test_a_picture_that_cannot_be_decoded_costs_no_prediction_of_another_row(
    command: Command,
) -> None:
    Path("own/broken.png").write_text("no picture")
    rows = rows_of(answered=False)
    write_lines("own/good.jsonl", rows)
    rows.insert(1, {**rows[1], "image": "broken.png", "question_id": 99})
    write_lines("own/ask.jsonl", rows)
    assert ask(command, "own/good.jsonl", "good.jsonl")[0] == 0
    code, out, err = ask(command, "own/ask.jsonl", "most.jsonl")
    assert (code, out) == (3, "most.jsonl: 4 of 5 rows\n")
    assert "1 of 5 rows of own/ask.jsonl cannot be used; mend them:" in err
    assert "own/ask.jsonl:2: image 'broken.png' is no image" in err
    assert "'most.jsonl' holds the predictions of the others" in err
    said, all_good = lines_of("most.jsonl"), lines_of("good.jsonl")
    assert [row["question_id"] for row in said] == [7, 8, 9, 10]
    assert [row["prediction"] for row in said] == [r["prediction"] for r in all_good]


def test_an_interrupted_command_leaves_no_file(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, batches = command_predict._predictions, []

    def interrupted(*given: Any) -> Any:
        batches.append(given[-1])
        if len(batches) == 2:
            raise KeyboardInterrupt
        return answer(*given)

    monkeypatch.setattr(command_predict, "_predictions", interrupted)
    before = set(Path().iterdir())
    assert ask(command, "rows/train.jsonl")[0] == 130
    assert batches == [2, 2]
    assert set(Path().iterdir()) == before


def test_the_json_form_is_what_servers_that_score_vqa_take(command: Command) -> None:
    rows = rows_of()
    rows[3]["question_id"] = "a-text"
    write_lines("own/ask.jsonl", rows)
    code, _, err = ask(command, "own/ask.jsonl", "said.json")
    assert code == 0, err
    answers = json.loads(Path("said.json").read_text())
    assert [set(each) for each in answers] == [{"question_id", "answer"}] * 4
    assert [each["question_id"] for each in answers] == [7, 8, 9, "a-text"]


def test_evaluate_writes_records_or_that_form(command: Command) -> None:
    given = ("evaluate", "run.yaml", "--checkpoint", "model.pt", "--predictions")
    assert command(*given, "p.jsonl")[0] == 0
    assert command(*given, "p.json")[0] == 0
    records = lines_of("p.jsonl")
    assert [each["answer"] for each in records] == list(COLOURS)
    names = {"accuracy", "prediction", "mean_log_probability", "kind"}
    assert all(names <= set(each) for each in records)
    assert json.loads(Path("p.json").read_text()) == [
        {"question_id": each["question_id"], "answer": each["prediction"]}
        for each in records
    ]


def test_other_suffixes_of_evaluate_are_lines_as_before(command: Command) -> None:
    given = ("evaluate", "run.yaml", "--checkpoint", "model.pt", "--predictions")
    assert command(*given, "p.txt")[0] == 0
    assert len(lines_of("p.txt")) == 4


@pytest.mark.parametrize("answered", [0, 2])
def test_evaluate_answers_test_rows_that_have_no_answer(
    answered: int, command: Command
) -> None:
    rows = rows_of()[:answered] + rows_of(answered=False)[answered:]
    Path("test").mkdir()
    for colour in COLOURS:
        Image.new("RGB", (40, 30), colour).save(f"test/{colour}.png")
    write_lines("test/rows.jsonl", rows)
    code, out, err = command(
        *("evaluate", "run.yaml", "--checkpoint", "model.pt", "--split", "test"),
        *("--set", "data.test=test/rows.jsonl", "--predictions", "p.jsonl"),
    )
    assert code == 0, err
    assert ("most frequent" in out) == bool(answered)
    assert ("val_loss" in out) == bool(answered)
    assert ("metric" in out) == bool(answered)
    assert ("measured: the 2 of them with a value of 'answer'" in out) == bool(answered)
    assert ("no row has a value of 'answer'" in out) == (not answered)
    assert [row["question_id"] for row in lines_of("p.jsonl")] == [7, 8, 9, 10]


FAILING = """
from pathlib import Path
from trainbus_data.vqa.task import VQA

class vqa(VQA):
    def floors(self, train, judged):
        raise ZeroDivisionError

    def score(self, prediction, row):
        Path("scored").touch()
        return super().score(prediction, row)
"""


def test_floors_that_fail_throw_no_finished_evaluation_away(command: Command) -> None:
    Path("failing.py").write_text(FAILING)
    given = ("evaluate", "run.yaml", "--checkpoint", "model.pt")
    code, _, err = command(*given, "--set", "task=./failing.py:vqa")
    assert (code, "ZeroDivisionError" in err) == (1, True), err
    assert not Path("scored").exists()
