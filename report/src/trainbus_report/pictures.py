"""The pictures of some rows, small, within the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from training.app.building.components import make_pipeline
from training.app.building.recipe import make_recipe
from training.app.config.load import load_config
from training.app.records.run_folder import RunFolder
from training.errors import DataError
from training.files.named_paths import named_path

__all__ = ["pictures_of"]

#: Pixels that a picture is fitted into.
SIDE = 176
SPLITS = ("validation", "test")


def pictures_of(run: RunFolder, names: Collection[str]) -> dict[str, str]:
    """Return name -> a ``data:`` address of each picture that is found.

    Rows are read again, as the run read them: a row of a file of predictions only names
    its picture.

    Raises:
        TrainbusError: the rows cannot be read.
    """
    config = load_config(run.path / "config.yaml")
    drawn = config.data.synthetic
    if drawn is not None:
        folder = named_path(drawn.folder or config.training.save_dir)
        if not folder.is_dir():
            raise DataError(f"{str(folder)!r} is gone, where pictures were drawn")
    task, family = make_recipe(config, ())
    pipeline = make_pipeline(config, config.data, task, family)
    found: dict[str, str] = {}
    for value in _values(pipeline.rows(split) for split in SPLITS):
        if len(found) == len(names):
            break
        if value in names and value not in found:
            try:
                found[str(value)] = _address(value.open())
            except Exception:  # as many kinds as there are decoders
                continue  # the page says that there is none
    return found


def _values(splits: Iterable[Iterable[Mapping[str, Any]]]) -> Iterator[Any]:
    """Yield what can be opened in the rows of some splits."""
    for rows in splits:
        for row in rows:
            for value in row.values():
                if callable(getattr(value, "open", None)):
                    yield value


def _address(picture: Any) -> str:
    from PIL import Image

    scale = min(SIDE / picture.width, SIDE / picture.height)
    size = tuple(max(1, round(each * scale)) for each in picture.size)
    # Of a small picture each pixel is seen; a large one loses some.
    way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    file = io.BytesIO()
    picture.resize(size, way).save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
