"""Rows are read strictly; every bad one is reported with file, line and reason."""

import json
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from trainbus_data.rows.json_lines import show
from trainbus_data.rows.reading import BadRow, read_rows, settle_bad_rows
from trainbus_data.vqa.task import kind_of
from training.errors import DataError

GOOD = {"image": "a.png", "question": "what?", "answer": "red"}


def write(tmp_path: Path, *lines: str | bytes) -> Path:
    path = tmp_path / "rows.jsonl"
    raw = [line.encode() if isinstance(line, str) else line for line in lines]
    path.write_bytes(b"\n".join(raw))
    return path


def test_a_row_gets_id_answers_and_kind_when_it_has_none(tmp_path):
    rows, bad = read_rows(write(tmp_path, json.dumps(GOOD)))
    assert bad == []
    assert rows[0].as_dict() == {
        "question_id": "rows-1",
        "question": "what?",
        "answer": "red",
        "answers": ["red"],
        "kind": "other",
        "image": "a.png",
    }
    assert rows[0].pictures[0].key == str(tmp_path.resolve() / "a.png")


def test_a_row_keeps_its_own_id_answers_and_kind(tmp_path):
    own = {"question_id": 7, "answers": ["red", "dark red"], "kind": "colour"}
    rows, _ = read_rows(write(tmp_path, json.dumps(GOOD | own)))
    assert rows[0].question_id == 7
    assert rows[0].answers == ["red", "dark red"]
    assert rows[0].kind == "colour"


def test_a_whole_number_is_its_text_as_in_a_table_and_that_is_told_once_a_file(
    tmp_path, caplog
):
    labels = [3, "3", 10, -1, 3]
    path = write(tmp_path, *(json.dumps(GOOD | {"answer": one}) for one in labels))
    rows, bad = read_rows(path)
    assert bad == []
    assert [row.answer for row in rows] == ["3", "3", "10", "-1", "3"]
    (told,) = caplog.messages
    assert "rows.jsonl:1: answer is the number 3; whole numbers are taken as" in told


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"\xef\xbb\xbf" + json.dumps(GOOD).encode()], id="a BOM"),
        pytest.param([json.dumps(GOOD) + "\r"], id="CRLF"),
        pytest.param(["", json.dumps(GOOD), "  ", ""], id="blank lines"),
        pytest.param([json.dumps(GOOD | {"extra": [1]})], id="an extra key"),
        pytest.param(
            [json.dumps(GOOD | {"question": "a\u2028b"}, ensure_ascii=False)],
            id="U+2028 is no line end",
        ),
    ],
)
def test_a_harmless_oddity_is_accepted(tmp_path, lines):
    rows, bad = read_rows(write(tmp_path, *lines))
    assert (len(rows), bad) == (1, [])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param("{'image': 1}", "is not JSON", id="no JSON"),
        pytest.param('{"image": "a.png", "ques', "cut off", id="a truncated line"),
        pytest.param(
            json.dumps(GOOD) + ",",
            "remove what follows there, such as a comma",
            id="a comma at the end",
        ),
        pytest.param("[1]", "is [1] (a list)", id="a list"),
        pytest.param('"x"', "write a JSON object", id="a word"),
        pytest.param(json.dumps(GOOD)[:-1] + ', "x": NaN}', "NaN", id="a NaN literal"),
        pytest.param('{"x": ' + "9" * 5000 + "}", "digits", id="a huge number"),
        pytest.param('{"x": ' + "[" * 100_000, "deeply", id="deep nesting"),
        pytest.param(
            b'{"image": "\xff"}',
            "not UTF-8 at byte 12; write the file as UTF-8, as in: iconv -f ",
            id="not UTF-8",
        ),
        pytest.param('{"a": 1, "a": 2}', "'a' twice", id="a key given twice"),
        pytest.param(
            json.dumps({"image": "a", "question": "b", "anwser": "c"}),
            "lacks 'answer' (did you mean 'anwser'?",
            id="a misspelt key",
        ),
        pytest.param(json.dumps(GOOD | {"answer": 2.0}), "is 2.0", id="a fraction"),
        pytest.param(json.dumps(GOOD | {"answer": " "}), "is empty", id="no answer"),
        pytest.param(json.dumps(GOOD | {"image": None}), "is null", id="a null"),
        pytest.param(json.dumps(GOOD | {"image": 3}), "image is 3", id="a picture 3"),
        pytest.param(json.dumps(GOOD | {"answer": True}), "is true", id="a truth"),
        pytest.param(
            json.dumps(GOOD | {"question": "\ud800"}), "surrogate", id="half a pair"
        ),
        pytest.param(json.dumps(GOOD | {"answers": []}), "answers is []", id="[]"),
        pytest.param(
            json.dumps(GOOD | {"answers": ["a", True]}), "[1] is true", id="mixed"
        ),
        pytest.param(
            json.dumps(GOOD | {"question_id": True}), "question_id is true", id="bool"
        ),
        pytest.param(json.dumps(GOOD | {"image": "a\0b"}), "NUL", id="a NUL"),
        pytest.param(json.dumps(GOOD | {"question": "x" * (1 << 20)}), "longer than",
                     id="a line of 1 MiB"),
        pytest.param(
            json.dumps(GOOD | {"image": "../a.png"}), "outside", id="a path upwards"
        ),
        pytest.param(
            json.dumps(GOOD | {"image": "/etc/a.png"}), "outside", id="an absolute path"
        ),
    ],
)  # fmt: skip
def test_a_bad_row_is_reported_and_the_others_are_read(tmp_path, line, reason):
    good = json.dumps(GOOD)
    rows, bad = read_rows(write(tmp_path, good, line, good))
    assert [row.line for row in rows] == [1, 3]
    assert [row.line for row in bad] == [2]
    assert str(bad[0]).startswith(f"{tmp_path / 'rows.jsonl'}:2: ")
    assert reason in bad[0].reason


