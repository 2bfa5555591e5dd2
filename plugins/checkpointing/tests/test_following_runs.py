"""Runs that follow one another in one folder, or resume from another."""

from __future__ import annotations

import pytest

from trainbus_checkpointing import ModelCheckpointCallback
from training import Callback, CheckpointError
from training.plugin import read_checkpoint

from .listed import files, manifest, short


def test_a_fresh_run_into_an_old_folder_touches_nothing_of_the_old(
    begun, tmp_path, caplog
):
    old = begun(save_dir=tmp_path)
    for value in (1.0, 2.0):
        old.run_epoch(val_loss=value)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    new = begun(save_dir=tmp_path)
    assert "2 checkpoints of other runs" in caplog.text
    assert new.plugin.best_path is None
    for value in (1.0, 2.0, 3.0):
        new.run_epoch(val_loss=value)
    for name, content in before.items():
        assert (tmp_path / name).read_bytes() == content
    assert new.plugin.best_path.name == "checkpoint-001-1.0000-v2.pt"


def test_a_resumed_run_keeps_best_and_top_k_of_before(begun, tmp_path):
    first = begun(save_dir=tmp_path, save_top_k=2)
    for value in (1.0, 3.0, 4.0):
        first.run_epoch(val_loss=value)
    second = begun(resume=first.plugin.last_path, save_dir=tmp_path, save_top_k=2)
    assert second.plugin.best_value == 1.0
    assert second.plugin.find_checkpoint(10) == tmp_path / "checkpoint-001-1.0000.pt"
    second.run_epoch(val_loss=2.0)
    assert short(tmp_path) == "c1 c4 l3"  # l3 is the resume source


@pytest.mark.parametrize("is_link", [False, True])
def test_the_resume_source_stays_until_a_later_run(
    begun, tmp_path, tmp_path_factory, is_link
):
    first = begun(save_dir=tmp_path)
    for value in (1.0, 2.0):
        first.run_epoch(val_loss=value)
    source = first.plugin.last_path
    if is_link:
        link = tmp_path_factory.mktemp("elsewhere") / "mine.pt"
        link.symlink_to(source)
        source = link
    second = begun(resume=source, save_dir=tmp_path)
    second.run_epoch(val_loss=0.5)
    second.run_epoch(val_loss=0.4)
    assert short(tmp_path) == "c4 l2"
    third = begun(resume=second.plugin.last_path, save_dir=tmp_path)
    third.run_epoch(val_loss=0.3)
    assert short(tmp_path) == "c4 c5"


@pytest.mark.parametrize("by", ["the folder", "a link to the link"])
@pytest.mark.parametrize("goes_on", ["there", "in another folder"])
def test_a_run_whose_checkpoints_are_links_goes_on_as_that_of_their_folder(
    begun, tmp_path, by, goes_on
):
    folder, disk = tmp_path / "run", tmp_path / "disk"
    first = begun(save_dir=folder, save_top_k=2)
    for value in (1.0, 3.0, 4.0):
        first.run_epoch(val_loss=value)
    source = first.plugin.last_path
    disk.mkdir()
    for number, name in enumerate(files(folder)):
        (folder / name).rename(disk / f"{number}.pt")
        (folder / name).symlink_to(disk / f"{number}.pt")
    if by == "a link to the link":
        source = tmp_path / "mine.pt"
        source.symlink_to(first.plugin.last_path)
    save_dir = folder if goes_on == "there" else tmp_path / "later"
    second = begun(resume=source, save_dir=save_dir, save_top_k=2)
    second.run_epoch(val_loss=2.0)
    assert second.plugin.find_checkpoint(10) == folder / "checkpoint-001-1.0000.pt"
    left = "c1 c4 l3" if goes_on == "there" else "c1 c2 l3"  # l3 is what was resumed
    assert short(folder) == left
    assert len(list(disk.iterdir())) == 3


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_link_in_the_folder_of_its_checkpoint_keeps_both(begun, tmp_path, is_lost):
    first = begun(save_dir=tmp_path)
    for value in (1.0, 2.0):
        first.run_epoch(val_loss=value)
    link = tmp_path / "mine.pt"
    link.symlink_to(first.plugin.last_path.name)
    if is_lost:
        (tmp_path / "manifest.json").unlink()
    second = begun(resume=link, save_dir=tmp_path)
    for value in (0.5, 0.4):
        second.run_epoch(val_loss=value)
    assert link.exists()
    assert first.plugin.last_path.name in files(tmp_path)


def test_resuming_an_earlier_checkpoint_leaves_the_later_branch_alone(begun, tmp_path):
    first = begun(save_dir=tmp_path, save_top_k=-1)
    for value in (3.0, 2.0, 1.0):
        first.run_epoch(val_loss=value)
    source = tmp_path / "checkpoint-001-3.0000.pt"
    second = begun(resume=source, save_dir=tmp_path)
    assert second.plugin.find_checkpoint(20) is None  # of the branch that was left
    second.run_epoch(val_loss=2.0)
    assert second.plugin.find_checkpoint(20).name == "checkpoint-002-2.0000-v2.pt"
    assert len(files(tmp_path)) == 4


