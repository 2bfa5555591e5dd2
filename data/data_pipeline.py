"""From a configuration to the loaders of a visual question answering data set."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import BatchSampler, DataLoader

from data.images import ImageFault
from data.pixels import PixelStore
from data.rows import BadRow, Row, read_rows, settle_bad_rows
from data.sources import how_to_get, load_config, load_processor, start_token_of
from data.tokens import TokenTable
from data.vqa_dataset import VQADataset
from training.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from training.app.data_config import DataConfig

__all__ = ["DataPipeline"]

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


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
        self._rows: dict[str, list[Row]] = {}
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
        are named before training; with ``on_bad_row: skip`` all are. A second call
        does nothing.

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
        images = dict.fromkeys(row.image_path for part in rows.values() for row in part)
        numbers = {path: number for number, path in enumerate(images)}
        store = self._make_store(list(images))
        for split, part in rows.items():
            rows[split] = self._without_bad_images(split, part, store, numbers)
        self._rows = rows
        self._datasets = {
            split: self._make_dataset(split, store, numbers) for split in files
        }

    def get_train_dataloader(self) -> DataLoader[int] | None:
        """Return a loader of training batches, or None without training rows."""
        return self._loader("train", self.config.batch_size, self.config.shuffle)

    def get_val_dataloader(self) -> DataLoader[int] | None:
        """Return a loader of validation batches in file order, or None."""
        return self._loader("validation", self._eval_batch_size, shuffle=False)

    def get_test_dataloader(self) -> DataLoader[int] | None:
        """Return a loader of test batches in file order, or None."""
        return self._loader("test", self._eval_batch_size, shuffle=False)

    def rows(self, split: str) -> list[dict[str, Any]]:
        """Return the rows of ``train``, ``validation`` or ``test``; [] if unset.

        Before ``setup`` these are the rows whose text is usable; after it, those whose
        image is usable too.

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
        return [row.as_dict() for row in self._read(split)]

    def num_batches(self, split: str) -> int:
        """Return the batches of a pass over ``split``, from its rows; no processor."""
        size = self.config.batch_size if split == "train" else self._eval_batch_size
        drops = self.config.drop_last and split == "train"
        # Not divided here: torch says how many batches its loaders give.
        return len(BatchSampler(range(len(self.rows(split))), size, drops))

    def image_path(self, split: str, index: int) -> Path:
        """Return the image file of the row that ``rows(split)[index]`` shows."""
        return Path(self._read(split)[index].image_path)

    def training_texts(self) -> list[str]:
        """Return the questions and answers to learn a vocabulary from; no set-up."""
        rows = self.rows("train")
        return [row["question"] for row in rows] + [row["answer"] for row in rows]

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
                from data.synthetic import write_shapes

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
        return Path(folder or self._folder or ".")

    def _read(self, split: str) -> list[Row]:
        if split not in self._rows:
            path = self._resolve_files()[split]
            if not path.is_file():
                raise DataError(how_to_get(split, path))
            rows, bad = read_rows(path, self.config.root)
            bad += _rows_without_image(rows, path)
            self._rows[split] = self._settle(rows, bad)
        return self._rows[split]

    def _settle(self, rows: list[Row], bad: list[BadRow]) -> list[Row]:
        lines = {row.line for row in rows} | {row.line for row in bad}
        bad.sort(key=lambda row: row.line)
        config = self.config
        settle_bad_rows(bad, len(lines), config.on_bad_row, config.max_bad_fraction)
        unusable = {row.line for row in bad}
        return [row for row in rows if row.line not in unusable]

    def _make_store(self, images: list[str]) -> PixelStore:
        return PixelStore(
            images,
            self.processor.image_processor,
            self.config.cache_mb,
            self.config.max_image_pixels,
            self.config.image_size,
        )

    def _without_bad_images(
        self,
        split: str,
        rows: list[Row],
        store: PixelStore,
        numbers: Mapping[str, int],
    ) -> list[Row]:
        """Decode the first images, or all of them under ``skip``."""
        should_decode_all = self.config.on_bad_row == "skip"
        faults: dict[str, str] = {}
        for path in dict.fromkeys(row.image_path for row in rows):
            number = numbers[path]
            if should_decode_all or number < store.num_eager:
                try:
                    store.load(number)
                except ImageFault as fault:
                    faults[path] = str(fault)
        file = self._resolve_files()[split]
        bad = [
            BadRow(file, row.line, f"image {row.image!r} {faults[row.image_path]}")
            for row in rows
            if row.image_path in faults
        ]
        return self._settle(rows, bad)

    def _make_dataset(
        self, split: str, store: PixelStore, numbers: Mapping[str, int]
    ) -> VQADataset:
        rows, config = self._rows[split], self.config
        tokenizer = self.processor.tokenizer
        questions = TokenTable(
            [row.question for row in rows],
            tokenizer,
            config.max_question_length,
            "question",
        )
        answers = TokenTable(
            [row.answer for row in rows], tokenizer, config.max_answer_length, "answer"
        )
        assert self.bos_token_id is not None
        return VQADataset(
            rows,
            self._resolve_files()[split],
            store,
            [numbers[row.image_path] for row in rows],
            questions,
            answers,
            self.bos_token_id,
        )

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
            shuffle=shuffle,
            drop_last=self.config.drop_last and split == "train",
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            collate_fn=dataset.collate,
            pin_memory=torch.cuda.is_available(),
        )


def _rows_without_image(rows: list[Row], path: Path) -> list[BadRow]:
    is_there = {image: os.path.isfile(image) for image in {r.image_path for r in rows}}
    return [
        BadRow(path, row.line, f"image {row.image!r} does not exist")
        for row in rows
        if not is_there[row.image_path]
    ]
