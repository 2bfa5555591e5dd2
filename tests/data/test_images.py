"""Images are decoded whole, upright and as RGB, or refused with the reason."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.images import ImageFault, open_rgb

BIG = 10**9


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK", "I;16", "I"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / "a.tif" if mode in {"CMYK", "I"} else tmp_path / "a.png"
    white = Image.new("L", (5, 4), 255)
    white = white.convert("I") if mode == "I;16" else white
    white.convert(mode).save(path)
    image = open_rgb(path, BIG)
    assert (image.mode, image.size) == ("RGB", (5, 4))
    assert np.asarray(image).min() == 255


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path):
    values = np.array([[0, 256 * 128, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    grey = np.asarray(open_rgb(tmp_path / "a.png", BIG))[0, :, 0]
    assert grey.tolist() == [0, 128, 255]


def test_an_image_is_turned_as_its_exif_asks(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (6, 3)).save(tmp_path / "a.jpg", exif=exif)
    assert open_rgb(tmp_path / "a.jpg", BIG).size == (3, 6)


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert open_rgb(tmp_path / "a.gif", BIG).getpixel((0, 0)) == (255, 0, 0)


def truncated_jpeg() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()[:-500]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(None, "does not exist", id="missing"),
        pytest.param(b"", "is an empty file", id="empty"),
        pytest.param(b"<html>no</html>", "is no image; it starts with b'<html>",
                     id="a web page"),
        pytest.param(truncated_jpeg(), "cannot be decoded", id="cut short"),
    ],
)  # fmt: skip
def test_a_broken_image_is_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageFault, match=f"^{reason}"):
        open_rgb(path, BIG)


@pytest.mark.parametrize("side", [101, 10_001, 14_200])
def test_an_image_above_the_cap_is_refused_before_decoding(tmp_path: Path, side):
    Image.new("1", (side, side)).save(tmp_path / "a.png")
    with pytest.raises(ImageFault, match="pixels"):
        open_rgb(tmp_path / "a.png", 10_000)
