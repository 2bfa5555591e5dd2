"""Processes of one run may draw the same pictures at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trainbus_data.vqa.synthetic import write_shapes
from training.errors import DataError


def test_several_draw_the_same_pictures_and_all_find_them(tmp_path: Path) -> None:
    for number in range(4):
        folder = tmp_path / str(number)
        with ThreadPoolExecutor(3) as pool:
            drawn = [pool.submit(write_shapes, folder, 6, 2) for _ in range(3)]
        (place,) = {each.result() for each in drawn}
        assert len(list(place.rglob("*.png"))) == 8
        assert list(folder.iterdir()) == [place]


def test_a_file_in_place_of_the_folder_is_still_refused(tmp_path: Path) -> None:
    place = write_shapes(tmp_path / "first", 6, 2)
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / place.name).write_text("")
    with pytest.raises(DataError):
        write_shapes(tmp_path / "second", 6, 2)
