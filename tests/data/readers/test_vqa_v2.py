"""Questions and annotations of VQA v2 and of sets in its form become rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainbus_data.readers.vqa_v2 import VqaV2
from trainbus_data.rows.json_lines import UnusableRow
from training.errors import ConfigError, DataError

IMAGES = "val2014/COCO_val2014_{image_id:012d}.jpg"
QUESTION = {"image_id": 262148, "question": "Where is he?", "question_id": 262148000}
ANSWERS = ["down", "down", "at table", "skateboard", "down", "table", "down", "down",
           "down", "yes"]  # fmt: skip
ANNOTATION = {
    "question_type": "where is",
    "multiple_choice_answer": "down",
    "answers": [
        {"answer": answer, "answer_confidence": "yes", "answer_id": number + 1}
        for number, answer in enumerate(ANSWERS)
    ],
    "image_id": 262148,
    "answer_type": "other",
    "question_id": 262148000,
}
ROW = {
    "question_id": 262148000,
    "image": "val2014/COCO_val2014_000000262148.jpg",
    "question": "Where is he?",
    "answers": ANSWERS,
    "answer": "down",
    "kind": "other",
}


def with_id(entry: dict[str, Any], number: int, **others: Any) -> dict[str, Any]:
    return {**entry, "question_id": number, **others}


def pair(folder: Path, questions: Any, annotations: Any) -> tuple[Path, Path]:
    asked, answered = folder / "q.json", folder / "a.json"
    head = {"info": {"version": "2.0"}, "data_subtype": "val2014"}
    asked.write_text(json.dumps({**head, "questions": questions}, indent=0))
    answered.write_text(json.dumps({**head, "annotations": annotations}, indent=0))
    return asked, answered


def read(folder: Path, questions: Any, annotations: Any) -> VqaV2:
    asked, answered = pair(folder, questions, annotations)
    return VqaV2(asked, annotations=answered, images=IMAGES)


def test_a_question_is_joined_with_all_ten_answers_in_order(tmp_path):
    other = with_id(QUESTION, 7, question="What?")
    rows = read(tmp_path, [QUESTION, other], [with_id(ANNOTATION, 7), ANNOTATION])
    assert len(rows) == 2
    assert rows[0] == ROW
    assert rows[1] == {**ROW, "question": "What?", "question_id": 7}
    assert rows.root == tmp_path
    assert rows.place(0) == f"{tmp_path / 'q.json'}:7"


def test_without_annotations_there_are_no_answers(tmp_path):
    asked, _ = pair(tmp_path, [QUESTION], [])
    (row,) = VqaV2(asked, images=IMAGES)
    assert row == {key: ROW[key] for key in ("question_id", "image", "question")}


OK_VQA = {key: value for key, value in ANNOTATION.items() if "choice" not in key}


@pytest.mark.parametrize(
    ("annotation", "answer"),
    [
        pytest.param(OK_VQA, "down", id="the most frequent, as for OK-VQA"),
        pytest.param(
            {**OK_VQA, "answers": [{"answer": "b"}, {"answer": "a"}]}, "b",
            id="of equally frequent ones the first",
        ),
        pytest.param(
            {**OK_VQA, "answers": ["a", "b", "b"]}, "b", id="of plain texts"
        ),
        pytest.param({**OK_VQA, "answers": ["", "a", "a"]}, "a", id="one may be empty"),
        pytest.param(
            {**ANNOTATION, "multiple_choice_answer": "yes"}, "yes",
            id="what the annotation says comes first",
        ),
    ],
)  # fmt: skip
def test_the_answer_is_the_majoritys(tmp_path, annotation, answer):
    (row,) = read(tmp_path, [QUESTION], [annotation])
    assert row["answer"] == answer


@pytest.mark.parametrize(
    ("whole", "images", "row"),
    [
        pytest.param(
            {"dataset_type": "train", "data": [
                {"question": "what brand?", "image_id": "0054c", "question_id": 0,
                 "answers": ["nous les gosses", "dakota", "dakota"]}]},
            "train_images/{image_id}.jpg",
            {"question_id": 0, "image": "train_images/0054c.jpg",
             "question": "what brand?", "answer": "dakota",
             "answers": ["nous les gosses", "dakota", "dakota"]},
            id="TextVQA",
        ),
        pytest.param(
            [{"image": "VizWiz_0.jpg", "question": "what?", "answerable": 1,
              "answer_type": "other", "answers": [
                  {"answer": "basil", "answer_confidence": "yes"},
                  {"answer": "basil", "answer_confidence": "maybe"}]}],
            "train/{image}",
            {"image": "train/VizWiz_0.jpg", "question": "what?", "answer": "basil",
             "answers": ["basil", "basil"], "kind": "other"},
            id="VizWiz",
        ),
    ],
)  # fmt: skip
def test_questions_may_hold_their_answers(tmp_path, whole, images, row):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(whole))
    (found,) = VqaV2(path, images=images)
    assert found == row


def test_annotations_alone_in_a_list_are_read(tmp_path):
    asked, _ = pair(tmp_path, [QUESTION], [])
    answered = tmp_path / "list.json"
    answered.write_text(json.dumps([ANNOTATION]))
    (row,) = VqaV2(asked, annotations=answered, images=IMAGES)
    assert row == ROW


@pytest.mark.parametrize(
    ("question", "annotation", "reason"),
    [
        ({}, with_id(ANNOTATION, 7), "question_id 262148000 has no annotation in a."),
        ({"question_id": None}, {}, "lacks 'question_id', by which it is found in a"),
        ({"question_id": [1]}, {}, "question_id is [1] (a list); write a string or"),
        ({"question_id": True}, {}, "question_id is true; write a string or"),
        ({"image_id": "x"}, {}, f"does not fit images {IMAGES!r}"),
        ({"image_id": 5}, {}, "image_id is 5, but 262148 in its annotation in a.json"),
        ({}, {"answers": []}, "its annotation at a.json:17: answers is [] (a list)"),
        ({}, {"answers": [{"text": 1}]}, 'its annotation at a.json:17: answers[0] is'),
        ({}, {"answers": ["a", 3]}, "its annotation at a.json:17: answers[1] is 3;"),
    ],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
def test_a_question_that_is_no_row_hurts_no_other(
    tmp_path, question, annotation, reason
):
    good, said = with_id(QUESTION, 1), with_id(ANNOTATION, 1, answers=["a"])
    rows = read(
        tmp_path, [good, {**QUESTION, **question}], [said, {**ANNOTATION, **annotation}]
    )
    assert rows[0]["question_id"] == 1
    assert rows.faulty == (1,)
    with pytest.raises(UnusableRow) as caught:
        rows[1]
    assert str(caught.value).startswith(reason)


def test_a_question_without_a_question_is_no_row(tmp_path):
    lacking = {key: QUESTION[key] for key in ("image_id", "question_id")}
    rows = read(tmp_path, [lacking], [ANNOTATION])
    with pytest.raises(UnusableRow, match="lacks 'question'"):
        rows[0]


def test_an_id_that_is_used_twice_names_the_first(tmp_path):
    rows = read(tmp_path, [QUESTION, QUESTION], [ANNOTATION])
    assert rows[0] == ROW
    with pytest.raises(UnusableRow, match=r"262148000 is already used on line 7$"):
        rows[1]


def test_two_annotations_of_a_question_are_not_chosen_between(tmp_path):
    rows = read(tmp_path, [QUESTION], [ANNOTATION, ANNOTATION])
    with pytest.raises(UnusableRow, match=r"262148000 has two annotations in a\.json"):
        rows[0]


def test_annotations_of_no_question_are_told_once(tmp_path, caplog):
    more = [with_id(ANNOTATION, number) for number in range(3)]
    read(tmp_path, [QUESTION], [ANNOTATION, *more])
    assert "3 annotations of" in caplog.text
    assert "about no question" in caplog.text


def test_files_of_two_splits_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no question of .*name two files of the same"):
        read(tmp_path, [QUESTION], [with_id(ANNOTATION, 1)])


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ([], r"a\.json holds no annotations"),
        ([3], r"a\.json:7: is 3; write a JSON object"),
        ([{"question_id": None}], r"a\.json:7: question_id is null, and an annotation"),
    ],
    ids=repr,
)
def test_annotations_that_are_none_are_refused(tmp_path, annotations, words):
    with pytest.raises(DataError, match=words):
        read(tmp_path, [QUESTION], annotations)


def test_swapped_files_are_told_apart(tmp_path):
    asked, answered = pair(tmp_path, [QUESTION], [ANNOTATION])
    with pytest.raises(DataError, match=r"a\.json .* its lists are: annotations$"):
        VqaV2(answered, annotations=asked, images=IMAGES)
    with pytest.raises(DataError, match=r"q\.json .* its lists are: questions$"):
        VqaV2(asked, annotations=asked, images=IMAGES)


def test_pictures_need_a_pattern(tmp_path):
    asked, answered = pair(tmp_path, [QUESTION], [ANNOTATION])
    with pytest.raises(ConfigError, match="must name a value of the row"):
        VqaV2(asked, annotations=answered, images="val2014")
    rows = VqaV2(asked, annotations=answered, images="{imageid}.jpg")
    with pytest.raises(UnusableRow, match=r"lacks 'imageid' \(did you mean 'image_id'"):
        rows[0]
