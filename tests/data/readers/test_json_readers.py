"""JSON lines and JSON documents: the same objects as rows, each with its place."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainbus_data.readers.json_array import JsonArray
from trainbus_data.readers.json_lines import JsonLines
from trainbus_data.rows.json_lines import UnusableRow
from training.errors import ConfigError, DataError

ROWS = [
    {"image": "a.png", "question": "what?", "answer": "red", "n": 1, "none": None},
    {"image": "b.png", "question": "wer?", "answer": "grün\n", "answers": ["a", "b"]},
    {"image": "c.png", "question": "什么", "answer": "\ud800"},
]


def write(folder: Path, text: str | bytes, name: str = "rows.json") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def as_lines(folder: Path) -> JsonLines:
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    return JsonLines(write(folder, text, "rows.jsonl"))


def as_indexed_lines(folder: Path) -> JsonLines:
    as_lines(folder)
    return JsonLines(folder / "rows.jsonl", index_above_mb=0)


def as_array(folder: Path) -> JsonArray:
    return JsonArray(write(folder, json.dumps(ROWS)))


def under_key(folder: Path) -> JsonArray:
    whole = {"info": {"a": [1, {}]}, "data": ROWS, "after": [[]]}
    return JsonArray(write(folder, json.dumps(whole, indent=1)), key="data")


@pytest.mark.parametrize("make", [as_lines, as_indexed_lines, as_array, under_key])
def test_rows_come_as_they_are_written(tmp_path, make):
    rows = make(tmp_path)
    assert len(rows) == 3
    assert [rows[n] for n in range(3)] == ROWS
    assert rows[-1] == ROWS[2]
    assert rows.root == tmp_path
    with pytest.raises(IndexError, match="row 3 of 3"):
        rows[3]


def test_a_fingerprint_tells_rows_and_not_their_layout(tmp_path):
    made = [make(tmp_path) for make in (as_lines, as_array, under_key)]
    assert len({rows.fingerprint for rows in made}) == 1
    other = JsonArray(write(tmp_path, json.dumps(ROWS[:2]), "other.json"))
    assert other.fingerprint != made[0].fingerprint


@pytest.mark.parametrize(
    ("text", "places"),
    [
        pytest.param('[{"a": 1},\n {"b": 2}]', ["1#1", "2"], id="an item a line"),
        pytest.param('[\n{"a":\n 1},\n{"b": 2}\n]\n', ["2", "4"], id="indented"),
        pytest.param('[{"a": 1}, {"b": 2}]', ["1#1", "1#2"], id="a line"),
        pytest.param('\ufeff[\n{}, {"b": 2}]', ["2", "2#2"], id="a mark"),
    ],
)
def test_a_place_is_the_line_and_where_that_says_too_little_the_item(
    tmp_path, text, places
):
    path = write(tmp_path, text)
    rows = JsonArray(path)
    assert [rows.place(n) for n in range(2)] == [f"{path}:{place}" for place in places]


def test_blank_lines_of_json_lines_are_counted(tmp_path):
    path = write(tmp_path, '\n{"a": 1}\n\n{"a": 2}', "rows.jsonl")
    for limit in (64, 0):
        rows = JsonLines(path, index_above_mb=limit)
        assert [rows.place(n) for n in range(2)] == [f"{path}:2", f"{path}:4"]


LLAVA = [
    {"from": "human", "value": "<image>\nWhat is it?"},
    {"from": "gpt", "value": "A cat."},
]
ROLES = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
    {"role": "assistant", "content": "A cat."},
]


@pytest.mark.parametrize(
    ("row", "question"),
    [
        pytest.param({"conversations": LLAVA}, "What is it?", id="LLaVA"),
        pytest.param({"messages": ROLES}, "What?", id="roles and parts"),
    ],
)
@pytest.mark.parametrize("reader", [JsonArray, JsonLines])
def test_two_turns_are_a_question_and_its_answer(tmp_path, row, question, reader):
    text = json.dumps({"image": "a.png", **row})
    text = f"[{text}]" if reader is JsonArray else text
    (found,) = reader(write(tmp_path, text))
    assert found == {"image": "a.png", "question": question, "answer": "A cat."}


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([*LLAVA, *LLAVA], "has 4 turns in 'conversations'"),
        (LLAVA[:1], "has 1 turn"),
        ("hello", "has no list of turns"),
        (
            LLAVA[::-1],
            "has a turn of 'gpt' (a string) in 'conversations', where one of",
        ),
        (["a", "b"], "has a turn of 'a' (a string)"),
        ([LLAVA[0], {"from": "gpt", "value": 3}], "conversations.value is 3; write"),
        ([LLAVA[0], {"from": "gpt"}], "conversations.value is null; write"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("reader", [JsonArray, JsonLines])
def test_other_chats_are_bad_rows(tmp_path, turns, reason, reader):
    text = json.dumps({"conversations": turns})
    rows = reader(write(tmp_path, f"[{text}]" if reader is JsonArray else text))
    with pytest.raises(UnusableRow) as caught:
        rows[0]
    assert str(caught.value).startswith(reason)


def test_an_answer_beside_turns_that_say_another_is_a_bad_row(tmp_path):
    path = write(tmp_path, json.dumps([{"messages": ROLES, "answer": "A cat."}]))
    assert JsonArray(path)[0] == {"question": "What?", "answer": "A cat."}
    path = write(tmp_path, json.dumps([{"messages": ROLES, "answer": None}]))
    assert JsonArray(path)[0] == {"question": "What?", "answer": "A cat."}
    path = write(tmp_path, json.dumps([{"messages": ROLES, "answer": "A dog."}]))
    with pytest.raises(UnusableRow, match="another answer in 'answer' than in 'mess"):
        JsonArray(path)[0]


def test_a_pattern_names_the_pictures(tmp_path):
    path = write(tmp_path, '[{"image_id": 42, "image": "other"}]')
    rows = JsonArray(path, images="val/COCO_{image_id:012d}.jpg")
    assert rows[0] == {"image_id": 42, "image": "val/COCO_000000000042.jpg"}


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("val/a.jpg", "must name a value of the row"),
        ("val/{}.jpg", "must name a value of the row"),
        ("val/{image_id.jpg", "no pattern: expected '}'"),
    ],
)
def test_a_pattern_that_is_none_is_refused_before_rows_are_read(
    tmp_path, pattern, words
):
    with pytest.raises(ConfigError, match=words):
        JsonArray(tmp_path / "missing.json", images=pattern)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"imageid": 1}, "lacks 'image_id' (did you mean 'imageid'?), which images"),
        ({"image_id": "x"}, "does not fit images '{image_id:03d}.jpg': Unknown format"),
        ({"image_id": None}, "does not fit images"),
    ],
    ids=repr,
)
def test_a_row_that_a_pattern_does_not_fit_is_bad(tmp_path, row, reason):
    rows = JsonArray(write(tmp_path, json.dumps([row])), images="{image_id:03d}.jpg")
    with pytest.raises(UnusableRow) as caught:
        rows[0]
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ('"text"', "is 'text' (a string); write a JSON object"),
        ("[1]", "is [1] (a list); write a JSON object"),
        ('{"a": 1, "a": 2}', "has the key 'a' twice"),
        ('{"a": {"b": 1, "b": 2}}', "has the key 'b' twice"),
        ('{"a": NaN}', "holds NaN, which is not JSON"),
        (json.dumps({"a": "x" * (1 << 20)}), "is longer than 1048576 bytes"),
    ],
    ids=lambda text: text[:20],
)
def test_an_item_that_is_no_row_hurts_no_other(tmp_path, item, reason):
    rows = JsonArray(write(tmp_path, f'[{{"a": 0}},\n{item},\n{{"a": 2}}]'))
    assert (rows[0], rows[2]) == ({"a": 0}, {"a": 2})
    assert rows.faulty == (1,)
    assert rows.place(1).endswith(":2")
    with pytest.raises(UnusableRow) as caught:
        rows[1]
    assert str(caught.value) == reason


def cut(whole: Any, length: int) -> str:
    return json.dumps(whole, indent=0)[:length]


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "cut off in a row": (cut([{"a": 1}], 10), ":3: is not JSON: Expecting .* cut off"),
    "cut off between rows": ('[{"a": 1}', r":1: .*column 10; the file seems cut off"),
    "a comma too many": ('[{"a": 1},\n]', ":1: is not JSON: Illegal trailing comma"),
    "an open text": ('[{"a": "b', ":1: is not JSON: .* string starting at column"),
    "a comma too few": ('[{"a": 1}\n{"a": 2}]', ":2: is not JSON: Expecting ',' delim"),
    "more behind it": ('[{"a": 1}]\n[]', ":2: is not JSON: Extra data at column 1"),
    "a text": ('"a"', r":1: is 'a' \(a string\); write a list of rows"),
    "no UTF-8": (b'[{"a": 1},\n{"a": "\xff"}]', ":2: is not UTF-8 at byte 19 of the f"),
    "no rows": ("[\n]", "holds no rows"),
    "nothing": ("", "is empty"),
    "blanks": (" \n", "is empty"),
    "too deep": ("[" * 100_000, ":1: is not JSON: nested too deeply"),
}


@pytest.mark.parametrize(("text", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_document_is_told_in_a_sentence(tmp_path, text, words):
    with pytest.raises(DataError, match=words) as caught:
        JsonArray(write(tmp_path, text))
    assert "rows.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"data": [{}], "more": [1', ":1: is not JSON: Expecting .*cut off"),
        ('{"data": [{}]} {}', "Extra data"),
        ('{"data": [{}], 3: 4}', "Expecting property name"),
        ('{"data" [{}]}', "Expecting ':' delimiter"),
        ('{"dat": [{}], "n": 3}', r"without a list under 'data' \(did you mean 'dat'"),
        ('{"n": {}}', "its lists are: none"),
        ('{"data": {}}', "without a list under 'data'; its lists are: none"),
        ("[{}]", "is a list, and no object with a list under 'data'"),
    ],
)
def test_a_list_that_is_not_there_or_cut_off_behind_is_told(tmp_path, text, words):
    with pytest.raises(DataError, match=words) as caught:
        JsonArray(write(tmp_path, text), key="data")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told(tmp_path):
    for reader in (JsonArray, JsonLines):
        with pytest.raises(DataError, match=r"cannot read .*no\.json: No such file"):
            reader(tmp_path / "no.json")


def test_json_lines_without_rows_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no rows"):
        JsonLines(write(tmp_path, " \n"))


def test_a_line_that_is_no_row_hurts_no_other(tmp_path):
    rows = JsonLines(write(tmp_path, '{"a": 0}\n{"a": \n{"a": 2}\n'))
    assert (rows[0], rows[2]) == ({"a": 0}, {"a": 2})
    with pytest.raises(UnusableRow, match="is not JSON: Expecting value at column 6;"):
        rows[1]
    assert rows.place(1).endswith(":2")
    rows = JsonLines(write(tmp_path, '{"a": 0}\n{"a": [1]\n'))
    with pytest.raises(UnusableRow, match="',' delimiter at column 10; the line seems"):
        rows[1]
    rows = JsonLines(write(tmp_path, '{"a": 0}\n{"a": "b'))
    with pytest.raises(UnusableRow, match="string starting at column 7"):
        rows[1]
