"""The kernel and its app name no task, no model family, no layout and no medium."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[1] / "core" / "training"
#: What would tie the core to one use of it, as a word or within a name.
WORDS = re.compile(
    r"(?<![a-z])(vqa|blip|pictures?|question|images?|pixels?|jsonl|captions?)(?![a-z])",
    re.IGNORECASE,
)
#: Short forms of fields that the guide's reader types, and a converter of one set.
SHORT_FORMS = {
    "app/cli/argument_checks.py",
    "app/cli/command_line.py",
    "app/cli/commands.py",
    "app/cli/predict.py",
}


def named(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and word of code, prose left out."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    for before, token in zip([None, *tokens], tokens, strict=False):
        is_prose = token.type == tokenize.STRING and (
            before is None
            or before.type
            in (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.COMMENT)
        )
        if token.type not in (tokenize.NAME, tokenize.STRING) or is_prose:
            continue
        text = token.string.replace("VQAEvaluator", "")  # a name of the guide
        for word in WORDS.findall(text):
            yield token.start[0], word


@pytest.mark.parametrize(
    "path",
    sorted(CORE.rglob("*.py")),
    ids=lambda path: str(path.relative_to(CORE)),
)
def test_no_code_of_the_core_names_what_is_trained(path: Path) -> None:
    if str(path.relative_to(CORE)) in SHORT_FORMS:
        pytest.skip("has the short forms of fields")
    assert list(named(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "task = 'vqa'\n",
        "if family == 'blip': pass\n",
        "row['question']\n",
        "max_image_pixels = 3\n",
        "def f(picture): pass\n",
    ],
)
def test_a_name_of_what_is_trained_is_found(source: str) -> None:
    assert list(named(source))


def test_prose_and_other_words_are_not_taken_for_one() -> None:
    assert list(named('"""Of images."""\nimagine = 1  # a picture\n')) == []
