"""Open image files completely, as upright RGB, within a bound on their size."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["ImageFault", "open_rgb"]

#: Modes that hold 16 or 32 bits a pixel, which Pillow would clip and not scale.
DEEP_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})


class ImageFault(Exception):
    """Why an image cannot be used; the caller knows its name and its row.

    Args:
        reason: a phrase that goes on from the image's name.
        number: which of several images it is.
    """

    def __init__(self, reason: str, number: int = -1) -> None:
        super().__init__(reason)
        self.number = number


def open_rgb(path: str | Path, max_pixels: int) -> Image.Image:
    """Return the decoded image in mode RGB, turned as its EXIF tag asks.

    Of an animation the first frame is taken; transparency is dropped; 16-bit grey is
    scaled to 8 bits.

    Args:
        path: any file.
        max_pixels: width times height that is still decoded; checked before decoding.
    Raises:
        ImageFault: missing, no image, cut short, or too large.
    """
    try:
        with warnings.catch_warnings():
            # Pillow only warns of up to 179 million pixels, where our limit refuses,
            # and of oddities in files that it then decodes or refuses.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                _check_size(image.size, max_pixels)
                image.load()  # verify() would pass a JPEG that is cut short
                return _to_rgb(ImageOps.exif_transpose(image))
    except (ImageFault, MemoryError):
        raise
    except FileNotFoundError as error:
        raise ImageFault("does not exist") from error
    except UnidentifiedImageError as error:
        raise ImageFault(_what_it_is(path)) from error
    except Image.DecompressionBombError as error:
        raise ImageFault(f"has more than {max_pixels} pixels") from error
    except Exception as error:
        # On damaged files Pillow's decoders raise a dozen types, struct.error and
        # KeyError among them.
        raise ImageFault(f"cannot be decoded: {error}") from error


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageFault(
            f"has {width} x {height} pixels, more than data.max_image_pixels "
            f"{max_pixels}"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in DEEP_MODES:
        grey = np.asarray(image).astype(np.int64)
        shift = 8 if grey.max(initial=0) > 255 else 0
        image = Image.fromarray(np.clip(grey >> shift, 0, 255).astype(np.uint8))
    return image.convert("RGB")


def _what_it_is(path: str | Path) -> str:
    with open(path, "rb") as file:
        start = file.read(16)
    if not start:
        return "is an empty file"
    return f"is no image; it starts with {start!r}"
