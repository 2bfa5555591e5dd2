"""Pixels and tokens of rows that nobody has listed: made when a batch needs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainbus_data.images.pixels import MIB, PixelStore

__all__ = ["StreamedPixels", "StreamedTokens"]

#: Distinct texts whose tokens are remembered, in each process.
MAX_TEXTS = 1 << 16


class StreamedPixels(PixelStore):
    """Images by path as normalised float32 batches; the first to come stay cached.

    As in ``PixelStore`` nothing is evicted. Each process that makes batches holds its
    own, so the bound is divided among them.

    Args:
        image_processor: a processor as AutoProcessor loads it.
        cache_mb: bound of the cache in MiB, over all processes.
        max_pixels: an image with more is refused before it is decoded.
        image_size: side in pixels to resize to instead of the processor's own size.
        num_processes: processes that make batches.
    Raises:
        ConfigError: the processor gives images of differing shapes.
    """

    def __init__(
        self,
        image_processor: Any,
        cache_mb: int,
        max_pixels: int,
        image_size: int | None = None,
        num_processes: int = 1,
    ) -> None:
        super().__init__([], image_processor, cache_mb, max_pixels, image_size)
        nbytes = int(np.prod(self.shape))
        self._most = cache_mb * MIB // nbytes // max(1, num_processes)
        self._kept: dict[str, npt.NDArray[np.uint8]] = {}

    def get_paths(self, paths: Sequence[str]) -> Tensor:
        """Return normalised pixels (B, 3, H, W), float32.

        Raises:
            ImageFault: an image cannot be decoded; ``number`` is its place.
        """
        batch = np.empty((len(paths), *self.shape), dtype=np.uint8)
        for place, path in enumerate(paths):
            pixels = self._kept.get(path)
            if pixels is None:
                pixels = self.decode(path, place)
                if len(self._kept) < self._most:
                    self._kept[path] = pixels
            batch[place] = pixels
        return self.normalise(batch)


class StreamedTokens:
    """Tokens of texts, all of one length; the latest distinct texts are remembered.

    Args:
        tokenizer: as AutoProcessor loads it.
        max_length: tokens kept, special ones included; longer texts are cut.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._kept: dict[str, tuple[list[int], list[int]]] = {}

    def of(self, texts: Sequence[str], trim: bool = False) -> tuple[Tensor, Tensor]:
        """Return tokens and mask of some texts, each (B, max_length), int64.

        Args:
            texts: B texts.
            trim: cut the columns that are padding in every one of them.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._kept]
        if len(self._kept) + len(new) > MAX_TEXTS:
            self._kept.clear()
            new = list(dict.fromkeys(texts))
        if new:
            made = self._tokenizer(
                new,
                padding="max_length",
                max_length=self._max_length,
                truncation=True,
            )
            pairs = zip(made["input_ids"], made["attention_mask"], strict=True)
            self._kept.update(zip(new, pairs, strict=True))
        ids = torch.tensor([self._kept[text][0] for text in texts])
        mask = torch.tensor([self._kept[text][1] for text in texts])
        if trim:
            width = int(mask.sum(dim=1).max())
            ids, mask = ids[:, :width], mask[:, :width]
        return ids, mask
