"""Rows that are turned into lines once: kept by content, whole, for all processes."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from trainbus_data.readers import kept_rows
from trainbus_data.readers.class_folders import ClassFolders
from trainbus_data.readers.csv_table import CsvTable
from trainbus_data.readers.json_array import JsonArray
from trainbus_data.rows.json_lines import UnusableRow
from training.errors import DataError
from training.recipes.reader import Reader


def table(folder: Path, text: str = "a,b\n1,2\n3,4\n") -> Path:
    path = folder / "rows.csv"
    path.write_text(text)
    return path


def never(*_: object) -> None:
    raise AssertionError("the source is read again")


def test_the_second_time_the_source_is_not_read(tmp_path, own_cache, monkeypatch):
    path = table(tmp_path)
    first = CsvTable(path)
    monkeypatch.setattr(kept_rows, "_keep", never)
    again = CsvTable(path)
    assert list(first) == list(again)
    assert len(list(own_cache.iterdir())) == 1
    with pytest.raises(AssertionError, match="read again"):
        CsvTable(path, separator=";")  # other options are other rows


@pytest.mark.parametrize("is_longer", [True, False])
def test_a_changed_source_is_read_anew(tmp_path, is_longer):
    path = table(tmp_path)
    CsvTable(path)
    before = path.stat().st_mtime_ns
    path.write_text("a,b\n1,2\n3,5\n" + "6,7\n" * is_longer)
    os.utime(path, ns=(before + 1, before + 1))
    assert CsvTable(path)[1] == {"a": "3", "b": "5"}


def test_a_picture_more_is_noticed(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "1.png").touch()
    assert len(ClassFolders(folder)) == 1
    (folder / "cat" / "2.png").touch()
    assert len(ClassFolders(folder)) == 2


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda raw: b"", id="empty"),
        pytest.param(lambda raw: raw[:-20], id="cut off"),
        pytest.param(lambda raw: raw[: raw.rindex(b"\n", 0, -1) + 1], id="without end"),
        pytest.param(lambda raw: b"\0" * len(raw), id="zeros"),
    ],
)
def test_damaged_lines_are_made_anew_with_a_warning(
    tmp_path, own_cache, caplog, damage
):
    path = table(tmp_path)
    rows = list(CsvTable(path))
    (kept,) = own_cache.iterdir()
    kept.write_bytes(damage(kept.read_bytes()))
    assert list(CsvTable(path)) == rows
    assert "cannot be read" in caplog.text


def test_processes_that_read_at_once_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"a": number} for number in range(20_000)]))
    source = (
        "import sys\n"
        "from trainbus_data.readers.json_array import JsonArray\n"
        "rows = JsonArray(sys.argv[1])\n"
        "print('open', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(len(rows), rows[19_999]['a'])\n"
    )
    command = [sys.executable, "-c", source, str(path)]
    running = [
        subprocess.Popen(
            command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
    for process in running:  # each reads what maybe another one wrote last
        assert process.communicate("\n")[0] == "20000 19999\n"


def test_rows_that_another_process_replaces_stay_readable(tmp_path, own_cache):
    path = table(tmp_path)
    rows = CsvTable(path)
    (kept,) = own_cache.iterdir()
    kept.unlink()
    CsvTable(path)
    assert rows[1] == {"a": "3", "b": "4"}


def test_sources_may_be_in_a_folder_that_cannot_be_written(tmp_path):
    folder = tmp_path / "given"
    folder.mkdir()
    path = table(folder)
    folder.chmod(0o500)
    assert len(CsvTable(path)) == 2
    assert [each.name for each in folder.iterdir()] == ["rows.csv"]
    folder.chmod(0o700)


def test_a_cache_that_cannot_be_written_says_the_way_out(tmp_path, monkeypatch):
    place = tmp_path / "file"
    place.write_text("where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    with pytest.raises(DataError, match=r"cannot be kept in .*; set XDG_CACHE_HOME to"):
        CsvTable(table(tmp_path))


def test_a_source_that_changes_while_it_is_read_is_refused(
    tmp_path, own_cache, monkeypatch
):
    path = table(tmp_path)
    write = kept_rows.write_durably

    def write_late(*arguments):
        path.write_text("a,b\n1,2\n3,4\n5,6\n")
        return write(*arguments)

    monkeypatch.setattr(kept_rows, "write_durably", write_late)
    with pytest.raises(DataError, match="has changed while it was read; start again"):
        CsvTable(path)
    assert list(own_cache.iterdir()) == []


def test_a_failure_leaves_nothing_behind(tmp_path, own_cache):
    path = table(tmp_path, 'a,b\n1,2\n"3,4\n')
    with pytest.raises(DataError, match="a cell begins here"):
        CsvTable(path)
    assert list(own_cache.iterdir()) == []


def test_rows_travel_to_a_worker(tmp_path):
    rows = CsvTable(table(tmp_path, "a,b\n1,2\n3\n"))
    again = pickle.loads(pickle.dumps(rows))
    assert again[0] == rows[0]
    assert again.place(1) == rows.place(1)
    assert again.fingerprint == rows.fingerprint


def test_rows_that_are_known_to_be_bad_are_known_again(tmp_path):
    path = table(tmp_path, "a,b\n1,2\n3\n4,5\n6\n")
    for _ in range(2):
        rows = CsvTable(path)
        assert rows.faulty == (1, 3)
        with pytest.raises(UnusableRow, match="has 1 cell, where the head has 2"):
            rows[3]


def test_a_row_holds_eight_bytes(tmp_path):
    rows = JsonArray(write_array(tmp_path, 1000))
    held = rows._lines._starts.nbytes + rows._lines._blanks.nbytes
    assert held <= 8 * (len(rows) + 1)
    assert rows.num_bytes > 1000 * len('["1",{"a":0}]')


def write_array(folder: Path, count: int) -> Path:
    path = folder / "rows.json"
    path.write_text(json.dumps([{"a": number} for number in range(count)]))
    return path


def test_readers_are_what_the_pipeline_asks_for(tmp_path):
    assert isinstance(CsvTable(table(tmp_path)), Reader)
