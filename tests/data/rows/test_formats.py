"""A file that is no JSON lines is named for what it is; common faults are told once."""

import bz2
import gzip
import json
import lzma
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml
from in_file import index_rows

from trainbus_data.rows.reading import BadRow, read_rows, settle_bad_rows
from training.errors import DataError

GOOD = {"image": "a.png", "question": "what?", "answer": "red"}
LINES = "".join(json.dumps(GOOD | {"question_id": n}) + "\n" for n in range(3))
ARRAY = [GOOD, GOOD]
TABLE = [["image", "question", "answer"], ["a.png", "what?", "red"]]


def zipped(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rows.jsonl", LINES)
    return path.read_bytes()


def table(separator: str) -> str:
    return "\n".join(separator.join(row) for row in TABLE)


OTHERS = {
    "an array": (
        json.dumps(ARRAY),
        r"is one JSON array; read it with \{json: \{path: ",
    ),
    "an indented array": (json.dumps(ARRAY, indent=2), "is one JSON array"),
    "an array after a BOM": ("\ufeff" + json.dumps(ARRAY), "is one JSON array"),
    "an array after blank lines": ("\n \n[\n" + json.dumps(GOOD), "is one JSON array"),
    "an indented object": (json.dumps(GOOD, indent=2), "spread over several lines"),
    "official questions": (
        json.dumps({"info": {}, "questions": [{"question": "what?", "image_id": 2}]}),
        r"the questions of VQA v2 .*\{vqa_v2: \{questions: .*\.jsonl, annotations: FI",
    ),
    "official answers": (
        json.dumps({"annotations": [{"answers": [{"answer": "a"}], "question_id": 2}]}),
        r"the annotations of VQA v2 .*\{vqa_v2: \{questions: FILE, annotations: ",
    ),
    "captions of COCO": (
        json.dumps({"images": [], "annotations": [{"image_id": 2, "caption": "a"}]}),
        r"annotations, as those of COCO; .*\{json: \{path: .*, key: annotations",
    ),
    "UTF-16": (LINES.encode("utf-16"), "UTF-16 text; .*iconv"),
    "UTF-16 without a mark": (LINES.encode("utf-16-le"), "UTF-16 text"),
    "gzip": (gzip.compress(LINES.encode()), "gunzip < rows.jsonl > unpacked-"),
    "bzip2": (bz2.compress(LINES.encode()), "compressed with bzip2"),
    "xz": (lzma.compress(LINES.encode()), "compressed with xz"),
    "CSV": (table(","), "cells are separated by ','"),
    "CSV in quotes": ('"image","question","answer"\n"a","b","c"', "separated by ','"),
    "TSV": (table("\t"), r"separated by '\\t'"),
    "semicolons": (table(";"), "separated by ';'"),
    "a web page": ("<!DOCTYPE html><html></html>", "web page"),
    "a Git LFS pointer": ("version https://git-lfs.github.com/spec/v1\n", "git lfs"),
    "Parquet": (b"PAR1\x15\x04", "Parquet"),
}


@pytest.mark.parametrize("reader", [read_rows, index_rows])
@pytest.mark.parametrize(("content", "words"), OTHERS.values(), ids=OTHERS.keys())
def test_another_format_is_named_once(tmp_path, content, words, reader):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=words) as caught:
        reader(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl.gz", "my rows.gz"])
def test_the_command_that_unpacks_a_file_works_as_it_stands(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(LINES.encode()))
    with pytest.raises(DataError, match="unpack it: ") as caught:
        read_rows(path)
    command = str(caught.value).partition("unpack it: ")[2]
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    (new,) = set(tmp_path.iterdir()) - {path}
    assert new.read_text() == LINES


@pytest.mark.parametrize("name", ["rows.xlsx", "rows.ods"])
def test_a_spreadsheet_is_not_to_be_unpacked(tmp_path, name):
    path = tmp_path / name
    zipped(path)
    with pytest.raises(DataError, match="is a spreadsheet; save its rows as CSV"):
        read_rows(path)


def test_a_zip_archive_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    zipped(path)
    with pytest.raises(DataError, match="zip archive; unpack it"):
        read_rows(path)


@pytest.mark.parametrize(
    "content",
    [
        LINES,
        "\ufeff" + LINES,
        "\n\n" + LINES,
        json.dumps(GOOD | {"question": "image, question, answer?"}),
        json.dumps({"info": 1} | GOOD) + "\n",
    ],
    ids=["plain", "a mark", "blank lines", "commas in a text", "a key called info"],
)
def test_json_lines_are_read(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_text(content, encoding="utf-8")
    rows, bad = read_rows(path)
    assert rows
    assert bad == []


def test_the_reader_to_write_names_a_file_as_a_person_and_yaml_read_it(tmp_path):
    path = tmp_path / "图 🙂\u2028.json"
    path.write_text(json.dumps(ARRAY), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_rows(path)
    told = str(caught.value).partition("read it with ")[2]
    assert "图 🙂" in told
    assert yaml.safe_load(told) == {"json": {"path": str(path)}}


# Answers.


@pytest.mark.parametrize(
    ("answers", "read"),
    [
        pytest.param(["a", " b "], ["a", "b"], id="texts"),
        pytest.param([{"answer": "a", "answer_id": 1}], ["a"], id="objects"),
        pytest.param(
            [{"answer": "a", "answer_confidence": "maybe"}, "b"], ["a", "b"], id="both"
        ),
        pytest.param([3, {"answer": 3}, "3"], ["3", "3", "3"], id="whole numbers"),
    ],
)
def test_answers_are_texts_or_objects_as_annotated(tmp_path, answers, read):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD | {"answers": answers}), encoding="utf-8")
    rows, bad = read_rows(path)
    assert bad == []
    assert rows[0].answers == read


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (["a", "", "b"], "answers[1] is empty"),
        ([{"answer": "a"}, {"answer": " "}], "answers[1].answer is empty"),
        ([{"answer": 3.0}], "answers[0].answer is 3.0; write a string or a whole"),
        ([{"answer": ["红\u202e"]}], 'answers[0].answer is ["红\\u202e"] (a list)'),
        ([{"text": "a"}], "answers[0] is {"),
        ([["a"]], "answers[0] is ["),
        ([None], "answers[0] is null"),
        ({"answer": "a"}, "answers is {"),
    ],
    ids=repr,
)
def test_an_answer_that_cannot_be_used_is_named_by_its_place(tmp_path, answers, reason):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD | {"answers": answers}), encoding="utf-8")
    _, bad = read_rows(path)
    assert bad[0].reason.startswith(reason)


