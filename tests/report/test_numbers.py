"""``trainbus report``: which numbers have a chart, and which table the others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from report.pages import Page, page_of

pytest.importorskip("jinja2", reason="`trainbus report` needs trainbus[report]")
pytest.importorskip("matplotlib", reason="`trainbus report` needs trainbus[report]")

KINDS = "By kind, beside what answers without looking"


def test_kinds_stand_beside_their_floors(write_run: Any) -> None:
    kinds = page_of(write_run()).parts[KINDS]
    assert "accuracy 0.7500 0.1250" in kinds
    assert "accuracy/other 0.7500 0.0625" in kinds


def test_a_floor_stands_beside_a_metric_of_its_unit_only(write_run: Any) -> None:
    row = {"epoch": 1, "anls": 0.5, "anls/other": 0.25}
    page = page_of(write_run(history=[row], best=[]))
    kinds = page.parts[KINDS]
    assert "0.2500" in kinds
    assert "0.0625" not in kinds


def test_a_floor_that_is_not_that_of_all_runs_names_its_own(
    write_run: Any, tmp_path: Path
) -> None:
    other = {"floors": {"most_frequent": {"all": 0.375}}}
    runs = [write_run("a"), write_run("b"), write_run("c", data=other)]
    same, differing = (
        page_of(*some, options=("--out", str(tmp_path / f"{len(some)}.html"))).parts[
            KINDS
        ]
        for some in (runs[:2], runs)
    )
    assert "metric a b most frequent accuracy 0.7500 0.7500 0.1250" in same
    assert "a b c most frequent of a, b most frequent of c accuracy" in differing
    assert "accuracy 0.7500 0.7500 0.7500 0.1250 0.3750 accuracy/other" in differing


def test_floors_with_more_scores_than_a_table_has_room_for_are_named_below_it(
    write_run: Any, tmp_path: Path
) -> None:
    def kinds(number: int) -> str:
        runs = []
        for n in range(number):
            floors = {"own_rows": {"all": n / 8}, "of_all": {"all": 0.0625}}
            runs.append(write_run(f"{number}-{n}", data={"floors": floors}))
        out = ("--out", str(tmp_path / f"{number}.html"))
        return page_of(*runs, options=out).parts[KINDS]

    few, many = kinds(5), kinds(6)
    assert few.count("own rows of") == 5
    assert "Not shown" not in few
    assert "own rows of" not in many
    assert "6-5 of all accuracy" in many
    assert many.endswith(
        "Not shown: own rows, with more than 5 different scores; a report of fewer "
        "runs has them."
    )


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
    row |= {"train_acc": 0.5, "val_acc": 0.25, "val_only": 1.0, "accuracy/red": 0.5}
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


def charted(page: Page) -> list[str]:
    """Return the names of the losses and metrics that have a chart."""
    return re.findall(r"(?:\w+_)?(?:loss|f1|accuracy)[/\w]*", page.parts["Curves"])


@pytest.mark.parametrize("loader", ["", "/clean"])
def test_parts_of_a_loss_have_charts_whatever_they_are_called(
    write_run: Any, loader: str
) -> None:
    row = {"epoch": 1, "train_loss": 3.0, "train_loss/ce": 2.0, "train_f1/l1": 1.0}
    row |= {f"val_loss{loader}": 3.0, f"val_loss/ce{loader}": 2.0}
    page = page_of(write_run(history=[row], best=[]))
    alone = ["val_loss/clean", "val_loss/ce/clean"] if loader else []
    parts = ["train_loss/ce" if loader else "loss/ce", "train_f1/l1"]
    assert charted(page) == ["loss", *parts, *alone]
    assert KINDS not in page.parts
    table = page.parts["Results of the last epoch, and the best"]
    assert f"val_loss/ce{loader} 2.0000" in table


def test_kinds_without_a_number_of_all_rows_have_a_table_and_no_charts(
    write_run: Any,
) -> None:
    row = {"epoch": 1, "val_loss": 2.0, "f1/a": 0.5, "f1/b/c": 0.25}
    page = page_of(write_run(history=[row], best=[]))
    assert charted(page) == ["loss"]
    assert "f1/a 0.5000 f1/b/c 0.2500" in page.parts[KINDS]
    assert "f1" not in page.parts["Results of the last epoch, and the best"]


def test_several_validation_loaders_have_their_results_and_charts(
    write_run: Any,
) -> None:
    row = {"epoch": 1, "train_loss": 2.0, "val_loss/clean": 0.125, "accuracy": 0.5}
    row |= {"val_loss/noisy": 3.0, "f1/clean": 0.75, "f1/noisy": 0.25}
    row |= {"f1/red/clean": 0.625, "accuracy/red": 0.375}
    row |= {"val_loss/two/parts": 1.0, "f1/two/parts": 0.5}
    best = [{"monitor": "val_loss/clean", "value": 0.0625}]
    page = page_of(write_run(history=[row], best=best))
    assert charted(page) == [
        *("loss", "val_loss/clean", "accuracy", "val_loss/noisy", "f1/clean"),
        *("f1/noisy", "val_loss/two/parts", "f1/two/parts"),
    ]
    table = page.parts["Results of the last epoch, and the best"]
    for cell in ("val_loss/clean 0.1250", "val_loss/noisy 3.0000", "f1/noisy 0.2500"):
        assert cell in table
    assert "f1/clean 0.7500" in table  # beside its kinds, too
    assert "best val_loss/clean 0.0625" in table
    assert "red" not in table
    kinds = page.parts[KINDS]
    assert "noisy" not in kinds  # of which no kind is measured
    assert "f1/clean 0.7500" in kinds
    assert "f1/red/clean 0.6250" in kinds
