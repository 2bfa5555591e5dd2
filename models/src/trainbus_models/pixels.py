"""Resized pixels of each picture, kept as bytes within a stated bound.

What an image processor does is split in two: its resizing, once per picture, and its
rescaling and normalising, once per batch. The second is taken from the processor by
showing it all 256 byte values, so that the result is its own to the last bit.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.errors import ConfigError

__all__ = ["PixelCache"]


class Picture(Protocol):
    """What a row has for a field of that kind."""

    key: Hashable

    def open(self) -> Any:
        """Return the picture as Pillow has it, mode RGB."""

    def fault(self, reason: str) -> Exception:
        """Return the error that names the picture; ``reason`` goes on from its name."""


class PixelCache:
    """Pictures as normalised float32 batches; the first to come stay in memory.

    When it is full nothing is evicted: under a fresh shuffle each epoch the share of
    hits is then the share of pictures that fit, which no eviction order beats. A
    process that is forked goes on from what was kept before; one that is spawned, or a
    copy, starts empty.

    Args:
        image_processor: a processor as AutoProcessor loads it.
        num_bytes: bound of what is kept; 0 keeps nothing.
        image_size: side in pixels to resize to instead of the processor's own size.
    Raises:
        ConfigError: the processor gives pictures of differing shapes.
    """

    def __init__(
        self, image_processor: Any, num_bytes: int, image_size: int | None = None
    ) -> None:
        self._processor = image_processor
        self._size = (
            {}
            if image_size is None
            else {"size": {"height": image_size, "width": image_size}}
        )
        self.shape = self._probe_shape()
        self._normalise = _Normaliser(image_processor, self._read_table())
        #: Pictures that are kept, at most.
        self.num_slots = num_bytes // int(np.prod(self.shape))
        self._kept: dict[Hashable, npt.NDArray[np.uint8]] = {}

    def get(self, pictures: Sequence[Picture]) -> Tensor:
        """Return normalised pixels (B, 3, H, W), float32.

        Raises:
            Exception: that of a picture that cannot be decoded.
        """
        batch = np.empty((len(pictures), *self.shape), dtype=np.uint8)
        for place, picture in enumerate(pictures):
            pixels = self._kept.get(picture.key)
            if pixels is None:
                pixels = self._decode(picture)
                if len(self._kept) < self.num_slots:
                    self._kept[picture.key] = pixels
            batch[place] = pixels
        return self._normalise(torch.from_numpy(batch))

    def _decode(self, picture: Picture) -> npt.NDArray[np.uint8]:
        """Return a picture as (3, H, W) bytes, decoded and resized."""
        pixels = self._resize(picture.open())
        if pixels.shape != self.shape:
            raise picture.fault(
                f"became {pixels.shape}, not {self.shape}, when resized"
            )
        return pixels

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
                    f"the processor resizes to {pixels.dtype}, not to bytes; use a "
                    "processor whose rescaling comes after resizing, as BLIP's does"
                )
            shapes.add(pixels.shape)
        if len(shapes) > 1:
            raise ConfigError(
                "the processor gives images of differing shapes; set model.image_size "
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
        state["_kept"] = {}
        return state


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
