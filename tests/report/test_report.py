"""``trainbus report``: what the page says, and that nothing on it is obeyed."""

from __future__ import annotations

import json
import os
import re
import shlex
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from training.app.cli import main

pytest.importorskip("jinja2", reason="`trainbus report` needs trainbus[report]")
pytest.importorskip("matplotlib", reason="`trainbus report` needs trainbus[report]")


class Page(HTMLParser):
    """The words of a page by the heading above them, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.parts: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._heading = ""
        self._in_heading = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "h2":
            self._heading, self._in_heading = "", True

    def handle_endtag(self, tag: str) -> None:
        self._in_heading = self._in_heading and tag != "h2"

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self._heading += data
        words = self.parts.get(self._heading, "")
        self.parts[self._heading] = " ".join(f"{words} {data}".split())


def page_of(*runs: Path, options: tuple[str, ...] = ()) -> Page:
    assert main(["report", *map(str, runs), *options]) == 0
    target = Path(options[1]) if options else runs[0] / "report.html"
    return Page(target.read_text(encoding="utf-8"))


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


def test_kinds_stand_beside_their_floors(write_run: Any) -> None:
    kinds = page_of(write_run()).parts["By kind, beside what answers without looking"]
    assert "accuracy 0.7500 0.1250" in kinds
    assert "accuracy/other 0.7500 0.0625" in kinds


def test_a_floor_stands_beside_a_metric_of_its_unit_only(write_run: Any) -> None:
    row = {"epoch": 1, "anls": 0.5, "anls/other": 0.25}
    page = page_of(write_run(history=[row], best=[]))
    kinds = page.parts["By kind, beside what answers without looking"]
    assert "0.2500" in kinds
    assert "0.0625" not in kinds


def test_a_floor_that_is_not_that_of_all_runs_names_its_own(
    write_run: Any, tmp_path: Path
) -> None:
    other = {"floors": {"most_frequent": {"all": 0.375}}}
    runs = [write_run("a"), write_run("b"), write_run("c", data=other)]
    same, differing = (
        page_of(*some, options=("--out", str(tmp_path / f"{len(some)}.html"))).parts[
            "By kind, beside what answers without looking"
        ]
        for some in (runs[:2], runs)
    )
    assert "metric a b most frequent accuracy 0.7500 0.7500 0.1250" in same
    assert "a b c most frequent of a, b most frequent of c accuracy" in differing
    assert "accuracy 0.7500 0.7500 0.7500 0.1250 0.3750 accuracy/other" in differing


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


def test_several_runs_share_charts_and_show_settings_that_differ(
    write_run: Any, tmp_path: Path
) -> None:
    other = {"training": {"num_epochs": 3, "optimizer": {"lr": 0.2}}}
    runs = write_run("a"), write_run("b", config=other)
    page = page_of(*runs, options=("--out", str(tmp_path / "both.html")))
    assert "training.optimizer.lr 0.1 0.2" in page.parts["Settings that differ"]
    assert "num_epochs" not in page.parts["Settings that differ"]
    assert sum(tag == "svg" for tag, _ in page.tags) == 3  # loss, accuracy, rate
    styles = [str(a.get("style")) for tag, a in page.tags if tag == "path"]
    for colour in ("#0072b2", "#d55e00"):
        curves = [style for style in styles if "fill: none" in style]
        drawn = [style for style in curves if f"stroke: {colour}" in style]
        assert len(drawn) == 2 + 1 + 1  # two losses, the second dashed
        assert sum("stroke-dasharray" in style for style in drawn) == 1


def test_what_is_measured_in_training_and_validation_shares_a_chart(
    write_run: Any,
) -> None:
    row = {"epoch": 1, "lr": 0.1, "train_loss": 2.0, "val_loss": 3.0}
    row |= {"train_acc": 0.5, "val_acc": 0.25, "val_acc/noisy": 0.125, "val_only": 1.0}
    row |= {"accuracy": 0.5, "train_accuracy": 0.25, "val_accuracy": 0.5}
    page = page_of(write_run(history=[row, {**row, "epoch": 2}]))
    words = page.parts["Curves"]
    names = r"loss|\w*acc\b|\w*accuracy|val_only|learning rate"
    assert re.findall(names, words) == [
        *("loss", "acc", "val_only", "accuracy", "train_accuracy", "val_accuracy"),
        "learning rate",
    ]
    styles = [str(a.get("style")) for tag, a in page.tags if tag == "path"]
    drawn = [style for style in styles if "fill: none" in style and "#0072b2" in style]
    assert len(drawn) == 2 + 2 + 1 + 3 + 1  # that of a kind is in a table
    assert sum("stroke-dasharray" in style for style in drawn) == 3  # of training


def test_several_validation_loaders_have_their_results_and_charts(
    write_run: Any,
) -> None:
    row = {"epoch": 1, "train_loss": 2.0, "val_loss/clean": 0.125, "accuracy": 0.5}
    row |= {"val_loss/noisy": 3.0, "f1/clean": 0.75, "f1/noisy": 0.25}
    row |= {"f1/red/clean": 0.625, "accuracy/red": 0.375}
    best = [{"monitor": "val_loss/clean", "value": 0.0625}]
    parts = page_of(write_run(history=[row], best=best)).parts
    assert re.findall(
        r"(?:\w+_)?loss[/\w]*|f1[/\w]*|accuracy[/\w]*", parts["Curves"]
    ) == [
        *("loss", "val_loss/clean", "accuracy", "val_loss/noisy", "f1/clean"),
        "f1/noisy",
    ]
    table = parts["Results of the last epoch, and the best"]
    for cell in ("val_loss/clean 0.1250", "val_loss/noisy 3.0000", "f1/noisy 0.2500"):
        assert cell in table
    assert "best val_loss/clean 0.0625" in table
    assert "red" not in table
    kinds = parts["By kind, beside what answers without looking"]
    assert "noisy" not in kinds  # of which no kind is measured
    assert "f1/red/clean 0.6250" in kinds


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
    assert parts["Predictions"] == f"Predictions 1 rows of {rows}"
