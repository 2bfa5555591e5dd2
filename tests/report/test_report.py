"""``trainbus report``: what the page says, and that nothing on it is obeyed."""

from __future__ import annotations

import json
import os
import re
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from report.pages import page_of

pytest.importorskip("jinja2", reason="`trainbus report` needs trainbus[report]")
pytest.importorskip("matplotlib", reason="`trainbus report` needs trainbus[report]")


def test_the_page_says_who_stopped_the_run_and_why(write_run: Any) -> None:
    ended = page_of(write_run()).parts["How it ended"]
    assert "stopped by early_stopping why no better for 2 epochs" in ended
    assert "3 epochs, 12 steps" in ended
    assert "best accuracy 0.7500 in epoch 3" in ended
    assert "rows 4 train plan 3 epochs at 0.1" in ended


@pytest.mark.parametrize(
    ("data", "command"),
    [
        ({"validation": "rows.csv"}, "evaluate DEMO/config.yaml --checkpoint"),
        ({"synthetic": {"seed": 0}}, "evaluate DEMO/config.yaml --checkpoint"),
        ({"test": "rows.csv"}, "--checkpoint CHECKPOINT --split test --predictions"),
        ({"train": "rows.csv", "validation": None}, ""),
        (None, ""),
    ],
)
def test_the_way_to_predictions_is_told_where_rows_are_known(
    write_run: Any, data: dict[str, Any] | None, command: str
) -> None:
    run = write_run(config={"data": data})
    (run / "predictions.jsonl").unlink(missing_ok=True)
    words = " ".join(page_of(run).parts.values()).replace(str(run), "DEMO")
    assert ("trainbus evaluate" in words) == bool(command)
    assert command in words


def test_the_way_to_predictions_can_be_typed_whatever_the_folder_is_called(
    write_run: Any,
) -> None:
    run = write_run("my run's")
    (run / "predictions.jsonl").unlink()
    (words,) = (part for part in page_of(run).parts.values() if "evaluate" in part)
    typed = shlex.split(words[words.index("trainbus evaluate") :])
    assert typed[2] == str(run / "config.yaml")
    assert typed[-1] == str(run / "predictions.jsonl")


def test_costs_starts_and_settings_are_there(write_run: Any) -> None:
    parts = page_of(write_run()).parts
    assert "csv 0.500 6.2 % 3 on_epoch_end" in parts["What plugins cost"]
    starts = parts["Starts and resumes"]
    assert "2026-01-01 01:02:03 nothing: a fresh start" in starts
    assert "said nothing: killed, or the machine went down" in starts
    assert "2026-01-02 01:02:03 half.pt" in starts
    assert "training.optimizer.lr 0.1" in parts["Settings"]


def test_rows_that_it_is_sure_and_wrong_about_come_with_their_pictures(
    write_run: Any,
) -> None:
    page = page_of(write_run())
    said = page.parts["Predictions"]
    assert "4 rows of" in said
    assert "accuracy 0.2500" in said
    rows = said.partition("Sure, and wrong")[2]
    assert re.findall(r"true (\w+)", rows) == ["green", "blue", "white"]
    pictures = [each for tag, each in page.tags if tag == "img"]
    assert [each["alt"] for each in pictures] == ["green.png", "blue.png", "white.png"]
    assert all(each["src"].startswith("data:image/png") for each in pictures)
    # Each of the four is taken for red.
    table = said.partition("what was predicted.")[2].partition("Sure,")[0]
    assert table.split()[5:] == ["blue", "1", "green", "1", "red", "1", "white", "1"]


def test_of_many_runs_the_first_are_named_where_all_have_something_in_common(
    write_run: Any, tmp_path: Path
) -> None:
    runs = [write_run(f"n{index:02d}", costs=None) for index in range(12)]
    for run in runs:
        (run / "predictions.jsonl").unlink()
        (run / "starts.json").unlink()
    page = page_of(*runs, options=("--out", str(tmp_path / "all.html")))
    first = "n00, n01, n02, n03, n04 and 7 more"
    assert first in page.parts[""]
    cost, starts = page.parts["What plugins cost"], page.parts["Starts and resumes"]
    for words, told in ((cost, "not measured"), (starts, "not recorded")):
        assert f"{first}: {told}" in words.replace(" ,", ",")
        assert words.count(told) == 1
    words = " ".join(page.parts.values())
    assert words.count("trainbus evaluate") == 5
    assert "And so for 7 more runs." in words
    drawn = {
        found[0]
        for tag, attributes in page.tags
        if tag == "path" and "fill: none" in str(style := attributes.get("style"))
        if (found := re.findall(r"stroke: (#\w+); stroke-width: 1.6", str(style)))
    }
    assert len(drawn) == len(runs)


HOSTILE = (
    "</title><script>alert(1)</script><img src=http://a.b onerror=x>'\"&{{7*7}}$\\"
)


