"""Two plugins that keep checkpoints, each in a folder of its own."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from trainbus_checkpointing import FilenameTemplate, ModelCheckpointCallback
from trainbus_checkpointing.manifest import Manifest
from trainbus_checkpointing.relisting import left_unlisted
from trainbus_checkpointing.retention import Entry
from training import Callback, Trainer
from training.plugin import MetricValue

from .listed import files


def trainer(folder: Path, num_epochs: int) -> Trainer:
    """Return one with two keepers, whose model gets worse by the epoch."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    x = torch.ones(2, 1)
    kept = {"monitor": "train_loss", "save_last": False}
    return Trainer(
        model,
        [(x, x)] * 2,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, maximize=True),
        loss_fn=nn.functional.mse_loss,
        num_epochs=num_epochs,
        plugins=[
            ("best", ModelCheckpointCallback(save_dir=folder / "best", **kept)),
            (
                "latest",
                ModelCheckpointCallback(save_dir=folder / "latest", monitor=None),
            ),
        ],
        save_dir=folder,
        device="cpu",
        seed=0,
    )


def test_auto_goes_on_from_the_file_that_has_come_furthest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tmp_path, num_epochs=3).train()
    assert [file.name[:14] for file in (tmp_path / "best").glob("*.pt")] == [
        "checkpoint-001"
    ]
    again = trainer(tmp_path, num_epochs=4)
    again.train(resume="auto")
    assert Path(str(again.resumed_from)).parent.name == "latest"
    assert len(again.history) == 4


def test_a_boundary_that_two_cadences_ask_for_is_nothing_that_must_be_saved(
    tmp_path: Path,
) -> None:
    run = trainer(tmp_path, num_epochs=1)
    kept, none = {"every_n_steps": 1}, {"save_last": False, "save_top_k": 0}
    for name, options in (("none", none), ("some", {})):
        keeper = ModelCheckpointCallback(tmp_path / name, None, **kept, **options)
        run.bus.register(keeper, name)
    run.train()
    assert (files(tmp_path / "none"), len(files(tmp_path / "some"))) == ([], 1)


class Stops(Callback):
    """Ends the run at a step, as a signal does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            trainer.request_stop("told to")


def rolling(folder: Path, stops_at: int, every: int = 2) -> Trainer:
    """Return one of 12 steps whose second keeper keeps the newest file only."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    x = torch.ones(2, 1)
    newest = {"monitor": None, "every_n_steps": every}
    return Trainer(
        model,
        [(x, x)] * 6,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=nn.functional.mse_loss,
        num_epochs=2,
        plugins=[
            ("best", ModelCheckpointCallback(folder / "best", monitor="train_loss")),
            ("newest", ModelCheckpointCallback(folder / "newest", **newest)),
            ("stops", Stops(stops_at)),
        ],
        save_dir=folder,
        device="cpu",
        seed=0,
    )


