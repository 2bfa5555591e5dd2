"""``trainbus report``: where it writes, and what it refuses."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from training.app.cli import main

pytest.importorskip("jinja2", reason="`trainbus report` needs trainbus[report]")
pytest.importorskip("matplotlib", reason="`trainbus report` needs trainbus[report]")


def test_the_page_of_several_runs_stands_in_the_folder_of_all(write_run: Any) -> None:
    runs = write_run("a"), write_run("b")
    assert main(["report", *map(str, runs)]) == 0
    assert (runs[0].parent / "report.html").is_file()
    assert not (runs[0] / "report.html").exists()


@pytest.mark.parametrize("steps", [None, "12", [12]])
def test_a_record_of_steps_that_is_no_number_is_left_out(
    write_run: Any, steps: Any
) -> None:
    run = write_run()
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, "steps": steps}))
    assert main(["report", str(run)]) == 0
    assert "<dt>trained</dt><dd>3 epochs</dd>" in (run / "report.html").read_text()


@pytest.mark.parametrize("names", ["a", "ab"], ids=["of one run", "of several"])
def test_a_report_is_written_anew_and_a_file_that_is_none_is_left_alone(
    write_run: Any, names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write_run(name) for name in names]
    target = (runs[0] if len(runs) == 1 else runs[0].parent) / "report.html"
    for _ in range(2):
        assert main(["report", *map(str, runs)]) == 0
    target.write_text("<title>my report of trainbus</title>")
    assert main(["report", *map(str, runs)]) == 2
    assert "exists and is no report of trainbus" in capsys.readouterr().err
    assert target.read_text() == "<title>my report of trainbus</title>"
    target.unlink()
    target.symlink_to("gone")
    assert main(["report", *map(str, runs)]) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("gone",), "'gone' is no folder"),
        (("runs/demo", "--out", "page.txt"), "must end in .html"),
        (("runs/demo", "--out", "rows/all.jsonl"), "exists; name a new file"),
        (
            ("runs/demo", "--predictions", "a", "--predictions", "b"),
            "--predictions is given 2 times for 1 run",
        ),
        (("runs/demo", "--predictions", "a"), "--predictions 'a' is no file; write"),
    ],
)
def test_what_cannot_be_written_is_said(
    write_run: Any,
    options: tuple[str, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_run()
    assert main(["report", *options]) == 2
    assert words in capsys.readouterr().err


def test_a_missing_extra_is_one_sentence_with_its_line(
    write_run: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "trainbus_report"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", str(write_run())]) == 2
    (line,) = capsys.readouterr().err.strip().split("\n")
    assert line.endswith("run: pip install 'trainbus[report]'")
