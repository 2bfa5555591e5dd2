"""Resized pixels of each picture, kept as bytes within a stated bound.

What an image processor does is split in two: its resizing, once per picture, and its
rescaling and normalising, once per batch. The second is taken from the processor by
showing it all 256 byte values, so that the result is its own to the last bit.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
    """Pictures as batches of bytes; the first to come stay in memory.

    When it is full nothing is evicted: under a fresh shuffle each epoch the share of
    hits is then the share of pictures that fit, which no eviction order beats. A
    process that is forked goes on from what was kept before; one that is spawned, or a
    copy, starts empty.

    Attributes:
        shape: (3, H, W) of each.
        normalise: what makes the processor's float32 of such bytes, on any device.

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
        side = {"height": image_size, "width": image_size}
        self._size = {} if image_size is None else {"size": side}
        self.shape = self._probe_shape()
        self.normalise = Normalisation.of(image_processor, self._read_table())
        #: Pictures that are kept, at most.
        self.num_slots = num_bytes // int(np.prod(self.shape))
        self._kept: dict[Hashable, npt.NDArray[np.uint8]] = {}

    def get(self, pictures: Sequence[Picture]) -> Tensor:
        """Return pixels (B, 3, H, W), uint8.

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
        return torch.from_numpy(batch)

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

    def _read_table(self) -> npt.NDArray[np.float32]:
        """Return what the processor makes of each byte, (3, 256), float32.

        Of a ramp, and then of one colour each: a resize may swallow what is in a ramp.
        """
        table = np.full((self.shape[0], 256), np.nan, dtype=np.float32)
        self._read_off(table, np.arange(256, dtype=np.uint8))
        for byte in np.flatnonzero(np.isnan(table).any(axis=0)):
            self._read_off(table, np.array([byte], dtype=np.uint8))
            if np.isnan(table[:, byte]).any():
                raise ConfigError(
                    f"a picture whose bytes are all {byte} comes out of the processor "
                    "without that byte, or as NaN, so its normalisation cannot be "
                    "read; use another processor"
                )
        return table

    def _read_off(
        self, table: npt.NDArray[np.float32], grey: npt.NDArray[np.uint8]
    ) -> None:
        """Write into ``table`` what becomes of the bytes of a picture of ``grey``."""
        channels, height, width = self.shape
        image = np.repeat(np.resize(grey, (height, width, 1)), channels, axis=2)
        before = self._resize(image)
        out = self._processor(images=image, return_tensors="np", **self._size)
        after = np.asarray(out["pixel_values"][0], dtype=np.float32)
        for values, bytes_, numbers in zip(table, before, after, strict=True):
            values[bytes_] = numbers
            if not np.array_equal(values[bytes_], numbers, equal_nan=True):
                raise ConfigError(
                    "the processor makes differing numbers of one byte of a picture, "
                    "so its normalisation cannot be read; use a processor that "
                    "normalises each byte alike"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Bytes (B, 3, H, W) to float32 as a processor does it, in a few vector passes.

    Where ``(x / 255 - mean) / std`` in float32 gives the processor's 256 values per
    channel exactly it is used; otherwise each byte is looked up in those values. It
    holds no tensor, so that to pickle it with each batch costs next to nothing.

    Attributes:
        by: mean and standard deviation of each channel; or the processor's values (3,
            256), float32, to look up in.
    """

    by: tuple[tuple[float, ...], tuple[float, ...]] | bytes

    @classmethod
    def of(cls, processor: Any, table: npt.NDArray[np.float32]) -> Normalisation:
        """Return that of ``processor``, which makes ``table`` (3, 256) of each byte."""
        mean = getattr(processor, "image_mean", None)
        std = getattr(processor, "image_std", None)
        if mean is not None and std is not None:
            by_formula = cls((tuple(map(float, mean)), tuple(map(float, std))))
            ramp = torch.arange(256, dtype=torch.uint8).expand(1, len(table), 1, 256)
            if torch.equal(by_formula(ramp)[0, :, 0], torch.from_numpy(table)):
                return by_formula
        return cls(table.tobytes())

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return normalised pixels, (B, 3, H, W), float32, on the same device."""
        if isinstance(self.by, bytes):
            table = _on_device(self.by, pixels.device)
            channels = [values[pixels[:, c].long()] for c, values in enumerate(table)]
            return torch.stack(channels, dim=1)
        most, mean, std = _constants(*self.by, pixels.device)
        # A number in place of `most` would be multiplied by 1 / 255 on CUDA.
        return pixels.to(torch.float32).div_(most).sub_(mean).div_(std)


@lru_cache(maxsize=32)
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, ...]:
    """Return 255, mean and std as (3, 1, 1) on a device: the CPU waits, but once."""
    rows = ((255.0,) * len(mean), mean, std)
    return tuple(
        torch.tensor(row, dtype=torch.float32, device=device).view(-1, 1, 1)
        for row in rows
    )


@lru_cache(maxsize=32)
def _on_device(table: bytes, device: torch.device) -> Tensor:
    """Return a table (3, 256) on a device: the CPU waits, but once."""
    values = torch.frombuffer(bytearray(table), dtype=torch.float32)
    return values.view(-1, 256).to(device)
