"""Resized pixels of each unique image, kept as bytes within a stated bound.

What an image processor does is split in two: its resizing, once per image, and its
rescaling and normalising, once per batch. The second is taken from the processor by
showing it all 256 byte values, so that the result is its own to the last bit.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainbus_data.images.open_image import ImageFault, open_rgb
from training.errors import ConfigError

__all__ = ["PixelStore"]

MIB = 1 << 20
EAGER_BYTES = 64 * MIB


class PixelStore:
    """Images by index as normalised float32 batches; the first to come stay cached.

    At most ``cache_mb`` MiB are held. When they are full nothing is evicted: under a
    fresh shuffle each epoch the share of hits is then the share of images that fit,
    which no eviction order beats. The memory is shared with worker processes
    that are forked; workers that are spawned each hold their own.

    Args:
        paths: image files; the position is the index.
        image_processor: a processor as AutoProcessor loads it.
        cache_mb: bound of the cache in MiB; 0 keeps nothing.
        max_pixels: an image with more is refused before it is decoded.
        image_size: side in pixels to resize to instead of the processor's own size.
    Raises:
        ConfigError: the processor gives images of differing shapes.
    """

    def __init__(
        self,
        paths: Sequence[str],
        image_processor: Any,
        cache_mb: int,
        max_pixels: int,
        image_size: int | None = None,
    ) -> None:
        self.paths = list(paths)
        self._processor = image_processor
        self._max_pixels = max_pixels
        self._size = (
            {}
            if image_size is None
            else {"size": {"height": image_size, "width": image_size}}
        )
        self.shape = self._probe_shape()
        self._normalise = _Normaliser(image_processor, self._read_table())
        nbytes = int(np.prod(self.shape))
        self.num_slots = min(len(self.paths), cache_mb * MIB // nbytes)
        #: How many images a pipeline decodes ahead: 64 MiB take a second or two.
        self.num_eager = min(self.num_slots, EAGER_BYTES // nbytes)
        self._allocate()

    def get(self, indices: Sequence[int]) -> Tensor:
        """Return normalised pixels (B, 3, H, W), float32.

        Raises:
            ImageFault: an image cannot be decoded; ``number`` is its index.
        """
        batch = np.empty((len(indices), *self.shape), dtype=np.uint8)
        for row, index in enumerate(indices):
            if index < self.num_slots and self._is_filled[index]:
                batch[row] = self._slots[index]
            else:
                batch[row] = self.load(index)
        return self.normalise(batch)

    def load(self, index: int) -> npt.NDArray[np.uint8]:
        """Decode and resize one image to (3, H, W) bytes; keep it if a slot is left."""
        pixels = self.decode(self.paths[index], index)
        if index < self.num_slots:
            self._slots[index] = pixels
            self._is_filled[index] = 1  # after the pixels: another process may look
        return pixels

    def decode(self, path: str, number: int) -> npt.NDArray[np.uint8]:
        """Return an image file as (3, H, W) bytes, decoded and resized.

        Raises:
            ImageFault: it cannot be decoded; its ``number`` is this one.
        """
        try:
            pixels = self._resize(open_rgb(path, self._max_pixels))
            if pixels.shape != self.shape:
                raise ImageFault(
                    f"became {pixels.shape}, not {self.shape}, when resized"
                )
        except ImageFault as fault:
            raise ImageFault(str(fault), number) from fault
        return pixels

    def normalise(self, batch: npt.NDArray[np.uint8]) -> Tensor:
        """Return bytes (B, 3, H, W) as the processor's float32."""
        return self._normalise(torch.from_numpy(batch))

    def _allocate(self) -> None:
        # Anonymous shared pages: not bounded by /dev/shm, not committed until used.
        nbytes = int(np.prod(self.shape))
        total = max(1, self.num_slots * (nbytes + 1))
        memory = np.frombuffer(mmap.mmap(-1, total), dtype=np.uint8)
        used = self.num_slots * nbytes
        self._slots = memory[:used].reshape(self.num_slots, *self.shape)
        self._is_filled = memory[used : used + self.num_slots]

    def _resize(self, image: Any) -> npt.NDArray[np.uint8]:
        out = self._processor(
            images=image,
            do_rescale=False,
            do_normalize=False,
            return_tensors="np",
            **self._size,
        )
        pixels: npt.NDArray[np.uint8] = out["pixel_values"][0]
        return pixels

    def _probe_shape(self) -> tuple[int, ...]:
        """Return (3, H, W), and refuse a processor that keeps the aspect ratio."""
        shapes = set()
        for height, width in ((40, 60), (60, 40)):
            blank = np.zeros((height, width, 3), dtype=np.uint8)
            pixels = self._resize(blank)
            if pixels.dtype != np.uint8:
                raise ConfigError(
                    f"data.processor resizes to {pixels.dtype}, not to bytes; use a "
                    "processor whose rescaling comes after resizing, as BLIP's does"
                )
            shapes.add(pixels.shape)
        if len(shapes) > 1:
            raise ConfigError(
                "data.processor gives images of differing shapes; set data.image_size "
                "to the model's image size in pixels"
            )
        return shapes.pop()

    def _read_table(self) -> Tensor:
        """Return what the processor makes of each byte, (3, 256), float32."""
        channels, height, width = self.shape
        flat = np.resize(np.arange(256, dtype=np.uint8), (height, width, 1))
        image = np.repeat(flat, channels, axis=2)
        before = self._resize(image)
        out = self._processor(images=image, return_tensors="np", **self._size)
        after = np.asarray(out["pixel_values"][0], dtype=np.float32)
        table = np.full((channels, 256), np.nan, dtype=np.float32)
        for channel in range(channels):
            table[channel, before[channel]] = after[channel]
        if np.isnan(table).any():
            raise ConfigError(
                f"images of {height} x {width} pixels are too small to read the "
                "processor's normalisation from; use at least 16 x 16"
            )
        return torch.from_numpy(table)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_slots"], state["_is_filled"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._allocate()


class _Normaliser:
    """Bytes (B, 3, H, W) to float32 as the processor does it, in a few vector passes.

    Where ``(x / 255 - mean) / std`` in float32 gives the processor's 256 values per
    channel exactly it is used; otherwise each byte is looked up in those values.
    """

    def __init__(self, processor: Any, table: Tensor) -> None:
        self._table = table
        mean = getattr(processor, "image_mean", None)
        std = getattr(processor, "image_std", None)
        self._mean = self._std = None
        if mean is not None and std is not None:
            self._mean = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
            self._std = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1)
            ramp = torch.arange(256, dtype=torch.uint8).expand(1, len(table), 1, 256)
            if not torch.equal(self(ramp)[0, :, 0], table):
                self._mean = self._std = None

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return normalised pixels, (B, 3, H, W), float32."""
        if self._mean is not None and self._std is not None:
            scaled = pixels.to(torch.float32).div_(255.0)
            return scaled.sub_(self._mean).div_(self._std)
        channels = [table[pixels[:, c].long()] for c, table in enumerate(self._table)]
        return torch.stack(channels, dim=1)
