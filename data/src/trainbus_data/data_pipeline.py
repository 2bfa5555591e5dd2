"""From a configuration to the loaders of a visual question answering data set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import BatchSampler, DataLoader

from trainbus_data.images.pixels import MIB
from trainbus_data.pipeline_inputs import (
    how_to_get,
    load_config,
    load_processor,
    start_token_of,
)
from trainbus_data.rows.indexed_rows import IndexedRows
from trainbus_data.rows.reading import Row
from trainbus_data.vqa.dataset import IndexedVQADataset, VQADataset
from trainbus_data.vqa.listed_rows import (
    list_rows,
    make_store,
    make_tables,
    with_good_images,
)
from trainbus_data.vqa.streamed import StreamedPixels, StreamedTokens
from training.errors import ConfigError, DataError, did_you_mean
from training.feed.permutation import Permutation
from training.files.named_paths import named_path

if TYPE_CHECKING:
    from trainbus_data.config import DataConfig

__all__ = ["DataPipeline"]

SPLITS = ("train", "validation", "test")
#: Rows of a large file that a vocabulary is learnt from.
NUM_TEXT_ROWS = 100_000


class DataPipeline:
    """Read rows, check images, and hand out loaders of ``VQABatch``.

    Args:
        config: a YAML file (the guide's form, or one with a ``data`` section), a
            mapping of the same keys, or a ``DataConfig``.
        processor: image processor and tokenizer in one; by default the one that
            ``config.processor`` names, loaded in ``setup``.
        bos_token_id: the token the model's ``generate`` starts an answer from; by
            default that of the configuration of the model named ``config.processor``.
        folder: where synthetic pictures are written, if ``synthetic.folder`` is null.
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
    ) -> None:
        self.config = load_config(config)
        self.processor = processor
        self.bos_token_id = bos_token_id
        self._folder = folder
        self._files: dict[str, Path] | None = None
        self._rows: dict[str, list[Row] | IndexedRows] = {}
        self._pixels: StreamedPixels | None = None
        self._datasets: dict[str, VQADataset] | None = None

    def use_processor(self, processor: Any, bos_token_id: int | None = None) -> None:
        """Take another processor, such as one built from ``training_texts``.

        Raises:
            ConfigError: ``setup`` has already used one.
        """
        if self._datasets is not None:
            raise ConfigError("the pipeline is already set up with its processor")
        self.processor = processor
        self.bos_token_id = bos_token_id

    def setup(self) -> None:
        """Read every configured file, check its images and tokenise its texts.

        The first 64 MiB of pixels are decoded here, so that a small set's broken images
        are named before training; with ``on_bad_row: skip`` all are. Of a file beyond
        ``index_above_mb`` only the first rows are checked. A second call does nothing.

        Raises:
            DataError: a file, a row or an image cannot be used.
            ConfigError: the processor cannot be loaded.
        """
        if self._datasets is not None:
            return
        files = self._resolve_files()
        rows = {split: self._read(split) for split in files}
        if self.processor is None:
            self.processor = load_processor(self.config.processor)
        if self.bos_token_id is None:
            self.bos_token_id = start_token_of(self.config.processor, self.processor)
        listed = {name: part for name, part in rows.items() if isinstance(part, list)}
        images = dict.fromkeys(r.image_path for part in listed.values() for r in part)
        store = make_store(list(images), self.processor, self.config)
        datasets: dict[str, VQADataset] = {}
        for split, part in rows.items():
            if isinstance(part, list):
                part = with_good_images(files[split], part, store, self.config)
                self._rows[split] = part
                datasets[split] = make_tables(
                    files[split],
                    part,
                    store,
                    self.processor,
                    self.bos_token_id,
                    self.config,
                )
            else:
                datasets[split] = self._indexed(part, self.bos_token_id)
        self._datasets = datasets

    def get_train_dataloader(self) -> DataLoader[int] | None:
        """Return a loader of training batches, or None without training rows."""
        return self._loader("train", self.config.batch_size, self.config.shuffle)

    def get_val_dataloader(self) -> DataLoader[int] | None:
        """Return a loader of validation batches in file order, or None."""
        return self._loader("validation", self._eval_batch_size, shuffle=False)

    def get_test_dataloader(self) -> DataLoader[int] | None:
        """Return a loader of test batches in file order, or None."""
        return self._loader("test", self._eval_batch_size, shuffle=False)

    def rows(self, split: str) -> Sequence[dict[str, Any]]:
        """Return the rows of ``train``, ``validation`` or ``test``; [] if unset.

        Before ``setup`` these are the rows whose text is usable; after it, those whose
        image is usable too. Those of a large file are read as they are asked for.

        Raises:
            ConfigError: there is no such split.
            DataError: the file or a row of it cannot be used.
        """
        if split not in SPLITS:
            raise ConfigError(
                f"{split!r} is not a split{did_you_mean(split, SPLITS)}; known here: "
                f"{', '.join(SPLITS)}"
            )
        if split not in self._resolve_files():
            return []
        rows = self._read(split)
        return [row.as_dict() for row in rows] if isinstance(rows, list) else rows

    def num_batches(self, split: str) -> int:
        """Return the batches of a pass over ``split``, from its rows; no processor."""
        size = self.config.batch_size if split == "train" else self._eval_batch_size
        drops = self.config.drop_last and split == "train"
        # Not divided here: torch says how many batches its loaders give.
        return len(BatchSampler(range(len(self.rows(split))), size, drops))

    def image_path(self, split: str, index: int) -> Path:
        """Return the image file of the row that ``rows(split)[index]`` shows."""
        rows = self._read(split)
        row = rows[index] if isinstance(rows, list) else rows.row(index)
        return Path(row.image_path)

    def training_texts(self) -> list[str]:
        """Return the questions and answers to learn a vocabulary from; no set-up.

        Of a large file 100,000 rows give theirs, evenly spread.
        """
        rows = self.rows("train")
        step = max(1, len(rows) // NUM_TEXT_ROWS) if self.is_indexed("train") else 1
        some = [rows[index] for index in range(0, len(rows), step)]
        return [row["question"] for row in some] + [row["answer"] for row in some]

    def is_indexed(self, split: str) -> bool:
        """Whether the file of ``split`` is too large to be held in memory."""
        path = self._resolve_files().get(split)
        limit = self.config.index_above_mb * MIB
        return path is not None and path.is_file() and path.stat().st_size > limit

    @property
    def _eval_batch_size(self) -> int:
        return self.config.eval_batch_size or self.config.batch_size

    def _resolve_files(self) -> dict[str, Path]:
        """Return split -> file; draws the synthetic pictures at the first call."""
        if self._files is None:
            synthetic = self.config.synthetic
            if synthetic is None:
                found = {split: self.config.path_of(split) for split in SPLITS}
                self._files = {key: path for key, path in found.items() if path}
            else:
                from trainbus_data.vqa.synthetic import write_shapes

                drawn = write_shapes(
                    self._synthetic_folder(),
                    synthetic.num_train_images,
                    synthetic.num_validation_images,
                    synthetic.seed,
                )
                self._files = {
                    "train": drawn / "train.jsonl",
                    "validation": drawn / "val.jsonl",
                }
        return self._files

    def _synthetic_folder(self) -> Path:
        folder = self.config.synthetic.folder if self.config.synthetic else None
        if folder is None and self._folder is None:
            raise ConfigError(
                "data.synthetic.folder is null and the caller names no folder; say "
                "where the pictures are to be written"
            )
        return named_path(folder or self._folder or ".")

    def _read(self, split: str) -> list[Row] | IndexedRows:
        if split not in self._rows:
            path, config = self._resolve_files()[split], self.config
            if not path.is_file():
                raise DataError(how_to_get(split, path))
            if self.is_indexed(split):
                self._rows[split] = IndexedRows(
                    path, config.root, config.on_bad_row, config.max_bad_fraction
                )
            else:
                self._rows[split] = list_rows(path, config)
        return self._rows[split]

    def _indexed(self, rows: IndexedRows, start_token_id: int) -> IndexedVQADataset:
        config, tokenizer = self.config, self.processor.tokenizer
        if self._pixels is None:
            self._pixels = StreamedPixels(
                self.processor.image_processor,
                config.cache_mb,
                config.max_image_pixels,
                config.image_size,
                config.num_workers,
            )
        questions = StreamedTokens(tokenizer, config.max_question_length)
        answers = StreamedTokens(tokenizer, config.max_answer_length)
        return IndexedVQADataset(rows, self._pixels, questions, answers, start_token_id)

    def _loader(
        self, split: str, batch_size: int, shuffle: bool
    ) -> DataLoader[int] | None:
        if self._datasets is None:
            raise ConfigError("the pipeline is not set up; call setup() first")
        dataset = self._datasets.get(split)
        if dataset is None:
            return None
        num_workers = self.config.num_workers
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=Permutation(len(dataset)) if shuffle else None,
            drop_last=self.config.drop_last and split == "train",
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            timeout=self.config.worker_timeout if num_workers else 0,
            collate_fn=dataset.collate,
            pin_memory=torch.cuda.is_available(),
        )