def test_nothing_that_a_record_says_is_obeyed(write_run: Any, tmp_path: Path) -> None:
    row = {"epoch": 1, HOSTILE: 0.5, f"accuracy/{HOSTILE}": 0.5, "accuracy": 0.5}
    run = write_run(
        HOSTILE.replace("/", "-"),
        said=HOSTILE,
        config={HOSTILE: HOSTILE, "seed": 0},
        history=[row],
        stop_reason=HOSTILE,
        stop_owner=HOSTILE,
        device_name=HOSTILE,
        best=[{"monitor": HOSTILE, "value": 0.5}],
        data={"rows": {HOSTILE: HOSTILE}, "floors": {HOSTILE: {HOSTILE: HOSTILE}}},
        costs=[{"plugin": HOSTILE, "hook": HOSTILE, "calls": 1, "seconds": 1.0}],
    )
    starts = [{"time": HOSTILE, "from": HOSTILE, "steps": HOSTILE, "ended": {"x": 1}}]
    (run / "starts.json").write_text(json.dumps(starts))
    page = page_of(run)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "object", "link", "base", "form"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        if tag == "img":
            assert str(attributes["src"]).startswith("data:")
    words = " ".join(page.parts.values())
    assert words.count("<script>alert(1)") > 8
    assert "{{7*7}}" in words


STEERS = "a\x1b[31m\u202eb"


def test_what_would_steer_a_terminal_or_turn_a_line_is_spelt_out(
    write_run: Any,
) -> None:
    joined = "\U0001f468\u200d\U0001f469"  # a pictogram of two
    page = page_of(
        write_run(
            STEERS,
            said=f"{STEERS}\n{joined}",
            config={"of": STEERS},
            history=[{"epoch": 1, STEERS: 0.5}],
            stop_reason=STEERS,
        ),
        write_run("other"),
        options=("--out", "page.html"),
    )
    words = " ".join(page.parts.values())
    assert not set("\x1b\u202e") & set(words)
    assert words.count("a\\x1b[31m\\u202eb") > 8
    assert joined in words
    assert "a\\x1b[31m\\u202eb, other: report of trainbus" in words


@pytest.mark.parametrize("name", ["seconds", "accuracy"])
def test_a_number_beyond_all_decimals_costs_no_page(write_run: Any, name: str) -> None:
    huge = 10**400
    run = write_run(history=[{"epoch": 1, name: huge, "val_loss": 0.5}], seconds=huge)
    row = {"image": "red.png", "question": "?", "answer": "red", "prediction": "b"}
    row |= {"accuracy": huge, "mean_log_probability": huge}
    (run / "predictions.jsonl").write_text(json.dumps(row) + "\n")
    assert "val_loss" in " ".join(page_of(run).parts.values())


def test_the_page_loads_nothing_from_anywhere(write_run: Any) -> None:
    page = page_of(write_run())
    policies = [a for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert str(policies[0]["content"]).startswith("default-src 'none'")
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                assert str(value).startswith(("data:", "#")), (tag, name, value)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(
            lambda run: (run / "predictions.jsonl").write_text("{}"),
            "is no row with a prediction",
            id="predictions",
        ),
        pytest.param(
            lambda run: (run / "summary.json").write_text("{"),
            "summary.json cannot be read",
            id="summary",
        ),
        pytest.param(
            lambda run: (run.parents[1] / "rows/all.jsonl").unlink(),
            "pictures are not shown",
            id="rows",
        ),
        pytest.param(
            lambda run: (run / "config.yaml").unlink(),
            "config.yaml is missing",
            id="configuration",
        ),
    ],
)
def test_what_is_missing_is_said_on_the_page_and_beside_it(
    write_run: Any,
    damage: Any,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = write_run()
    damage(run)
    page = page_of(run)
    assert words in page.parts["How it ended"]
    assert words in capsys.readouterr().out


def test_predictions_of_before_the_last_start_are_not_shown_unless_named(
    write_run: Any, tmp_path: Path
) -> None:
    run = write_run()
    rows = run / "predictions.jsonl"
    start = datetime.fromisoformat("2026-01-02T01:02:03+00:00").timestamp()
    os.utime(rows, (start, start))
    assert "Predictions" in page_of(run).parts
    os.utime(rows, (start - 1, start - 1))
    parts = page_of(run).parts
    assert "Predictions" not in parts
    words = "predictions.jsonl is older than the last start (2026-01-02 01:02:03)"
    assert words in parts["How it ended"]
    options = ("--out", str(tmp_path / "new.html"), "--predictions", str(rows))
    assert "Predictions" in page_of(run, options=options).parts


def test_an_unfinished_run_of_an_early_release_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text("[]")
    parts = page_of(tmp_path).parts
    assert "No epoch is recorded yet." in parts["Curves"]
    assert "not recorded" in parts["Starts and resumes"]
    assert "--profile-plugins" in parts["What plugins cost"]


def test_rows_of_another_task_are_told_and_none_is_called_right_or_wrong(
    write_run: Any, tmp_path: Path
) -> None:
    row = {"image": "red.png", "label": "red", "prediction": "blue", "accuracy": 0.0}
    rows = tmp_path / "other.jsonl"
    rows.write_text(json.dumps(row))
    options = ("--out", str(tmp_path / "new.html"), "--predictions", str(rows))
    parts = page_of(write_run(), options=options).parts
    words = "other.jsonl' has 'answer', which the task of the run predicts: they"
    assert words in parts["How it ended"]
    assert parts["Predictions"] == f"Predictions 1 row of {rows}"
