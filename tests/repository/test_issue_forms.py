"""What is asked of somebody who opens an issue can be answered."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from training.app.cli.command_line import build_parser

ROOT = Path(__file__).resolve().parents[2]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
FIELDS = {"checkboxes", "dropdown", "input", "markdown", "textarea"}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_of_an_issue_asks_in_fields_that_can_be_told_apart(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    assert {field["type"] for field in form["body"]} <= FIELDS
    asked = [field for field in form["body"] if field["type"] != "markdown"]
    for key in (lambda f: f["id"], lambda f: f["attributes"]["label"]):
        assert len({key(field) for field in asked}) == len(asked)
    assert any(field.get("validations", {}).get("required") for field in asked)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_of_an_issue_asks_for_commands_that_there_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for line in re.findall(r"`trainbus ([a-z][^`]+)`", text):
        assert build_parser().parse_args(line.split())
    for page in re.findall(r"[\w/-]+\.md", text):
        assert (ROOT / page).is_file()
