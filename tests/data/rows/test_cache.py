"""The cache is bounded: what was used longest ago goes, never what is in use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainbus_data.readers import kept_rows
from trainbus_data.readers.csv_table import CsvTable
from trainbus_data.rows import cache, line_index
from trainbus_data.rows.cache import InUse, cache_folder, delete, make_room
from trainbus_data.rows.line_index import LineIndex

HOUR = 3600


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of kept rows."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder("rows")


def table(folder: Path, name: str) -> Path:
    path = folder / f"{name}.csv"
    path.write_text(f"a,b\n{name},2\n3,4\n")
    return path


def kept_of(rows: Any) -> Path:
    path: Path = rows._lines.path
    return path


def used(path: Path, hours_ago: int) -> None:
    """Let a file have been used then."""
    found = path.stat()
    then = found.st_atime_ns - hours_ago * HOUR * 10**9
    os.utime(path, ns=(then, found.st_mtime_ns))


def test_the_cache_lies_where_xdg_says_or_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder("rows") == tmp_path / "x" / "trainbus" / "rows"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder("rows") == tmp_path / "home" / ".cache" / "trainbus" / "rows"


def test_what_was_used_longest_ago_is_deleted_until_the_rest_fits(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, hours in {"a": 2, "b": 4, "c": 1, "d": 3}.items():
        (folder / name).write_text("12345")
        used(folder / name, hours)
    make_room(folder, 12)
    assert sorted(path.name for path in folder.iterdir()) == ["a", "c"]
    make_room(folder, 12)
    assert len(list(folder.iterdir())) == 2


def test_rows_are_used_when_they_are_opened_again(tmp_path, monkeypatch):
    paths = [table(tmp_path, name) for name in ("one", "two")]
    kept = [kept_of(CsvTable(path)) for path in paths]
    for path in kept:
        used(path, 5)
    before = kept[0].stat().st_mtime_ns
    CsvTable(paths[0])  # its index is still found by the time of the last change
    assert kept[0].stat().st_mtime_ns == before
    most = sum(path.stat().st_size for path in kept) + 10
    monkeypatch.setattr(kept_rows, "MOST_KEPT_BYTES", most)
    CsvTable(table(tmp_path, "three"))
    assert [path.exists() for path in kept] == [True, False]
    assert CsvTable(paths[1])[0] == {"a": "two", "b": "2"}


def test_rows_in_use_are_never_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_rows, "MOST_KEPT_BYTES", 0)
    first, second = (CsvTable(table(tmp_path, name)) for name in ("one", "two"))
    assert kept_of(first).exists()
    assert first[0] == {"a": "one", "b": "2"}  # opened only now
    kept = kept_of(first)
    del first
    CsvTable(table(tmp_path, "three"))
    assert not kept.exists()
    assert second[0] == {"a": "two", "b": "2"}


def test_without_a_mark_rows_would_be_deleted_under_their_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_rows, "MOST_KEPT_BYTES", 0)
    first = CsvTable(table(tmp_path, "one"))
    first._mark = None
    CsvTable(table(tmp_path, "two"))
    assert not kept_of(first).exists()


def test_rows_that_are_made_again_while_they_are_deleted_stay(tmp_path, monkeypatch):
    kept = cache_folder("rows") / "one.lines"
    kept.parent.mkdir(parents=True)
    real, users = cache.fcntl.flock, []

    def flock(file: int, how: int) -> None:
        if not users:  # the file is opened: another process is first, then a third
            users.append(None)
            assert delete(kept)
            users[:] = [InUse(kept)]
            kept.write_text("rows")
        real(file, how)

    kept.write_text("rows")
    monkeypatch.setattr(cache.fcntl, "flock", flock)
    assert not delete(kept)
    assert kept.exists()
    users.clear()
    users.append(None)
    assert delete(kept)


USER = """\
import sys
from trainbus_data.readers.csv_table import CsvTable
rows = CsvTable(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
print(rows[0]["a"])
"""


def test_rows_that_another_process_uses_are_never_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_rows, "MOST_KEPT_BYTES", 0)
    path = table(tmp_path, "one")
    kept = kept_of(CsvTable(path))
    with subprocess.Popen(
        [sys.executable, "-c", USER, str(path)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        CsvTable(table(tmp_path, "two"))
        assert kept.exists()
        assert process.communicate("\n")[0] == "one\n"
    CsvTable(table(tmp_path, "three"))
    assert not kept.exists()


MAKER = """\
import sys
from pathlib import Path
from trainbus_data.readers import kept_rows
from trainbus_data.readers.csv_table import CsvTable
kept_rows.MOST_KEPT_BYTES = 0
folder = Path(sys.argv[1])
for _ in range(20):
    for path in sorted(folder.glob("*.csv")):
        rows = CsvTable(path)
        assert rows[0]["a"] == path.stem
"""


def test_processes_that_make_room_at_once_do_not_disturb_each_other(tmp_path):
    for name in "abcde":
        table(tmp_path, name)
    command = [sys.executable, "-c", MAKER, str(tmp_path)]
    running = [
        subprocess.Popen(command, text=True, stderr=subprocess.PIPE) for _ in range(3)
    ]
    assert [process.communicate()[1] for process in running] == ["", "", ""]
    assert [process.returncode for process in running] == [0, 0, 0]


def test_a_mark_is_taken_again_where_it_was_deleted_meanwhile(tmp_path, own_cache):
    kept = own_cache / "a.lines"
    own_cache.mkdir(parents=True)
    kept.touch()
    marks = [InUse(kept)]
    assert not delete(kept)
    marks.clear()
    assert delete(kept)
    marks.append(InUse(kept))
    assert not delete(kept)


@pytest.mark.parametrize(("age", "is_left"), [(-1, False), (HOUR, True)])
def test_what_a_killed_process_left_half_written_goes_after_a_day(
    tmp_path, own_cache, monkeypatch, age, is_left
):
    monkeypatch.setattr(cache, "ABANDONED_SECONDS", age)
    own_cache.mkdir(parents=True)
    half = own_cache / "a.lines.00000000.tmp-1"
    half.touch()
    CsvTable(table(tmp_path, "one"))
    assert half.exists() == is_left


def test_rows_are_read_where_nothing_can_be_marked(tmp_path, own_cache, monkeypatch):
    monkeypatch.setattr(kept_rows, "MOST_KEPT_BYTES", 0)
    own_cache.parent.mkdir(parents=True)
    (own_cache.parent / "in-use").write_text("where the folder should be")
    first, second = (CsvTable(table(tmp_path, name)) for name in ("one", "two"))
    assert [rows[0]["a"] for rows in (first, second)] == ["one", "two"]
    assert kept_of(first).exists()


def test_indices_are_bounded_and_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(line_index, "MOST_KEPT_BYTES", 0)
    paths = [table(tmp_path, name) for name in ("one", "two")]
    lines = [LineIndex(path) for path in paths]
    assert list(cache_folder("lines").iterdir()) == []
    assert [each.read(1) for each in lines] == [b"one,2", b"two,2"]