def test_a_run_stopped_inside_epochs_goes_on_with_the_list_of_each_keeper(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (2, 4, 7, 9, 0):
        again = rolling(tmp_path, stops_at=step)
        again.train(resume="auto")
        source = again.resumed_from
        assert source is None or source.parent.name == "best"
    assert files(tmp_path / "newest") == ["last-epoch002-step12.pt"]
    assert "of other runs" not in caplog.text


def test_where_the_list_of_the_first_keeper_is_lost_the_second_still_knows_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rolling(tmp_path, stops_at=2).train()
    rolling(tmp_path, stops_at=4).train(resume="auto")
    (tmp_path / "best" / "manifest.json").unlink()
    again = rolling(tmp_path, stops_at=0)
    again.train(resume=tmp_path / "best" / "last-epoch000-step4.pt")
    assert files(tmp_path / "newest") == ["last-epoch002-step12.pt"]
    assert "of other runs" not in caplog.text


def test_where_two_runs_came_to_the_same_and_no_list_tells_neither_is_taken_over(
    tmp_path: Path,
) -> None:
    for _ in range(2):  # from the beginning, with one seed
        rolling(tmp_path, stops_at=4).train()
    both = files(tmp_path / "newest")
    source = tmp_path / "best" / "last-epoch000-step4.pt"
    shutil.copy(source, kept := tmp_path / "kept.pt")
    rolling(tmp_path, stops_at=0).train(resume=kept)
    assert len(both) == 2
    assert set(files(tmp_path / "newest")) > set(both)


def test_a_run_that_came_to_the_same_as_the_one_resumed_keeps_its_files(
    tmp_path: Path,
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):  # with one seed
        rolling(folder, stops_at=4).train()
    before = files(theirs / "newest")
    source = shutil.copy(ours / "best" / "last-epoch000-step4.pt", tmp_path / "a.pt")
    rolling(theirs, stops_at=0).train(resume=source)
    assert before == ["last-epoch000-step4.pt"]
    assert set(files(theirs / "newest")) > set(before)


def test_of_two_runs_from_one_checkpoint_each_goes_on_with_its_own_list(
    tmp_path: Path,
) -> None:
    rolling(tmp_path, stops_at=2).train()
    start = tmp_path / "best" / "last-epoch000-step2.pt"
    shutil.copy(start, kept := tmp_path / "start.pt")
    first = rolling(tmp_path, stops_at=4)
    first.train(resume=start)
    second = rolling(tmp_path, stops_at=5)
    second.train(resume=start)
    newest = tmp_path / "newest"
    assert files(newest) == ["last-epoch000-step4.pt", "last-epoch000-step5.pt"]
    first = rolling(tmp_path, stops_at=8)
    first.train(resume=tmp_path / "best" / "last-epoch000-step4.pt")
    assert files(newest) == ["last-epoch000-step5.pt", "last-epoch001-step8.pt"]
    # An older state of all of them, whose own files have gone: a list of its own.
    rolling(tmp_path, stops_at=3).train(resume=kept)
    assert len(files(newest)) == 3


def test_the_latest_file_of_a_run_tells_whose_its_list_is_now(tmp_path: Path) -> None:
    def entry(step: int, run: int, written_by: str) -> Entry:
        file = f"{written_by}{step}.pt"
        return Entry(file, step, 0, step, True, "", run=run, written_by=written_by)

    a = [entry(2, 2, "a"), entry(4, 1, "a")]  # its first was taken over by b
    manifest = Manifest(tmp_path, [*a, entry(3, 2, "b"), entry(1, 3, "")], 3)
    found = [manifest.latest_of("a", (0, step)) for step in (1, 2, 3, 4, 9)]
    assert found == [None, a[0], a[0], a[1], a[1]]
    assert manifest.latest_of("", (0, 9)) is None  # of earlier releases
    manifest.begin_run(2, (a[0].epoch, a[0].step))
    assert manifest.current == [a[0]]  # not what b wrote after it


class Measures(Callback):
    """Measures ``a``, which falls, and ``b``, whose best is that of one epoch."""

    def __init__(self, best_of_b: int) -> None:
        self.best_of_b = best_of_b

    def metric_names(self) -> list[str]:
        return ["a", "b"]

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        is_best = trainer.epoch == self.best_of_b
        return {"a": 1 / trainer.epoch, "b": 0.125 if is_best else 0.5}


class SavesItself(Callback):
    """Saves at each boundary, before those that keep checkpoints."""

    def on_checkpoint(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(Path(trainer.save_dir) / f"own-{trainer.epoch}.pt")


class Dies(Callback):
    """Raises as the epoch after ``epoch`` begins."""

    def __init__(self, epoch: int | None) -> None:
        self.epoch = epoch

    def on_epoch_begin(self, trainer: Trainer) -> None:
        if trainer.epoch == self.epoch:
            raise RuntimeError("died")


def two_monitors(
    folder: Path, best: int, dies_after: int | None = None, **options: bool
) -> Trainer:
    """Return one whose first keeper watches ``a`` and whose second watches ``b``."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    x = torch.ones(2, 1)
    first = ModelCheckpointCallback(folder / "by_a", monitor="a", **options)
    second = ModelCheckpointCallback(folder / "by_b", monitor="b", **options)
    return Trainer(
        model,
        [(x, x)] * 2,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=nn.functional.mse_loss,
        num_epochs=4,
        plugins=[
            ("measures", Measures(best)),
            ("saves", SavesItself()),
            ("first", first),
            ("second", second),
            ("dies", Dies(dies_after)),
        ],
        save_dir=folder,
        device="cpu",
        seed=0,
    )


@pytest.mark.parametrize("best", [1, 2], ids=["first save", "later save"])
@pytest.mark.parametrize(
    "source", ["auto", "by_a/checkpoint-00{}-{:.4f}.pt", "own-{}.pt"]
)
def test_a_best_found_where_the_run_died_is_known_whoever_wrote_the_file_resumed(
    tmp_path: Path, source: str, best: int
) -> None:
    with pytest.raises(RuntimeError, match="died"):
        two_monitors(tmp_path, best, dies_after=best).train()
    if source != "auto":
        source = str(tmp_path / source.format(best, 1 / best))
    again = two_monitors(tmp_path, best)
    again.train(resume=source)
    kept = {name: again.plugins[name].best_path for name in ("first", "second")}
    assert kept == {
        "first": tmp_path / "by_a" / "checkpoint-004-0.2500.pt",
        "second": tmp_path / "by_b" / f"checkpoint-00{best}-0.1250.pt",
    }
    listed = Manifest.read(tmp_path / "by_b")
    assert listed.entries == listed.current  # none is of another run


class Unlists(Callback):
    """Keeps the list of the second keeper as it is before that one saves ``epoch``."""

    before = ("second",)

    def __init__(self, epoch: int) -> None:
        self.epoch, self.content = epoch, b""

    def on_checkpoint(self, trainer: Trainer) -> None:
        path = Path(trainer.save_dir) / "by_b" / "manifest.json"
        if trainer.epoch == self.epoch and path.exists():
            self.content = path.read_bytes()

    def put_back(self, path: Path) -> None:
        path.write_bytes(self.content) if self.content else path.unlink()


@pytest.mark.parametrize("is_async", [False, True], ids=["at once", "in a thread"])
@pytest.mark.parametrize("best", [1, 2], ids=["first save", "later save"])
def test_a_best_that_was_whole_and_not_listed_when_its_run_was_killed_is_listed(
    tmp_path: Path, best: int, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    dying = two_monitors(tmp_path, best, dies_after=best, async_save=is_async)
    unlists = Unlists(best)
    dying.bus.register(unlists)
    with pytest.raises(RuntimeError, match="died"):
        dying.train()
    unlists.put_back(tmp_path / "by_b" / "manifest.json")
    whole = tmp_path / "by_b" / f"checkpoint-00{best}-0.1250.pt"
    shutil.copy(whole, mine := tmp_path / "by_b" / "mine.pt")
    source = tmp_path / "by_a" / f"checkpoint-00{best}-{1 / best:.4f}.pt"
    again = two_monitors(tmp_path, best)
    again.train(resume=source)
    assert again.plugins["second"].best_path == whole
    assert f"{whole} is listed again" in caplog.text
    assert f"{mine} is listed again" not in caplog.text
    assert mine.exists()
    kept = {e.file: e.is_spared for e in Manifest.read(tmp_path / "by_b").current}
    assert kept[whole.name], "whoever laid it there"


def test_a_copy_that_somebody_laid_in_the_new_folder_of_a_run_stays_as_it_is(
    tmp_path: Path,
) -> None:
    trainer(tmp_path / "a", num_epochs=2).train()
    [source] = (tmp_path / "a" / "latest").glob("*.pt")
    (tmp_path / "b" / "latest").mkdir(parents=True)
    shutil.copy(source, mine := tmp_path / "b" / "latest" / source.name)
    trainer(tmp_path / "b", num_epochs=4).train(resume=source)
    assert mine.exists()
    assert mine.name not in [e.file for e in Manifest.read(mine.parent).entries]


def test_a_copy_under_a_name_of_the_plugin_in_a_folder_of_its_run_is_never_deleted(
    tmp_path: Path,
) -> None:
    rolling(tmp_path, stops_at=4).train()
    source = tmp_path / "best" / "last-epoch000-step4.pt"
    shutil.copy(source, mine := tmp_path / "newest" / "last-epoch000-step4-v7.pt")
    rolling(tmp_path, stops_at=0).train(resume=source)
    assert files(tmp_path / "newest") == [mine.name, "last-epoch002-step12.pt"]


def read_so_far() -> int:
    """Return how many bytes this process has read; what is mapped is not."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="Linux counts it")
def test_no_weights_are_read_to_find_what_a_killed_run_left_unlisted(
    tmp_path: Path,
) -> None:
    model = nn.Linear(2000, 2000)  # 16 MB
    x = torch.ones(2, 2000)
    run = Trainer(
        model,
        [(x, x)],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=nn.functional.mse_loss,
        num_epochs=1,
        device="cpu",
    )
    run.save_checkpoint(whole := tmp_path / "last-epoch000-step0.pt")
    (tmp_path / "other").mkdir()
    shutil.copy(whole, source := tmp_path / "other" / "source.pt")
    template = FilenameTemplate("checkpoint-{epoch:03d}.pt")
    before = read_so_far()
    found = left_unlisted(tmp_path, [], source, template)
    assert [entry.file for entry in found] == [whole.name]
    assert read_so_far() - before < 1e6


def test_a_file_of_another_run_that_was_never_listed_is_not_taken_over(
    tmp_path: Path,
) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        with pytest.raises(RuntimeError, match="died"):
            two_monitors(folder, 1, dies_after=1).train()
    (tmp_path / "a" / "by_b" / "manifest.json").unlink()
    again = two_monitors(tmp_path / "a", 1)
    again.train(resume=tmp_path / "b" / "by_a" / "checkpoint-001-1.0000.pt")
    assert again.plugins["second"].best_path.name != "checkpoint-001-0.1250.pt"


@pytest.mark.parametrize(
    ("value", "step", "position", "run"),
    [
        pytest.param(0.25, 6, (3, 6), 2, id="the same value there"),
        pytest.param(0.25, 6, (3, 7), 2, id="and a boundary later"),
        pytest.param(0.5, 2, (3, 6), 1, id="of the run before"),
        pytest.param(0.75, 6, (3, 6), None, id="another value"),
        pytest.param(0.25, 4, (3, 6), None, id="at another step"),
        pytest.param(0.25, 6, (2, 5), None, id="of a later state"),
        pytest.param(float("nan"), 8, (4, 8), None, id="no number"),
    ],
)
def test_a_run_whose_named_files_are_gone_is_known_by_what_it_measured(
    tmp_path: Path, value: float, step: int, position: tuple[int, int], run: int | None
) -> None:
    listed = [
        Entry("a.pt", 2, 1, 2, True, "epoch_end", run=1, metrics={"b": 0.5, "c": 1.0}),
        Entry("b.pt", 6, 3, 6, True, "epoch_end", run=2, metrics={"b": 0.25}),
        Entry("c.pt", 8, 4, 8, True, "epoch_end", run=3, metrics={"b": None}),
    ]
    latest = {"b": MetricValue(value, step, 0, "test")}
    manifest = Manifest(tmp_path, listed, 3)
    assert manifest.run_resumed([("gone.pt", 4)], position, latest) == run
    assert manifest.run_resumed([("a.pt", 2)], position, latest) == 1  # named: first
