"""Turn a clone of the public easy-VQA repository into JSON lines and images.

The repository is https://github.com/vzhou842/easy-VQA (MIT, Victor Zhou 2019). Of its
4,000 training pictures 2,000 are trained on and 250 others held out, four questions
each; the official test split stays whole and untouched. Which ones is decided by one
fixed permutation, so the result is a function of the clone alone: every conversion
gives the same bytes, and figures measured on them can be compared.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainbus_data.folders import new_folder, refuse_content, write_rows
from trainbus_data.unreadable import or_data_error
from training.errors import DataError
from training.files.named_paths import named_path
from training.messages.tables import count

__all__ = ["convert_easy_vqa"]

REPOSITORY = "https://github.com/vzhou842/easy-VQA"
QUESTIONS_EACH = 4
#: Of the permutation; another number would give other rows than the published figures.
FIXED_SEED = 7

Questions = Mapping[int, Sequence[tuple[str, str]]]
#: (image number, question, answer)
Row = tuple[int, str, str]


def convert_easy_vqa(
    clone: str | Path,
    out: str | Path,
    num_train_images: int = 2000,
    num_validation_images: int = 250,
) -> dict[str, int]:
    """Write ``out`` from a clone; return the number of rows in each split.

    ``out`` holds train.jsonl (8,000 rows), val.jsonl (1,000), test.jsonl (9,673),
    answers.txt, the images below train/, val/ and test/, and the repository's LICENSE.
    It appears at once, complete.

    Args:
        clone: folder of the clone, which holds ``easy_vqa/data``.
        out: folder to make; may exist only when empty.
        num_train_images: training pictures to train on.
        num_validation_images: further training pictures, to judge by.
    Raises:
        DataError: the clone lacks a file or holds other content than expected, or
            ``out`` is not empty.
    """
    clone, out = named_path(clone), named_path(out)
    refuse_content(out)
    source = clone / "easy_vqa" / "data"
    training, testing = _read(source / "train"), _read(source / "test")
    train, val = _choose(training, num_train_images, num_validation_images)
    test = [(image, *pair) for image, pairs in testing.items() for pair in pairs]
    answers = _read_answers(source / "answers.txt")
    num_rows: dict[str, int] = {}
    with new_folder(out) as temp:
        for split, origin, rows in (
            ("train", "train", train),
            ("val", "train", val),
            ("test", "test", test),
        ):
            num_rows[split] = _write(temp, split, source / origin, rows)
        (temp / "answers.txt").write_text("\n".join(answers) + "\n", encoding="utf-8")
        for notice in clone.glob("LICENSE*"):
            shutil.copyfile(notice, temp / notice.name)
    return num_rows


def _choose(
    questions: Questions, num_train: int, num_validation: int
) -> tuple[list[Row], list[Row]]:
    """Return training rows and validation rows; no picture is in both."""
    permutation = random.Random(FIXED_SEED)
    images = sorted(questions)
    permutation.shuffle(images)
    usable = [image for image in images if len(questions[image]) >= QUESTIONS_EACH]
    if len(usable) < num_train + num_validation:
        raise DataError(
            f"the clone has {count(len(usable), 'training picture')} with "
            f"{QUESTIONS_EACH} or more questions, but {num_train + num_validation} are "
            "needed; is it complete?"
        )
    splits: list[list[Row]] = []
    for chosen in (usable[:num_train], usable[num_train:][:num_validation]):
        rows = [
            (image, *pair)
            for image in chosen
            for pair in permutation.sample(questions[image], QUESTIONS_EACH)
        ]
        permutation.shuffle(rows)
        splits.append(rows)
    return splits[0], splits[1]


def _read(folder: Path) -> dict[int, list[tuple[str, str]]]:
    """Return image number -> its (question, answer) pairs, both in file order."""
    path = folder / "questions.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}; CLONE should be a clone of "
            f"{REPOSITORY}: git clone {REPOSITORY} CLONE"
        ) from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    by_image: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for number, entry in enumerate(entries):
        match entry:
            case [str(question), str(answer), int(image)]:
                by_image[image].append((question, answer))
            case _:
                raise DataError(
                    f"{path}: entry {number} is {entry!r}, but must be "
                    "[question, answer, image number]"
                )
    if not by_image:
        raise DataError(f"{path} holds no questions")
    return dict(sorted(by_image.items()))


def _read_answers(path: Path) -> list[str]:
    with or_data_error(path):
        return sorted(path.read_text(encoding="utf-8").split())


def _write(out: Path, split: str, source: Path, rows: Sequence[Row]) -> int:
    """Copy the images of one split and write its rows; return how many."""
    (out / split / "images").mkdir(parents=True)
    for image in sorted({image for image, _, _ in rows}):
        name = f"images/{image}.png"
        try:
            shutil.copyfile(source / name, out / split / name)
        except FileNotFoundError as error:
            raise DataError(
                f"{source / name} is missing, but {source / 'questions.json'} asks "
                "about it; is the clone complete?"
            ) from error
    dicts: list[dict[str, Any]] = [
        {
            "question_id": f"{split}-{number:05d}",
            "image": f"{split}/images/{image}.png",
            "question": question,
            "answer": answer,
        }
        for number, (image, question, answer) in enumerate(rows)
    ]
    return write_rows(out / f"{split}.jsonl", dicts)
