"""The reader ``vqa_v2``: the files of questions and annotations of VQA v2.

Read are the official files of VQA v2 and OK-VQA, and sets in that form, such as TextVQA
and VizWiz, whose questions hold their answers themselves.
"""

from __future__ import annotations

import logging
import marshal
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainbus_data.commonest import commonest
from trainbus_data.readers.derived import PicturePattern
from trainbus_data.readers.json_items import JsonItems
from trainbus_data.readers.kept_rows import Item, KeptRows
from trainbus_data.rows.formats import refuse_other_formats
from trainbus_data.rows.json_lines import UnusableRow, show
from training.errors import DataError
from training.files.named_paths import named_path
from training.messages.tables import count

__all__ = ["VqaV2"]

logger = logging.getLogger(__name__)

QUESTIONS, ANNOTATIONS = ("questions", "data", None), ("annotations", None)


class VqaV2(KeptRows):
    """Questions joined with their annotations by ``question_id``.

    A row has ``question_id``, ``image``, ``question``; with an annotation ``answer``
    (its ``multiple_choice_answer``, else the most frequent answer), ``answers`` (the
    annotators', in order) and ``kind`` (its ``answer_type``).

    Args:
        questions: JSON with a list ``questions`` or ``data``, or a list itself.
        images: pattern over a question's values that gives its picture, relative to
            the folder of ``questions``, such as
            ``val2014/COCO_val2014_{image_id:012d}.jpg``.
        annotations: JSON with a list ``annotations``, or a list itself; None: answers
            are those that questions hold, or absent.
    Raises:
        DataError: a file cannot be read, is of another format or holds no row, or no
            question has an annotation.
        ConfigError: the pattern is none.
    """

    def __init__(
        self,
        questions: str | os.PathLike[str],
        *,
        images: str,
        annotations: str | os.PathLike[str] | None = None,
    ) -> None:
        asked = named_path(questions)
        answered = None if annotations is None else named_path(annotations)
        pictures = PicturePattern(images)
        sources = [path for path in (asked, answered) if path is not None]
        for source in sources:
            refuse_other_formats(source, "vqa_v2")
        super().__init__(
            asked,
            sources,
            {"reader": "vqa_v2", "images": images},
            lambda: _rows_of(asked, answered, pictures),
        )


def _rows_of(
    asked: Path, answered: Path | None, pictures: PicturePattern
) -> Iterator[Item]:
    questions = JsonItems(asked, QUESTIONS, refuses_twins=False)
    found = None if answered is None else _Annotations(answered)
    place_of: dict[str | int, str] = {}
    for place, question in questions:
        if isinstance(question, UnusableRow):
            yield place, question
            continue
        try:
            row = _row_of(question, pictures)
            if (name := row.get("question_id")) is not None:
                first = place_of.setdefault(name, place)
                if first is not place:
                    raise UnusableRow(
                        f"question_id {name!r} is already used on line {first}"
                    )
            row |= _answered(question) if found is None else found.take(question)
        except UnusableRow as error:
            yield place, error
        else:
            yield place, row
    if found is not None:
        found.tell(asked)


def _row_of(question: dict[str, Any], pictures: PicturePattern) -> dict[str, Any]:
    if "question" not in question:
        raise UnusableRow("lacks 'question'")
    shown = pictures.add_to(question)
    row = {name: shown[name] for name in ("image", "question")}
    name = question.get("question_id")
    if name is None:
        return row
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise UnusableRow(
            f"question_id is {show(name)}; write a string or a whole number"
        )
    return {"question_id": name, **row}


def _answered(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an annotation says of the answer; {} if it says nothing."""
    row: dict[str, Any] = {}
    if "answers" in annotation:
        row["answers"] = _texts_of(annotation["answers"])
    if "multiple_choice_answer" in annotation:
        row["answer"] = annotation["multiple_choice_answer"]
    elif row:
        row["answer"] = commonest(row["answers"])
    if row and "answer_type" in annotation:
        row["kind"] = annotation["answer_type"]
    return row


def _texts_of(answers: Any) -> list[str]:
    if not isinstance(answers, list) or not answers:
        raise UnusableRow(f"answers is {show(answers)}; write a list of strings")
    texts: list[str] = []
    for each in answers:
        text = each.get("answer") if isinstance(each, dict) else each
        if not isinstance(text, str):
            raise UnusableRow(
                f"answers[{len(texts)}] is {show(each)}; write a string, or an object "
                "with one in 'answer'"
            )
        texts.append(text)
    return texts


class _Annotations:
    """The annotations of one file by question; each is handed out once.

    Each is held as bytes: Python's garbage collector would walk through millions of
    objects again and again, for a third of the time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._of: dict[str | int, tuple[Any, bytes]] = {}
        self._twice: set[str | int] = set()
        for place, annotation in JsonItems(path, ANNOTATIONS, refuses_twins=False):
            self._add(place, annotation)
        self._num_found = self._num_missing = 0
        if not self._of:
            raise DataError(f"{path} holds no annotations")

    def take(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the annotation of a question says.

        Raises:
            UnusableRow: there is none, or none that can be used.
        """
        name = question.get("question_id")
        if name is None:
            raise UnusableRow(
                f"lacks 'question_id', by which it is found in {self._path.name}"
            )
        if name in self._twice:
            self._num_found += self._of.pop(name, None) is not None
            raise UnusableRow(
                f"question_id {name!r} has two annotations in {self._path.name}"
            )
        if name not in self._of:
            self._num_missing += 1
            raise UnusableRow(f"question_id {name!r} has no annotation in "
                              f"{self._path.name}")  # fmt: skip
        self._num_found += 1
        image, said = self._of.pop(name)
        own = question.get("image_id")
        if image is not None and own is not None and image != own:
            raise UnusableRow(
                f"image_id is {show(own)}, but {show(image)} in its annotation in "
                f"{self._path.name}"
            )
        row: dict[str, Any] | str = marshal.loads(said)
        if isinstance(row, str):
            raise UnusableRow(row)
        return row

    def tell(self, asked: Path) -> None:
        """Refuse annotations that answer nothing, and warn of some that do not."""
        if self._num_missing and not self._num_found:
            raise DataError(
                f"no question of {asked} has an annotation in {self._path}; name two "
                "files of the same split"
            )
        if self._of:
            left = count(len(self._of), "annotation")
            logger.warning("%s of %s, about no question of %s, left out",
                           left, self._path, asked)  # fmt: skip

    def _add(self, place: str, annotation: dict[str, Any] | UnusableRow) -> None:
        if isinstance(annotation, UnusableRow):
            raise DataError(f"{self._path}:{place}: {annotation}")
        name = annotation.get("question_id")
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise DataError(
                f"{self._path}:{place}: question_id is {show(name)}, and an annotation "
                "is found by it; write a string or a whole number"
            )
        if name in self._of:
            self._twice.add(name)
        said: dict[str, Any] | str
        try:
            said = _answered(annotation)
            if not said:
                raise UnusableRow("has neither 'answers' nor 'multiple_choice_answer'")
        except UnusableRow as error:
            said = f"its annotation at {self._path.name}:{place}: {error}"
        self._of[name] = annotation.get("image_id"), marshal.dumps(said)
