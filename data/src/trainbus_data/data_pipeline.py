"""From a configuration to the loaders of a data set."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader

from trainbus_data.config import MIB, SPLITS, DataConfig, SyntheticConfig
from trainbus_data.curriculum import Beginning, Curriculum, rows_to_begin_with
from trainbus_data.dataset import RowsDataset
from trainbus_data.images.picture import EmbeddedPicture, Picture
from trainbus_data.listed_rows import list_rows, with_good_pictures
from trainbus_data.pipeline_inputs import load_inputs
from trainbus_data.readers.choose import open_reader
from trainbus_data.rows.field_names import look, refuse_absent, refuse_shown_target
from trainbus_data.rows.indexed_rows import IndexedRows, is_large
from trainbus_data.rows.row_checks import RowChecks, required_fields
from trainbus_data.rows.row_sequence import ListedRows
from trainbus_data.rows.sampled_rows import SampledRows
from training.discovery.parts import build_pair
from training.documents.document import Key
from training.errors import ConfigError, did_you_mean
from training.feed.permutation import Permutation
from training.files.named_paths import named_path
from training.recipes.family import ModelFamily
from training.recipes.reader import Reader
from training.recipes.task import Task

__all__ = ["DataPipeline"]

#: Rows of a large set that a vocabulary is learnt from, beside one for each target.
NUM_LEARNT = 100_000
#: Rows of a large set that a family sees before training.
NUM_SHOWN = 2000


class DataPipeline:
    """Read rows, check them and their pictures, and hand out loaders of ``Batch``.

    Args:
        config: a YAML file (the guide's form, or one with a ``data`` section), a
            mapping of the same keys, or a ``DataConfig``.
        processor: what the family takes; by default the family loads it in ``setup``.
        bos_token_id: the token the model's ``generate`` starts an answer from, for
            families that ask; by default that of the model the processor belongs to.
        folder: where synthetic pictures are written, if ``synthetic.folder`` is null.
        task: what rows hold; by default what ``config`` names.
        family: makes batches; by default what ``config`` names.
        device: where the batches will be used. They are pinned for one that is no
            CPU, and may leave work to it (``Batch.deferred``); by default they leave
            none.
        locate: turns a path in a configuration into words, for messages.
    Raises:
        ConfigError: the configuration is wrong.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | Mapping[str, Any] | DataConfig,
        *,
        processor: Any = None,
        bos_token_id: int | None = None,
        folder: str | os.PathLike[str] | None = None,
        task: Task | None = None,
        family: ModelFamily | None = None,
        device: torch.device | None = None,
        locate: Callable[[Key], str] | None = None,
    ) -> None:
        inputs = load_inputs(config)
        self.config = inputs.data
        if task is None or family is None:
            task, family = build_pair(
                inputs.task, inputs.family, inputs.options, inputs.locate
            )
        self.task, self.family = task, family
        self.family.cache_bytes = (
            self.config.cache_mb * MIB // max(1, self.config.num_workers)
        )
        is_copied = device is not None and device.type != "cpu"
        self.family.is_fed_from_host = is_copied
        self._pins = torch.cuda.is_available() and (is_copied or device is None)
        self.processor: Any = None
        self._datasets: dict[str, RowsDataset] | None = None
        self.use_processor(processor, bos_token_id)
        self._locate = locate or inputs.locate
        self._folder = folder
        self._readers: dict[str, Reader] = {}
        self._rows: dict[str, ListedRows | IndexedRows] = {}
        self._first: list[int] | None = None

    def use_processor(self, processor: Any, bos_token_id: int | None = None) -> None:
        """Take another processor, such as one built from ``training_rows``.

        Raises:
            ConfigError: ``setup`` has already used one.
        """
        if self._datasets is not None:
            raise ConfigError("the pipeline is already set up with its processor")
        self.processor = processor
        if bos_token_id is not None:
            self.family.start_token_id = bos_token_id  # type: ignore[attr-defined]

    def setup(self) -> None:
        """Read every configured split, check its pictures, and let the family see it.

        The first 64 MiB of pixels are decoded here, so that a small set's broken
        pictures are named before training; with ``on_bad_row: skip`` all are. Those of
        validation and test must all look whole: no training is lost to one. Of rows
        beyond ``index_above_mb`` only the first are checked, and the family sees 2,000
        drawn by chance. A second call does nothing.

        Raises:
            DataError: a file, a row or a picture cannot be used.
            ConfigError: the processor cannot be loaded.
        """
        if self._datasets is not None:
            return
        rows = {split: self._read(split) for split in self._sources}
        load = getattr(self.family, "load_processor", None)
        if self.processor is None and load is not None:
            self.processor = load()
        datasets: dict[str, RowsDataset] = {}
        for split, part in rows.items():
            self.family.split = ""  # no split's rows are shown to it yet
            if isinstance(part, ListedRows):
                num_rows = len(self._reader(split))
                part = with_good_pictures(
                    part.rows, num_rows, self.family, self.processor, self.config
                )
                self._rows[split] = part
                shown: Sequence[Any] = [row.values for row in part.rows]
            else:
                shown = SampledRows(part, NUM_SHOWN)  # held by nobody: a row at a time
            self.family.split = split
            self.family.prepare(self.processor, shown)
            datasets[split] = RowsDataset(
                part, self.family, self.processor, self._reader(split), split
            )
        self._datasets = datasets
        self._first = None  # some rows may have been left out since

    def get_train_dataloader(self) -> DataLoader[int] | None:
        """Return a loader of training batches, or None without training rows."""
        return self._loader("train")

    def get_val_dataloader(self) -> DataLoader[int] | None:
        """Return a loader of validation batches in file order, or None."""
        return self._loader("validation")

    def get_test_dataloader(self) -> DataLoader[int] | None:
        """Return a loader of test batches in file order, or None."""
        return self._loader("test")

    def rows(self, split: str) -> Sequence[dict[str, Any]]:
        """Return the rows of ``train``, ``validation`` or ``test``; [] if unset.

        Before ``setup`` these are the rows whose values are usable; after it, those
        whose pictures are usable too. None is copied: each is made as it is asked
        for, and those of a large file are read then.

        Raises:
            ConfigError: there is no such split.
            DataError: the file or a row of it cannot be used.
        """
        if split not in SPLITS:
            raise ConfigError(
                f"{split!r} is not a split{did_you_mean(split, SPLITS)}; known here: "
                f"{', '.join(SPLITS)}"
            )
        return self._read(split) if split in self._sources else []

    def num_batches(self, split: str) -> int:
        """Return the batches of a pass over ``split``, from its rows; no processor."""
        # Not divided here: torch says how many batches its loaders give.
        return len(BatchSampler(range(len(self.rows(split))), *self._batching(split)))

    def beginning(self) -> Beginning | None:
        """Return which rows are trained on alone at first; None: all come at once.

        Raises:
            ConfigError: the curriculum chooses no rows.
        """
        if self.config.curriculum is None:
            return None
        chosen, rows = len(self._first_rows()), len(self.rows("train"))
        return Beginning(chosen, rows, self.config.curriculum)

    def training_rows(self) -> Sequence[dict[str, Any]]:
        """Return the rows to learn a vocabulary or label names from; no set-up.

        Of a large file 100,000, drawn by chance, and every target's first.
        """
        rows = self.rows("train")
        if isinstance(rows, IndexedRows):
            return SampledRows(rows, NUM_LEARNT, self.task.target)
        return rows[:]

    def example(self, split: str) -> dict[str, str]:
        """Return the first row of ``split`` as a person would ask it, by field.

        Nothing where its picture stands in the row: no file can be named.
        """
        row = self.rows(split)[0]
        asked = required_fields(self.task, needs_target=False)
        if any(isinstance(row[name], EmbeddedPicture) for name in asked):
            return {}
        return {name: _typed(row[name]) for name in asked}

    def is_indexed(self, split: str) -> bool:
        """Whether the rows of ``split`` are too many to be held in memory."""
        most = self.config.index_above_mb
        return split in self._sources and is_large(self._reader(split), most)

    def _batching(self, split: str) -> tuple[int, bool]:
        """Return the rows of a batch, and whether one that is not full is left out."""
        config = self.config
        if split == "train":
            return config.batch_size, config.drop_last
        return config.eval_batch_size or config.batch_size, False

    @cached_property
    def _sources(self) -> dict[str, Path | dict[str, Any]]:
        """Split -> source; draws the synthetic pictures when it is first asked for."""
        if self.config.synthetic is not None:
            return self._draw(self.config.synthetic)
        found = {s: self.config.path_of(s) or getattr(self.config, s) for s in SPLITS}
        return {split: source for split, source in found.items() if source}

    def _draw(self, synthetic: SyntheticConfig) -> dict[str, Path | dict[str, Any]]:
        from trainbus_data.vqa.synthetic import write_shapes

        if synthetic.folder is None and self._folder is None:
            raise ConfigError(
                "data.synthetic.folder is null and the caller names no folder; say "
                "where the pictures are to be written"
            )
        drawn = write_shapes(
            named_path(synthetic.folder or self._folder or "."),
            synthetic.num_train_images,
            synthetic.num_validation_images,
            synthetic.seed,
            synthetic.about,
        )
        return {"train": drawn / "train.jsonl", "validation": drawn / "val.jsonl"}

    def _reader(self, split: str) -> Reader:
        if split not in self._readers:
            config = self.config
            settings = {"index_above_mb": config.index_above_mb}
            source = self._sources[split]
            reader = open_reader(split, source, settings, self._locate, config.root)
            self._refuse_fields()
            self._readers[split] = reader
        return self._readers[split]

    def _refuse_fields(self) -> None:
        """Refuse names of fields that the task lacks, or that show the target."""
        for field in self.config.fields:
            if field not in self.task.fields:
                raise ConfigError(
                    f"{self._place_of(field)} is no field of the task"
                    f"{did_you_mean(field, self.task.fields)}; its fields are: "
                    f"{', '.join(self.task.fields)}"
                )
        refuse_shown_target(
            self.task.target,
            required_fields(self.task, needs_target=False),
            self.config.fields,
            self._place_of,
        )

    def _place_of(self, field: str) -> str:
        """Return where the configuration names a field of the task."""
        return self._locate(("data", "fields", field))

    def _refuse_absent_fields(self, split: str) -> None:
        """Refuse names of fields that no row of ``split`` has.

        What a row may do without need be in one split only.
        """
        names = dict(self.config.fields)
        needed = required_fields(self.task, needs_target=split != "test")
        if split == "test":
            names.pop(self.task.target, None)
        others = [each for each in self._sources if each != split]
        for field, other in self.task.instead.items():
            if field in needed and field not in names:
                there = look(self._reader(split), [names.get(other, other)])
                needed = [n for n in needed if n != field or there.absent]
        wanted = [*names.values(), *(name for name in needed if name not in names)]
        refuse_absent(
            look(self._reader(split), wanted),
            needed,
            names,
            self._place_of,
            lambda name: any(
                not look(self._reader(each), [name]).absent for each in others
            ),
        )

    def _read(self, split: str) -> ListedRows | IndexedRows:
        if split not in self._rows:
            config, reader = self.config, self._reader(split)
            self._refuse_absent_fields(split)
            is_held = not self.is_indexed(split)
            checks = RowChecks(
                self.task,
                reader.root,
                config.root,
                config.fields,
                config.max_image_pixels,
                is_whole=is_held,
                needs_target=split != "test",
            )
            if is_held:
                # Rows that a run is judged by are met when an epoch has been trained;
                # ``skip`` decodes all before that.
                looks = split != "train" and config.on_bad_row == "error"
                self._rows[split] = list_rows(reader, checks, config, looks)
            else:
                self._rows[split] = IndexedRows(
                    reader, checks, config.on_bad_row, config.max_bad_fraction
                )
        return self._rows[split]

    def _loader(self, split: str) -> DataLoader[int] | None:
        if self._datasets is None:
            raise ConfigError("the pipeline is not set up; call setup() first")
        dataset = self._datasets.get(split)
        if dataset is None:
            return None
        num_workers = self.config.num_workers
        batch_size, drop_last = self._batching(split)
        is_shuffled = split == "train" and self.config.shuffle
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=self._order(len(dataset)) if is_shuffled else None,
            drop_last=drop_last,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            timeout=self.config.worker_timeout if num_workers else 0,
            collate_fn=dataset.collate,
            pin_memory=self._pins,
        )

    def _order(self, length: int) -> Permutation:
        if self.config.curriculum is None:
            return Permutation(length)
        return Curriculum(length, self._first_rows(), self.config.curriculum.epochs)

    def _first_rows(self) -> list[int]:
        """Return the indices of the rows to begin with; reads all rows once."""
        if self._first is None:
            config = self.config.curriculum
            assert config is not None
            rows, fields = self.rows("train"), self.task.fields
            self._first = rows_to_begin_with(rows, config, fields, self._locate)
        return self._first


def _typed(value: Any) -> str:
    """Return a value as a person types it: a file from the working directory."""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return os.path.relpath(value.key) if isinstance(value, Picture) else str(value)