def offered(trainer) -> list[str]:
    return [path.name for path, _ in trainer.plugin.resume_candidates(trainer)]


def finished(begun, folder):
    """Return a run of three epochs, each with its checkpoint."""
    trainer = begun(save_dir=folder, save_top_k=-1)
    for value in (3.0, 2.0, 1.0):
        trainer.run_epoch(val_loss=value)
    return trainer


def test_a_run_that_dies_before_its_first_save_is_not_taken_for_the_one_before(
    begun, tmp_path, caplog
):
    old = finished(begun, tmp_path)
    assert offered(old)[0] == "checkpoint-003-1.0000.pt"
    fresh = begun(save_dir=tmp_path)
    assert offered(fresh) == []
    assert "has saved nothing yet; 3 checkpoints there, of others" in caplog.text
    assert len(files(tmp_path)) == 3


def test_a_run_that_is_refused_before_it_trains_hides_nothing(begun, tmp_path):
    old = finished(begun, tmp_path)
    whole = offered(old)
    plugin = old.plugin
    plugin.on_close(old)
    plugin.on_setup(old)
    old.epoch = old.step = 0
    plugin.on_train_begin(old)  # and another plugin refuses the run
    assert offered(old) == whole
    plugin.on_epoch_begin(old)
    assert offered(old) == []


def test_a_branch_that_dies_before_its_first_save_goes_on_where_it_began(
    begun, tmp_path
):
    finished(begun, tmp_path)
    source = tmp_path / "checkpoint-002-2.0000.pt"
    for _ in range(2):  # it may die more than once
        branch = begun(resume=source, save_dir=tmp_path, save_top_k=-1)
        assert offered(branch) == [source.name, "checkpoint-001-3.0000.pt"]


def test_a_run_whose_own_checkpoints_are_damaged_does_not_go_on_with_another(
    begun, tmp_path
):
    finished(begun, tmp_path)
    fresh = begun(save_dir=tmp_path)
    fresh.run_epoch(val_loss=1.0)
    fresh.plugin.last_path.write_bytes(b"cut")
    ((path, problem),) = fresh.plugin.resume_candidates(fresh)
    assert path == fresh.plugin.last_path
    assert "it has 3 bytes" in problem


def test_a_run_that_goes_on_from_its_newest_is_offered_all_that_it_has(begun, tmp_path):
    newest = finished(begun, tmp_path).plugin.last_path
    assert len(offered(begun(resume=newest, save_dir=tmp_path, save_top_k=-1))) == 3


def test_a_resume_from_a_file_outside_the_folder_recognises_its_run(begun, tmp_path):
    first = begun(save_dir=tmp_path / "a")
    first.run_epoch(val_loss=1.0)
    outside = first.save_checkpoint(tmp_path / "interrupted.pt")
    second = begun(resume=outside, save_dir=tmp_path / "a")
    assert second.plugin.best_value == 1.0


def test_a_resume_into_another_folder_starts_a_new_list_there(begun, tmp_path):
    first = begun(save_dir=tmp_path / "a")
    for value in (1.0, 2.0):
        first.run_epoch(val_loss=value)
    first.plugin.on_close(first)
    before = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    second = begun(resume=first.plugin.last_path, save_dir=tmp_path / "b")
    assert second.plugin.best_path is None
    found = second.plugin.find_checkpoint(10)  # the stopper may still need it
    assert found == tmp_path / "a" / "checkpoint-001-1.0000.pt"
    second.run_epoch(val_loss=1.5)
    assert short(tmp_path / "b") == "c3"
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()} == before


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        pytest.param({}, "l4", id="carried: only what beats the old best is best"),
        pytest.param({"mode": "max"}, "c3 l4", id="not carried to another mode"),
    ],
)
def test_carry_best(begun, tmp_path, options, kept):
    first = begun(save_dir=tmp_path / "a")
    for value in (1.0, 2.0):
        first.run_epoch(val_loss=value)
    second = begun(
        resume=first.plugin.last_path,
        save_dir=tmp_path / "b",
        carry_best=True,
        **options,
    )
    for value in (1.5, 1.4):
        second.run_epoch(val_loss=value)
    assert short(tmp_path / "b") == kept
    third = begun(
        resume=second.plugin.last_path,
        save_dir=tmp_path / "b",
        carry_best=True,
        **options,
    )
    third.run_epoch(val_loss=1.45)  # better than 1.0 in mode max only
    assert (third.plugin.best_path is None) == (not options)


