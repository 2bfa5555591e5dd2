"""``trainbus runs``: a list of runs, and what sets two of them apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from toy import Regression, regression_batches

from training import Trainer
from training.app.cli import main
from training.app.cli.record_arguments import SORTED_BY
from training.app.cli.runs import SORTS
from training.app.records.comparing import flat
from training.app.records.durations import duration

STATE = {"status": "finished", "stop_owner": "early_stopping", "stop_reason": "enough"}


def write(folder: Path, name: str, best: float, epochs: int, **config: Any) -> None:
    run = folder / name
    run.mkdir(parents=True)
    row = {"epoch": epochs, "accuracy": best, "train_loss": 1 / epochs}
    watched = {"monitor": "accuracy", "value": best, "row": row}
    summary = {**STATE, "epochs": epochs, "seconds": 61.0 * epochs, "best": [watched]}
    (run / "summary.json").write_text(json.dumps(summary))
    history = [{**row, "epoch": 1, "accuracy": 0.1}, row]
    (run / "history.json").write_text(json.dumps(history))
    (run / "config.yaml").write_text(json.dumps({"seed": 0, **config}))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "runs/b", 0.9, 2, training={"lr": 0.1}, plugins=["csv"])
    plugins = ["csv", {"ema": {"decay": 0.9}}]
    write(tmp_path, "runs/a", 0.5, 3, training={"lr": 0.2}, plugins=plugins)
    (tmp_path / "runs" / "c").mkdir()
    (tmp_path / "runs" / "c" / "history.json").write_text("[")
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(["runs", *argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_runs_are_listed_with_what_became_of_them(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = told(capsys)
    assert code == 0
    assert out.split("\n")[0].split("  ")[0] == "run"
    assert [line.split()[:2] for line in out.split("\n")[1:4]] == [
        ["runs/a", "finished"],
        ["runs/b", "finished"],
        ["runs/c", "unfinished"],
    ]
    assert "accuracy 0.9000" in out
    assert "3 min 3 s" in out
    assert "note: runs/c: history.json cannot be read: Expecting value" in out


@pytest.mark.parametrize(
    ("best", "shown"),
    [
        (0.0, "0.0000"),
        (4.4e-6, "4.4e-06"),
        (1e308, "1e+308"),
        (1234.5, "1234.5000"),
        (23456.12, "23456.1200"),
        (0.00123, "0.00123"),
        (3, "3"),
    ],
)
def test_a_best_value_is_told_however_small_or_large(
    best: float,
    shown: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "runs/a", best, 2)
    assert f" accuracy {shown} " in told(capsys)[1]
    _, out, _ = told(capsys, "diff", "runs/a", "runs/a")
    assert ["accuracy", shown, shown] in [line.split() for line in out.split("\n")]


@pytest.mark.parametrize(
    ("by", "order"),
    [("name", "abc"), ("best", "bac"), ("epochs", "abc"), ("state", "abc")],
)
def test_runs_are_sorted(
    place: Path, by: str, order: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = told(capsys, "runs", "--sort", by, "--json")
    assert "".join(Path(run["run"]).name for run in json.loads(out)) == order


def test_json_says_the_same_and_more(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = told(capsys, "runs/b", "--json")
    (run,) = json.loads(out)
    assert run == {
        "run": "runs/b",
        "state": "finished",
        "best": [{"metric": "accuracy", "value": 0.9, "epoch": 2}],
        "epochs": 2,
        "seconds": 122.0,
        "stopped_by": "early_stopping",
        "why": "enough",
        "starts": None,
        "config": {"seed": 0, "training": {"lr": 0.1}, "plugins": ["csv"]},
        "complaints": [],
    }


def test_settings_in_which_the_listed_runs_differ_are_columns(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head, a, b, c, *_ = told(capsys, "--settings")[1].split("\n")
    assert head.split("stopped by")[1].split() == ["training.lr", "plugins.ema.decay"]
    assert a.split()[-2:] == ["0.2", "0.9"]
    assert b.split()[-2:] == ["0.1", "-"]
    assert c.split()[-2:] == ["?", "?"]
    assert "training.lr" not in told(capsys)[1]


def test_a_long_setting_in_a_list_is_cut_in_its_middle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        data = {"train": f"/data/{'deep/' * 20}{name}.jsonl"}
        write(tmp_path, name, 0.9, 2, data=data)
    _, *lines = told(capsys, str(tmp_path), "--settings")[1].splitlines()
    ends = [line.split()[-1] for line in lines]
    assert [end[-7:] for end in ends] == ["a.jsonl", "b.jsonl"]
    assert all(len(end) < 40 and "..." in end for end in ends)
    found = json.loads(told(capsys, str(tmp_path), "--json")[1])
    assert all(len(run["config"]["data"]["train"]) > 100 for run in found)


def test_long_settings_that_differ_in_their_middle_alone_are_not_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [f"/data/{'deep/' * 9}{name}/{'deep/' * 9}a.jsonl" for name in "ab"]
    for name, path in zip("ab", paths, strict=True):
        write(tmp_path, name, 0.9, 2, data={"train": path})
    _, *lines = told(capsys, str(tmp_path), "--settings")[1].splitlines()
    assert [line.split()[-1] for line in lines] == paths


def test_a_configuration_of_nothing_has_no_settings() -> None:
    assert list(flat({})) == []
    assert dict(flat({"data": {}})) == {"data": "{}"}


def test_what_a_trainer_cannot_see_is_compared_as_its_metadata(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv(
        "TRAINBUS_DEFAULTS"
    )  # a trainer keeps a record unless it is told not to
    for name, dropout in (("a", 0.0), ("b", 0.5)):
        model = Regression(dropout)
        Trainer(
            model,
            regression_batches(),
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            save_dir=tmp_path / name,
            metadata={"dropout": dropout},
        ).train()
    capsys.readouterr()
    head, *lines = told(capsys, str(tmp_path), "--settings")[1].splitlines()
    assert head.split()[-1] == "metadata.dropout"
    assert "save_dir" not in head  # which the first column says
    assert [line.split()[-1] for line in lines] == ["0.0", "0.5"]
    found = json.loads(told(capsys, str(tmp_path), "--json")[1])
    assert [run["config"]["metadata"]["dropout"] for run in found] == [0.0, 0.5]
    _, out, _ = told(capsys, "diff", str(tmp_path / "a"), str(tmp_path / "b"))
    assert ["metadata.dropout", "0.0", "0.5"] in [x.split() for x in out.split("\n")]


def test_none_in_the_metadata_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRAINBUS_DEFAULTS")
    model = Regression()
    metadata = {"limit": None, "cuts": [None, 1], "sizes": {"deep": None}}
    Trainer(
        model,
        regression_batches(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        save_dir=tmp_path,
        metadata=metadata,
    ).train()
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["metadata"] == metadata
    assert "max_grad_norm" not in config["training"]


def test_a_setting_that_json_cannot_say_is_told_all_the_same(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "{since: 2026-01-02, rate: .nan}"
    (place / "runs/b/config.yaml").write_text(text)
    (run,) = json.loads(told(capsys, "runs/b", "--json")[1])
    assert run["config"] == {"since": "2026-01-02", "rate": None}


def test_two_runs_are_compared_by_settings_that_differ_and_by_results(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = told(capsys, "diff", "runs/a", "runs/b")
    assert code == 0
    settings, results = out.split("\n\n")
    assert [line.split() for line in settings.split("\n")] == [
        ["setting", "runs/a", "runs/b"],
        ["training.lr", "0.2", "0.1"],
        ["plugins.ema.decay", "0.9", "-"],
    ]
    lines = [line.split() for line in results.split("\n")]
    assert ["accuracy", "0.5000", "0.9000"] in lines
    assert ["stopped", "by", "early_stopping", "early_stopping"] in lines
    _, out, _ = told(capsys, "diff", "runs/a", "runs/b", "--json")
    assert json.loads(out)["settings"]["training.lr"] == ["0.2", "0.1"]


def test_runs_of_the_same_settings_are_said_to_be_such(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = told(capsys, "diff", "runs/a", "runs/a")
    assert out.startswith("the settings are the same\n")


def test_settings_that_cannot_be_read_are_said_to_be_unknown(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "runs/b/config.yaml").write_text("{")
    code, out, _ = told(capsys, "diff", "runs/a", "runs/b")
    assert code == 0
    assert out.startswith(
        "the settings are not compared: those of runs/b are not known\n"
    )
    assert "training.lr" not in out
    _, out, _ = told(capsys, "diff", "runs/a", "runs/b", "--json")
    assert json.loads(out)["settings"] is None


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("dif", "runs/a", "runs/b"), "not 3 (did you mean 'diff'?); to compare two"),
        (("diff", "runs/a"), "compares two runs, not 1; name two folders"),
        (("runs/a", "runs/b"), "lists one folder, not 2; to compare two runs"),
        (("diff", "runs/a", "runs"), "'runs' holds no record of a run"),
        (("gone",), "'gone' is no folder"),
        (("diff", "runs/a", "runs/b", "--sort", "best"), "--sort is of no use"),
        (("diff", "runs/a", "runs/b", "--settings"), "--settings is of no use"),
    ],
)
def test_what_cannot_be_done_is_said(
    place: Path,
    argv: tuple[str, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = told(capsys, *argv)
    assert code == 2
    assert words in err


def test_no_run_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, str(tmp_path)) == (
        0,
        f"{tmp_path}: no run was recorded here\n",
        "",
    )


def test_words_of_a_record_do_not_steer_the_terminal(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = json.dumps({**STATE, "stop_owner": "\x1b[31mred"})
    (place / "runs/c/summary.json").write_text(text)
    _, out, _ = told(capsys, "runs/c")
    assert "\\x1b[31mred" in out
    assert "\x1b" not in out


def test_each_way_to_sort_is_offered() -> None:
    assert tuple(SORTS) == SORTED_BY


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (12.34, "12.3 s"), (200.9, "3 min 20 s"), (7505.0, "2 h 5 min")],
)
def test_a_duration_is_told_in_its_largest_units(
    seconds: float | None, text: str
) -> None:
    assert duration(seconds) == text