# Common faults.


def told(reasons: list[str]) -> list[str]:
    bad = [BadRow(f"r.jsonl:{line}", why) for line, why in enumerate(reasons, 1)]
    with pytest.raises(DataError) as caught:
        settle_bad_rows(bad, len(bad), "error", 0.0)
    return str(caught.value).split("\n")[1:]


@pytest.mark.parametrize(
    "reason",
    [
        "image 'p{}.png' does not exist",
        'image "p\'{}.png" does not exist',
        "image '{}.png' has {} x 7 pixels, more than data.max_image_pixels 5",
        "answer is {}; write a string",
        "question_id 'q{}' is already used on line {}",
        "is not JSON: Expecting value at column {}",
        "lacks 'answer'; a row needs 'image', 'question' and 'answer'",
    ],
)
def test_a_fault_of_all_rows_is_told_once_with_a_count(reason):
    lines = told([reason.replace("{}", str(n)) for n in range(1000)])
    assert len(lines) == 2
    assert lines[1].startswith("  ... and 999 more with that fault: lines 2, 3, 4")
    assert lines[1].endswith("21, ...")


def test_a_fault_of_many_rows_is_told_by_the_first_and_their_number():
    bad = [BadRow(f"r.jsonl:{n}", f"is not JSON {n}") for n in range(1, 1001)]
    with pytest.raises(DataError) as caught:
        settle_bad_rows(bad, 2000, "error", 0.0)
    lines = str(caught.value).split("\n")[1:]
    assert len(lines) == 4
    assert lines[3].startswith("  ... and 997 more with that fault: lines 4, 5, 6")


def test_different_faults_are_all_told_and_the_rare_one_is_not_buried():
    common = [f"image '{n}.png' does not exist" for n in range(500)]
    lines = told([*common, "answer is empty", "lacks 'answer'", "lacks 'image'"])
    assert [line.split(": ")[-1] for line in lines[4:]] == [
        "answer is empty",
        "lacks 'answer'",
        "lacks 'image'",
    ]


def test_more_kinds_of_faults_than_fit_are_counted():
    lines = told([f"lacks '{chr(ord('a') + n)}'" for n in range(26)])
    assert len(lines) == 21
    assert lines[-1] == "  ... and 6 more"