def test_files_that_are_missing_or_cut_are_no_longer_listed(begun, tmp_path, caplog):
    first = begun(save_dir=tmp_path, save_top_k=-1)
    for value in (1.0, 2.0, 3.0):
        first.run_epoch(val_loss=value)
    (tmp_path / "checkpoint-001-1.0000.pt").unlink()
    (tmp_path / "checkpoint-002-2.0000.pt").write_bytes(b"cut")
    second = begun(resume=first.plugin.last_path, save_dir=tmp_path)
    assert second.plugin.best_value == 3.0
    assert caplog.text.count("no longer listed") == 2
    second.run_epoch(val_loss=0.5)
    assert (tmp_path / "checkpoint-002-2.0000.pt").read_bytes() == b"cut"


def test_another_monitor_after_a_resume_ranks_by_its_own_values(begun, tmp_path):
    first = begun(save_dir=tmp_path, save_top_k=-1)
    for loss, accuracy in ((1.0, 0.2), (2.0, 0.9), (3.0, 0.1)):
        first.run_epoch(val_loss=loss, accuracy=accuracy)
    second = begun(
        resume=first.plugin.last_path,
        save_dir=tmp_path,
        monitor="accuracy",
        mode="max",
    )
    assert second.plugin.best_value == 0.9


@pytest.mark.parametrize("change", [{"monitor": "accuracy"}, {"mode": "max"}])
def test_what_was_best_by_another_monitor_or_mode_is_never_deleted(
    begun, tmp_path, caplog, change
):
    first = begun(save_dir=tmp_path, save_top_k=2)
    for value in (1.0, 2.0, 3.0):
        first.run_epoch(val_loss=value, accuracy=value)
    last = first.plugin.last_path
    for _ in range(2):  # the second start goes on with the new one
        trainer = begun(resume=last, save_dir=tmp_path, save_top_k=2, **change)
        for step in (1.0, 2.0):
            value = trainer.epoch * (-step if "monitor" in change else step)
            trainer.run_epoch(val_loss=value, accuracy=value)
        last = trainer.plugin.last_path
    assert short(tmp_path).startswith("c1 c2 c")
    assert caplog.text.count("ranked by 'val_loss' (min), and from here on by") == 1
    assert "checkpoint-001-1.0000.pt, checkpoint-002-2.0000.pt" in caplog.text


def test_what_was_best_stays_where_with_another_monitor_none_is_kept_any_more(
    begun, tmp_path
):
    first = begun(save_dir=tmp_path)
    for value in (1.0, 2.0):
        first.run_epoch(val_loss=value, accuracy=value)
    now = {"monitor": "accuracy", "save_top_k": 0}
    again = begun(resume=first.plugin.last_path, save_dir=tmp_path, **now)
    again.run_epoch(val_loss=3.0, accuracy=3.0)
    assert short(tmp_path) == "c1 l2 l3"  # what was resumed stays, too


def test_a_resume_that_trains_no_further_writes_nothing(begun, tmp_path):
    first = begun(save_dir=tmp_path)
    first.run_epoch(val_loss=1.0)
    second = begun(resume=first.plugin.last_path, save_dir=tmp_path)
    second.is_stopping = True
    second.plugin.on_checkpoint(second, "stop")
    assert second.num_writes == 0


def test_a_file_that_another_plugin_needs_stays(begun, tmp_path):
    class Stopper(Callback):
        hook_api = ">=1.1,<2"

        def needed_checkpoints(self) -> set[int]:
            return {10}

    trainer = begun(save_dir=tmp_path)
    trainer.bus.register(Stopper())
    for value in (3.0, 2.0, 1.0):
        trainer.run_epoch(val_loss=value)
    assert short(tmp_path) == "c1 c3"


def test_a_plugin_that_cannot_say_what_it_needs_leaves_a_file_that_is_listed(
    begun, tmp_path
):
    class Lost(Callback):
        hook_api = ">=1.1,<2"

        def needed_checkpoints(self) -> set[int]:
            raise OSError("my list is gone")

    trainer = begun(save_dir=tmp_path)
    trainer.run_epoch(val_loss=2.0)
    trainer.bus.register(Lost())
    with pytest.raises(OSError, match="my list is gone"):
        trainer.run_epoch(val_loss=1.0)
    assert short(tmp_path) == "c1 c2"  # and nothing is deleted
    listed = [each["file"] for each in manifest(tmp_path)["checkpoints"]]
    assert listed == files(tmp_path)


def test_state_of_another_version_is_refused():
    told = "checkpointing has version 99, but this plugin reads 1; use the release"
    with pytest.raises(CheckpointError, match=told):
        ModelCheckpointCallback().load_state_dict({"version": 99})


def test_before_a_run_there_is_no_state():
    assert ModelCheckpointCallback().state_dict() == {}


def test_state_names_best_and_last_before_this_save_and_no_settings(begun, tmp_path):
    trainer = begun(save_dir=tmp_path, save_top_k=3)
    trainer.run_epoch(val_loss=2.0)
    trainer.run_epoch(val_loss=1.0)
    state = read_checkpoint(trainer.plugin.best_path)["plugins"]["checkpointing"]
    assert state["best"] == {
        "file": "checkpoint-001-2.0000.pt",
        "step": 10,
        "value": 2.0,
    }
    assert "save_top_k" not in str(state)
