"""What runs left of themselves is read as it is: whole, cut off, damaged or old."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training import Callback, ConfigError, Trainer
from training.app.records.run_folder import RunFolder, find_runs, read_run
from training.builtin.run_record import RunRecord
from training.bus.meter import Meter
from training.files.holder import Holder
from training.testing import tiny_trainer


def recorded(folder: Path, *plugins: Any, **options: Any) -> Trainer:
    record = RunRecord({"seed": 1}, {})
    return tiny_trainer(record, *plugins, save_dir=folder, **options)


class Ends(Callback):
    """Stops the run, fails, or saves and is killed, after a step."""

    def __init__(self, how: str, step: int) -> None:
        self.how, self.step = how, step

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step != self.step:
            return
        if self.how == "stops":
            trainer.request_stop("had enough")
        elif self.how == "fails":
            raise RuntimeError("no memory")
        else:
            trainer.request_checkpoint("by hand")

    def on_checkpoint(self, trainer: Trainer, reason: str) -> None:
        if reason == "by hand":
            trainer.save_checkpoint(trainer.save_dir / "half.pt")
            record = trainer.bus.unregister("run_record")  # as a kill would: no word
            record.on_close(trainer)
            raise KeyboardInterrupt


def ended(folder: Path, how: str, step: int = 5) -> RunFolder:
    trainer = recorded(folder, Ends(how, step))
    if how == "stops":
        trainer.train()
    else:
        with pytest.raises((RuntimeError, KeyboardInterrupt)):
            trainer.train()
    return read_run(folder)


def test_a_run_that_came_to_its_end_says_who_ended_it(tmp_path: Path) -> None:
    run = ended(tmp_path, "stops")
    assert (run.state, run.stopped_by, run.why) == ("finished", "Ends", "had enough")
    assert (run.complaints, len(run.starts), run.config) == ([], 1, {"seed": 1})
    assert run.seconds == run.summary["seconds"]


def test_an_epoch_that_max_steps_cut_short_has_a_row_and_is_not_complete(
    tmp_path: Path,
) -> None:
    recorded(tmp_path, max_steps=5).train()
    run = read_run(tmp_path)
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert run.epochs == run.summary["epochs"] == 1


def test_a_run_that_failed_says_of_what(tmp_path: Path) -> None:
    run = ended(tmp_path, "fails")
    assert (run.state, run.stopped_by) == ("failed", "an error")
    assert run.why == "RuntimeError: no memory"


def test_a_run_that_was_killed_is_unfinished_until_it_was_resumed(
    tmp_path: Path,
) -> None:
    run = ended(tmp_path, "is killed")
    assert (run.state, run.stopped_by, run.epochs) == ("unfinished", "", 1)
    resumed = recorded(tmp_path)
    resumed.load_checkpoint(tmp_path / "half.pt")
    resumed.train()
    run = read_run(tmp_path)
    assert (run.state, run.epochs) == ("finished", 2)
    first, second = run.starts
    assert (first["from"], first["steps"], first["ended"]) == (None, 0, None)
    assert (second["from"], second["steps"]) == (str(tmp_path / "half.pt"), 5)
    assert second["ended"]["stop_owner"] == "trainer"


def test_the_epochs_of_a_start_that_was_killed_count_in_the_time_of_all(
    tmp_path: Path,
) -> None:
    run = ended(tmp_path, "is killed")
    (trained,) = [row["seconds"] for row in run.history]
    assert run.seconds == trained
    resumed = recorded(tmp_path)
    resumed.load_checkpoint(tmp_path / "half.pt")
    resumed.train()
    run = read_run(tmp_path)
    assert run.seconds == trained + run.summary["seconds"]


def test_an_epoch_counts_in_the_start_that_ended_it(tmp_path: Path) -> None:
    steps, before = (3, 6, 8), (0, 6, 4)
    said = ({"seconds": 10.0}, None, {"seconds": 30.0})
    rows = [
        {"epoch": number, "step": step, "seconds": 1.0}
        for number, step in enumerate(steps, start=1)
    ]
    starts = [{"steps": n, "ended": end} for n, end in zip(before, said, strict=True)]
    assert RunFolder(tmp_path, history=rows, starts=starts[:2]).seconds == 11.0
    # The third goes back to before what the second has trained, which is lost.
    assert RunFolder(tmp_path, history=rows, starts=starts).seconds == 40.0


def test_a_resumed_run_that_is_killed_is_not_taken_for_its_earlier_end(
    tmp_path: Path,
) -> None:
    ended(tmp_path, "fails")
    (tmp_path / "starts.json").write_text(json.dumps([{}, {"ended": None}]))
    assert read_run(tmp_path).state == "unfinished"


def test_a_run_whose_process_is_at_work_is_running(tmp_path: Path) -> None:
    ended(tmp_path, "fails")
    (tmp_path / "record.lock").write_bytes(Holder.of_now().to_bytes())
    assert read_run(tmp_path).state == "running"
    gone = Holder("here", 2**22 + 1)
    (tmp_path / "record.lock").write_bytes(gone.to_bytes())
    assert read_run(tmp_path).is_running  # of another machine, as far as one can see


def test_a_run_that_ends_while_it_is_read_is_not_taken_for_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended(tmp_path, "fails")
    (tmp_path / "starts.json").write_text(json.dumps([{"ended": None}]))
    lock, real = tmp_path / "record.lock", json.loads
    lock.write_bytes(Holder.of_now().to_bytes())

    def loads(text: str | bytes) -> Any:
        lock.unlink(missing_ok=True)
        return real(text)

    monkeypatch.setattr(json, "loads", loads)
    assert read_run(tmp_path).state == "running"


def test_a_fresh_run_puts_the_starts_of_the_earlier_one_aside(tmp_path: Path) -> None:
    ended(tmp_path, "stops")
    ended(tmp_path, "fails")
    assert [run.state for run in find_runs(tmp_path)] == ["failed", "finished"]
    assert len(read_run(tmp_path).starts) == 1
    assert len(read_run(tmp_path / "earlier" / "001").starts) == 1


def test_what_was_made_of_the_weights_of_an_earlier_run_goes_with_its_record(
    tmp_path: Path,
) -> None:
    made = ("predictions.jsonl", "predictions.json", "report.html")
    others = ("predictions.py", "predictions.jsonl.1f2e3d4c.tmp-7", "index.html")
    page = "<title>demo: report of trainbus</title>"
    for name in (*made, *others):
        (tmp_path / name).write_text(page)
    ended(tmp_path, "is killed")
    assert all((tmp_path / name).exists() for name in made)  # no run was there before
    resumed = recorded(tmp_path)
    resumed.load_checkpoint(tmp_path / "half.pt")
    resumed.train()
    assert all((tmp_path / name).exists() for name in made)  # it is the same run
    recorded(tmp_path).train()
    assert not any((tmp_path / name).exists() for name in made)
    assert all((tmp_path / name).exists() for name in others)  # of somebody, or new
    kept = [(tmp_path / "earlier/001" / name).read_text() for name in made]
    assert kept == [page] * len(made)
    (tmp_path / "report.html").write_text("somebody's own")
    recorded(tmp_path).train()
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize("step", [1, 5], ids=["in the first epoch", "in a later one"])
def test_a_run_resumed_where_another_was_since_puts_its_record_aside(
    tmp_path: Path, step: int
) -> None:
    ended(tmp_path, "is killed", step)
    recorded(tmp_path).train()
    other = (tmp_path / "history.json").read_bytes()
    resumed = recorded(tmp_path)
    resumed.load_checkpoint(tmp_path / "half.pt")
    resumed.train()
    aside = tmp_path / "earlier" / "002"
    assert (aside / "history.json").read_bytes() == other
    assert [each["steps"] for each in read_run(aside).starts] == [0]
    assert [each["steps"] for each in read_run(tmp_path).starts] == [step]


def test_what_plugins_cost_is_recorded_where_it_is_measured(tmp_path: Path) -> None:
    trainer = recorded(tmp_path)
    trainer.bus.meter = Meter()
    trainer.train()
    costs = read_run(tmp_path).summary["costs"]
    assert {"plugin", "hook", "calls", "seconds", "syncs"} == set(costs[0])
    assert "run_record" in {each["plugin"] for each in costs}


ROW = {"epoch": 1, "train_loss": 0.5, "seconds": 2.0}


@pytest.mark.parametrize(
    ("files", "state", "complaint"),
    [
        pytest.param(
            {"history.json": [ROW]}, "unfinished", "config.yaml is missing", id="old"
        ),
        pytest.param(
            {
                "summary.json": {"status": "finished", "epochs": 1},
                "history.json": [ROW],
            },
            "finished",
            "config.yaml is missing",
            id="without starts",
        ),
        pytest.param(
            {
                "summary.json": {"status": "failed: KeyboardInterrupt: interrupted"},
                "history.json": [ROW],
            },
            "interrupted",
            "config.yaml is missing",
            id="a signal, as it was written once",
        ),
        pytest.param(
            {
                "summary.json": "{",
                "history.json": [ROW],
                "starts.json": [{"ended": {"status": "finished", "epochs": 1}}],
            },
            "finished",
            "summary.json cannot be read: Expecting property",
            id="torn, but its start has ended",
        ),
        pytest.param(
            {"summary.json": "{", "history.json": [ROW]},
            "unfinished",
            "summary.json cannot be read: Expecting property",
            id="torn",
        ),
        pytest.param(
            {"summary.json": [1], "history.json": [ROW]},
            "unfinished",
            "summary.json holds a list, no dict",
            id="another kind",
        ),
        pytest.param(
            {"history.json": [ROW, 3]},
            "unfinished",
            "history.json: 1 entry not read as rows",
            id="no rows",
        ),
        pytest.param(
            {"history.json": [ROW], "config.yaml": "a: [b"},
            "unfinished",
            "config.yaml cannot be read: config.yaml:1",
            id="no configuration",
        ),
        pytest.param(
            {"history.json": [ROW], "starts.json": "\udcff"},
            "unfinished",
            "starts.json cannot be read: 'utf-8' codec",
            id="no text",
        ),
        pytest.param(
            {
                "history.json": [ROW],
                "summary.json": {"best": 3, "epochs": "x", "seconds": [], "status": 0},
            },
            "unfinished",
            "config.yaml is missing",
            id="odd values",
        ),
        pytest.param(
            {
                "history.json": [{**ROW, "loss": 10**400, "val_loss": -(10**400)}],
                "summary.json": {
                    "best": [{"monitor": "loss", "value": 10**400}],
                    "seconds": 10**400,
                },
            },
            "unfinished",
            "config.yaml is missing",
            id="numbers beyond all that are written in decimals",
        ),
    ],
)
def test_what_cannot_be_read_is_said_and_the_rest_is_read(
    tmp_path: Path, files: dict[str, Any], state: str, complaint: str
) -> None:
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    run = read_run(tmp_path)
    assert (run.state, run.epochs, run.seconds, run.best) == (state, 1, 2.0, [])
    assert complaint in " ".join(run.complaints)


@pytest.mark.parametrize(
    ("values", "is_high"), [([0.1, 0.4, 0.3], True), ([3.0, 1.0, 2.0], False)]
)
def test_whether_more_is_better_is_told_by_the_history(
    values: list[float], is_high: bool
) -> None:
    best = max(values) if is_high else min(values)
    run = RunFolder(
        Path(),
        history=[{"score": value} for value in values],
        summary={"best": [{"monitor": "score", "value": best, "row": {"epoch": 2}}]},
    )
    assert (run.best[0].is_high, run.best[0].epoch) == (is_high, 2)


@pytest.mark.parametrize(
    ("plugins", "values", "is_high"),
    [
        pytest.param([{"x": {"monitor": "s", "mode": "min"}}], [3.0], False, id="min"),
        pytest.param([{"x": {"monitor": "s", "mode": "max"}}], [3.0], True, id="max"),
        pytest.param([{"x": {"monitor": "s", "mode": "max"}}], [], True, id="no row"),
        pytest.param(["x"], [3.0, 3.0], False, id="nobody and nothing says so"),
        pytest.param([{"x": {"monitor": "s"}}], [3.0, 1.0], True, id="no mode"),
        pytest.param(
            [{"x": {"monitor": "t", "mode": "min"}}], [3.0, 1.0], True, id="of another"
        ),
    ],
)
def test_whether_more_is_better_is_told_by_who_watches_before_the_history(
    plugins: list[Any], values: list[float], is_high: bool
) -> None:
    run = RunFolder(
        Path(),
        config={"plugins": plugins},
        history=[{"s": value} for value in values],
        summary={"best": [{"monitor": "s", "value": 3.0}]},
    )
    assert run.best[0].is_high is is_high


def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: b")
    with pytest.raises(ConfigError, match=r"holds no record of a run"):
        read_run(tmp_path)
    with pytest.raises(ConfigError, match="is no folder"):
        read_run(tmp_path / "gone")
    with pytest.raises(ConfigError, match="is no folder"):
        list(find_runs(tmp_path / "gone"))
    assert list(find_runs(tmp_path)) == []


@pytest.mark.parametrize(
    ("watched", "best", "epoch"),
    [
        pytest.param(
            {"monitor": "accuracy", "mode": "max"}, 0.8, 2, id="more is better"
        ),
        pytest.param({"monitor": "val_loss"}, 0.3, 3, id="nothing is said"),
        pytest.param({"monitor": "wer"}, 0.1, 1, id="nor of another than a loss"),
    ],
)
def test_the_best_of_a_run_that_has_not_ended_is_that_of_its_history(
    tmp_path: Path, watched: dict[str, str], best: float, epoch: int
) -> None:
    rows = [
        {"epoch": 1, "accuracy": 0.5, "val_loss": 0.9, "wer": 0.1},
        {"epoch": 2, "accuracy": 0.8, "val_loss": 0.4, "wer": 0.2},
        {"epoch": 3, "accuracy": 0.7, "val_loss": 0.3, "wer": 0.3},
    ]
    (tmp_path / "history.json").write_text(json.dumps(rows))
    config = {"plugins": ["csv", {"checkpointing": watched}]}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    (found,) = read_run(tmp_path).best
    assert (found.value, found.epoch) == (best, epoch)