def test_a_duplicated_id_names_the_first_line(tmp_path):
    row = json.dumps(GOOD | {"question_id": "q"})
    _, bad = read_rows(write(tmp_path, row, row))
    assert bad[0].reason == "question_id 'q' is already used on line 1"


@pytest.mark.parametrize("ids", [(7, "7"), ("7", 7)])
def test_an_id_as_a_number_and_as_its_text_is_one_id(tmp_path, ids):
    _, bad = read_rows(
        write(tmp_path, *(json.dumps(GOOD | {"question_id": one}) for one in ids))
    )
    assert bad[0].reason == f"question_id {ids[1]!r} is already used on line 1"


@pytest.mark.parametrize("name", ["kind", "answers", "question_id"])
def test_null_is_no_value_of_what_a_row_may_do_without(tmp_path, name):
    rows, bad = read_rows(
        write(tmp_path, json.dumps(GOOD), json.dumps(GOOD | {name: None}))
    )
    assert bad == []
    plain, row = (each.as_dict() | {"question_id": ""} for each in rows)
    assert row == plain


def test_answers_of_null_are_none_to_take_an_answer_from(tmp_path):
    row = {"image": "a.png", "question": "b", "answers": None}
    _, bad = read_rows(write(tmp_path, json.dumps(row)))
    assert bad[0].reason.startswith("lacks 'answer'")


def test_a_link_out_of_the_root_is_refused(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "a.png").write_bytes(b"")
    (inside / "a.png").symlink_to(tmp_path / "a.png")
    _, bad = read_rows(write(inside, json.dumps(GOOD)))
    assert "outside" in bad[0].reason
    (tmp_path / "a.png").unlink()
    _, bad = read_rows(write(inside, json.dumps(GOOD)))
    gone = str(tmp_path / "a.png")
    assert bad[0].reason == f"image 'a.png' is a link that leads nowhere, to {gone!r}"


def test_a_folder_behind_a_link_names_where_it_leads_and_the_root_that_would_do(
    tmp_path,
):
    tmp_path = tmp_path.resolve()
    for name in ("shared", "mine"):
        (tmp_path / name).mkdir()
    (tmp_path / "shared" / "a.png").write_bytes(b"")
    (tmp_path / "mine" / "train").symlink_to(tmp_path / "shared")
    path = write(tmp_path / "mine", json.dumps(GOOD | {"image": "train/a.png"}))
    _, bad = read_rows(path)
    picture = str(tmp_path / "shared" / "a.png")
    assert f"'train/a.png' leads by a link to {picture!r}, outside" in bad[0].reason
    assert f"set data.root to {str(tmp_path)!r}, which holds" in bad[0].reason
    rows, bad = read_rows(path, root=tmp_path)
    assert (len(rows), bad) == (1, [])


def test_a_wider_root_allows_images_beside_the_rows_folder(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    path = write(inside, json.dumps(GOOD | {"image": "../a.png"}))
    rows, _ = read_rows(path, root=tmp_path)
    assert rows[0].pictures[0].key == str(tmp_path.resolve() / "a.png")


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_rows_is_an_error(tmp_path, content):
    with pytest.raises(DataError, match="holds no rows"):
        read_rows(write(tmp_path, content))


def test_a_share_is_told_as_exactly_as_the_cap_that_it_exceeds():
    bad = [BadRow(f"r.jsonl:{line}", "broken") for line in range(3)]
    with pytest.raises(DataError, match=r"share of 0\.0375, but .* is 0\.0374"):
        settle_bad_rows(bad, 80, "skip", 0.0374)
    with pytest.raises(DataError, match=r"share of 0\.037, but .* is 0\.03"):
        settle_bad_rows(bad, 80, "skip", 0.03)


@pytest.mark.parametrize(
    ("num_bad", "policy", "cap", "message"),
    [
        pytest.param(0, "error", 0.0, None, id="no bad row is no error"),
        pytest.param(1, "error", 1.0, "1 of 100 rows", id="error refuses one bad row"),
        pytest.param(5, "skip", 0.05, None, id="skip bears the share allowed"),
        pytest.param(6, "skip", 0.05, "share of 0.060", id="and refuses more"),
        pytest.param(100, "skip", 1.0, "100 of 100", id="nothing usable is an error"),
    ],
)
def test_bad_rows_are_settled_by_policy(num_bad, policy, cap, message, caplog):
    bad = [BadRow(f"r.jsonl:{line}", "broken") for line in range(num_bad)]
    if message is None:
        settle_bad_rows(bad, 100, policy, cap)
        assert ("left out" in caplog.text) == bool(num_bad)
    else:
        with pytest.raises(DataError, match=message):
            settle_bad_rows(bad, 100, policy, cap)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [("yes", "yes_no"), ("No", "yes_no"), ("2", "number"), ("1,000", "number"),
     ("0.5", "number"), ("red", "other"), ("two", "other")],
)  # fmt: skip
def test_the_kind_follows_from_the_answer(answer, kind):
    assert kind_of(answer) == kind


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param(b"ab", "\"b'ab'\"", id="bytes"),
        pytest.param({"at": date(2024, 5, 1)}, "datetime.date(2024, 5, 1)", id="date"),
        pytest.param(Decimal("1.5"), "Decimal('1.5')", id="decimal"),
    ],
)
def test_a_value_that_json_does_not_know_can_be_shown(value, shown):
    assert shown in show(value)
