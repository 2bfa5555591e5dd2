"""Folders that the right to write made, and that go with it."""

import pytest

from training.files.claim import Claim


def test_a_folder_that_cannot_be_made_leaves_none_of_those_above_it(tmp_path):
    lock = tmp_path / "new" / ("n" * 300) / "lock"
    with pytest.raises(OSError, match="name too long"):
        Claim("plugin", "plugin.folder").take(lock, object())
    assert not [*tmp_path.iterdir()]


def test_a_folder_that_is_gone_keeps_none_of_those_above_it(tmp_path):
    claim, run = Claim("plugin", "plugin.folder"), object()
    lock = claim.take(tmp_path / "new" / "inner" / "lock", run)
    lock.path.unlink()
    lock.path.parent.rmdir()
    claim.release(run)
    assert not [*tmp_path.iterdir()]


def test_a_folder_with_files_in_it_stays(tmp_path):
    claim, run = Claim("plugin", "plugin.folder"), object()
    lock = claim.take(tmp_path / "new" / "lock", run)
    (tmp_path / "new" / "weights").touch()
    claim.release(run)
    assert [each.name for each in lock.path.parent.iterdir()] == ["weights"]
