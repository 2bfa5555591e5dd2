"""Pictures of 16 bits a colour, which Pillow reads as if they had 8."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainbus_data.images.open_image import ImageFault, open_rgb

BIG = 10**9
#: Channels -> the number a PNG file has for them.
PNG_KINDS = {1: 0, 2: 4, 3: 2, 4: 6}


def chunk(name: bytes, data: bytes) -> bytes:
    content = name + data
    return (
        struct.pack(">I", len(data)) + content + struct.pack(">I", zlib.crc32(content))
    )


def png(values: np.ndarray, key: tuple[int, ...] | None = None) -> bytes:
    """Return a PNG file of 16 bits a channel from values (H, W, C)."""
    height, width, channels = values.shape
    rows = values.astype(">u2").reshape(height, -1)
    kind = PNG_KINDS[channels]
    return b"".join([
        b"\x89PNG\r\n\x1a\n",
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        b"" if key is None else chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)),
        chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
        chunk(b"IEND", b""),
    ])  # fmt: skip


def tiff(values: np.ndarray, order: str, compression: int = 1) -> bytes:
    """Return a TIFF file of 16 bits a channel; 1: as it is, 8: deflated."""
    height, width, channels = values.shape
    data = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if compression == 8 else data
    data += b"\0" * (len(data) % 2)
    ends = 8 + len(data)
    tags = [
        *[(256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, 0)],
        *[(259, 3, 1, compression), (262, 3, 1, 2), (273, 4, 1, 8)],
        *[(277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(data))],
        *([(338, 3, 1, 2)] if channels == 4 else []),
    ]
    bits = ends + 2 + 12 * len(tags) + 4
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", ends)
    out += data + struct.pack(f"{order}H", len(tags))
    for tag, kind, count, value in tags:
        value = bits if tag == 258 else value
        short = kind == 3 and tag != 258
        body = f"{order}HHIHxx" if short else f"{order}HHII"
        out += struct.pack(body, tag, kind, count, value)
    return out + bytes(4) + struct.pack(f"{order}{channels}H", *[16] * channels)


def filled(channels: int, most: int) -> np.ndarray:
    """Return values (2, 3, C) from 0 to ``most``; nothing is transparent."""
    values = np.zeros((2, 3, channels), dtype=np.uint16)
    values[0, 1], values[1, 2] = most // 2, most
    if channels in (2, 4):
        values[..., -1] = 65535
    return values


FILES = {
    "grey": lambda most: png(filled(1, most)),
    "grey with alpha": lambda most: png(filled(2, most)),
    "colours": lambda most: png(filled(3, most)),
    "colours with alpha": lambda most: png(filled(4, most)),
    "colours in a TIFF": lambda most: tiff(filled(3, most), "<"),
    "colours in a TIFF of a big endian": lambda most: tiff(filled(3, most), ">"),
    "colours with alpha in a TIFF": lambda most: tiff(filled(4, most), "<"),
    "colours in a deflated TIFF": lambda most: tiff(filled(3, most), "<", 8),
    "colours in a deflated big TIFF": lambda most: tiff(filled(3, most), ">", 8),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("most", [1, 255, 256, 1023, 4095])
def test_values_of_fewer_bits_are_refused(tmp_path: Path, kind: str, most: int) -> None:
    (tmp_path / "a").write_bytes(FILES[kind](most))
    with pytest.raises(ImageFault, match=f"16-bit .* of at most {most} of 65535"):
        open_rgb(tmp_path / "a", BIG)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("most", [0, 4096, 65535])
def test_values_of_all_bits_are_scaled_and_black_is_black(
    tmp_path: Path, kind: str, most: int
) -> None:
    """The control."""
    (tmp_path / "a").write_bytes(FILES[kind](most))
    image = np.asarray(open_rgb(tmp_path / "a", BIG))
    assert image.shape == (2, 3, 3)
    assert image[0, 1].tolist() == [most // 2 >> 8] * 3
    assert image[1, 2].tolist() == [most >> 8] * 3


def test_the_transparent_grey_of_16_bits_shows_white(tmp_path: Path) -> None:
    values = np.array([[0, 300, 301, 65535]], dtype=np.uint16)[..., None]
    (tmp_path / "a").write_bytes(png(values, (300,)))
    seen = np.asarray(open_rgb(tmp_path / "a", BIG))[0, :, 0]
    assert seen.tolist() == [0, 255, 1, 255]


def test_the_transparent_colour_of_16_bits_is_that_alone(tmp_path: Path) -> None:
    key = (100, 200, 300)
    values = [key, (101, 200, 300), (100 << 8, 200 << 8, 44 << 8), (65535, 0, 0)]
    (tmp_path / "a").write_bytes(png(np.array([values], dtype=np.uint16), key))
    seen = np.asarray(open_rgb(tmp_path / "a", BIG))[0]
    assert seen.tolist() == [[255] * 3, [0, 0, 1], [100, 200, 44], [255, 0, 0]]


def test_what_alpha_hides_shows_white(tmp_path: Path) -> None:
    values = np.array([[[65535, 0], [0, 65535]]], dtype=np.uint16)
    (tmp_path / "a").write_bytes(png(values))
    assert np.asarray(open_rgb(tmp_path / "a", BIG))[0, :, 0].tolist() == [255, 0]


def test_a_dark_picture_of_8_bits_is_taken(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "a.png")
    assert open_rgb(tmp_path / "a.png", BIG).getpixel((0, 0)) == (1, 2, 3)
