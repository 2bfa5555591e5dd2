"""Open image files completely, as upright RGB, within a bound on their size."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from training.files.named_paths import open_file

__all__ = ["ImageFault", "looks_whole", "open_rgb"]

#: What is decoded: no decoder beyond these need be trusted with a file.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
#: Modes that hold 16 or 32 bits a pixel, which Pillow would clip and not scale.
DEEP_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
#: Modes with transparency, beside what a palette or a colour key may say.
CLEAR_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
#: White of 16 bits, and what no picture that uses 16 bits stays below: one that does
#: holds 8, 10 or 12 bits, and would be nearly black.
WHITE, DARKEST = 65535, 4096
#: Format -> what its files end with; behind that cameras and servers write more.
ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND", "GIF": b"\0;"}
TAIL = 1024


class ImageFault(Exception):
    """Why an image cannot be used; the caller knows its name and its row.

    Args:
        reason: a phrase that goes on from the image's name.

    Attributes:
        picture: the ``Picture`` that it is about, where that is known.
    """

    picture: str | None = None


def open_rgb(source: str | Path | bytes, max_pixels: int) -> Image.Image:
    """Return the decoded image in mode RGB, turned as its EXIF tag asks.

    Of an animation the first frame is taken; what is transparent shows white; 16 bits
    are scaled to 8.

    Args:
        source: a file in one of ``FORMATS``, or the content of one.
        max_pixels: width times height that is still decoded; checked before decoding.
    Raises:
        ImageFault: missing, no image of these formats, cut short, too large, or of
            values that do not say what is white.
    """
    try:
        with warnings.catch_warnings():
            # Pillow only warns of up to 179 million pixels, where our limit refuses,
            # and of oddities in files that it then decodes or refuses.
            warnings.simplefilter("ignore")
            with _opened(source) as file, Image.open(file, formats=FORMATS) as image:
                _check_size(image.size, max_pixels)
                is_deep = _has_deep_colours(image)  # which loading forgets
                image.load()  # verify() would pass a JPEG that is cut short
                if is_deep:
                    with Image.open(file, formats=FORMATS) as again:
                        _settle_deep_colours(image, _low_bytes(again))
                return _to_rgb(ImageOps.exif_transpose(image))
    except (ImageFault, MemoryError):
        raise
    except FileNotFoundError as error:
        raise ImageFault("does not exist") from error
    except UnidentifiedImageError as error:
        raise ImageFault(_what_it_is(source)) from error
    except Image.DecompressionBombError as error:
        limit = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
        raise ImageFault(f"has more than {limit} pixels") from error
    except Exception as error:
        # On damaged files Pillow's decoders raise a dozen types, struct.error and
        # KeyError among them.
        raise ImageFault(f"cannot be decoded: {error}") from error


def looks_whole(source: str | Path | bytes, max_pixels: int) -> bool:
    """Whether the two ends of a file are those of an image that ``open_rgb`` takes.

    That takes a fiftieth of the time of decoding a photo. A JPEG, PNG, GIF or WEBP file
    that is cut short does not, nor does what is no image or has too many pixels; damage
    in between is seen by decoding alone. One that ends oddly may be whole all the same.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _opened(source) as file, Image.open(file, formats=FORMATS) as image:
                _check_size(image.size, max_pixels)
                size = file.seek(0, io.SEEK_END)
                file.seek(max(0, size - TAIL))
                is_ended = ENDS.get(image.format or "", b"") in file.read()
                return is_ended and image.mode != "F"
    except Exception:  # as in open_rgb, which finds the words
        return False


def _opened(source: str | Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else open_file(source)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageFault(
            f"has {width} x {height} pixels, more than data.max_image_pixels "
            f"{max_pixels}"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageFault(
            "holds floats, which do not say what is white; save it with 8 or 16 bits"
        )
    if image.mode in DEEP_MODES:
        return _from_deep(image)
    if "transparency" not in image.info and image.mode not in CLEAR_MODES:
        return image.convert("RGB")
    above = image.convert("RGBA")
    picture = Image.new("RGBA", above.size, "white")
    picture.alpha_composite(above)
    return picture.convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """Return the picture of grey values from 0 to 65,535, scaled to 8 bits."""
    grey = np.asarray(image).astype(np.int64)  # (H, W)
    least, most = int(grey.min()), int(grey.max())
    if least < 0 or most > WHITE:
        raise ImageFault(
            f"holds grey values from {least} to {most}, which do not say what is "
            f"white; scale them to 0..{WHITE}"
        )
    _check_brightness(most, "grey values")
    if "transparency" in image.info:
        grey[grey == image.info["transparency"]] = WHITE
    return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")


def _check_brightness(most: int, what: str) -> None:
    if 0 < most < DARKEST:
        raise ImageFault(
            f"holds 16-bit {what} of at most {most} of {WHITE}, which is nearly black; "
            "save it with 8 bits, or scale the values to the full range"
        )


def _raw_mode(tile: Any) -> str:
    """Return how the bytes of a part of a file are to be read, as in ``RGB;16B``."""
    return str(tile[3][0] if isinstance(tile[3], tuple) else tile[3])


def _has_deep_colours(image: ImageFile.ImageFile) -> bool:
    """Whether an image that is not loaded has 16 bits a colour; Pillow keeps 8."""
    is_colour = image.mode in {"RGB", "RGBA", "RGBa", "RGBX"}
    return is_colour and any(_raw_mode(t)[-4:-1] == ";16" for t in image.tile)


def _low_bytes(image: ImageFile.ImageFile) -> npt.NDArray[np.uint8]:
    """Return what Pillow leaves out of 16-bit colours (H, W, 3).

    It keeps the high byte of each; read in the other byte order, that is the low one.
    """
    is_grey, tiles = False, list[Any]()
    own = "L" if sys.byteorder == "little" else "B"
    for tile in image.tile:
        name, order = _raw_mode(tile)[:-1], _raw_mode(tile)[-1].replace("N", own)
        is_grey = name == "LA;16"  # four bytes, there is no other order for them
        raw = "RGBA" if is_grey else name + ("B" if order == "L" else "L")
        args = (raw, *tile[3][1:]) if isinstance(tile[3], tuple) else raw
        make = getattr(tile, "_make", tuple)  # before Pillow 11 they are plain tuples
        tiles.append(make((*tile[:3], args)))
    image.tile = tiles
    image.load()
    low = np.asarray(image)
    return low[..., [1, 1, 1]] if is_grey else low[..., :3]


def _settle_deep_colours(image: Image.Image, low: npt.NDArray[np.uint8]) -> None:
    """Refuse 16-bit colours that are nearly black; turn a colour key into an alpha."""
    colours = np.asarray(image)[..., :3].astype(np.uint16) << 8 | low  # (H, W, 3)
    _check_brightness(int(colours.max()), "colours")
    key = image.info.pop("transparency", None)
    if key is not None:  # of 16 bits; Pillow would compare it with the high bytes
        is_seen = (colours != np.asarray(key)).any(axis=-1)
        image.putalpha(Image.fromarray(is_seen.astype(np.uint8) * 255))


def _what_it_is(source: str | Path | bytes) -> str:
    with _opened(source) as file:
        start = file.read(16)
    if not start:
        return "is an empty file"
    for name in FORMATS:
        _, accepts = Image.OPEN[name]  # filled by the first image that was opened
        if accepts is not None and accepts(start) is True:
            return f"cannot be decoded: it begins as {name} does, but is damaged"
    return f"is no image; it starts with {start!r}, and read are: {', '.join(FORMATS)}"
