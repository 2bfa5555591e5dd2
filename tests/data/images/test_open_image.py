"""Images are decoded whole, upright and as RGB, or refused with the reason."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainbus_data.images.open_image import ImageFault, looks_whole, open_rgb

BIG = 10**9


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK", "I;16", "I"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / "a.tif" if mode in {"CMYK", "I"} else tmp_path / "a.png"
    if mode in {"I", "I;16"}:
        deep = np.full((4, 5), 65535, dtype=np.int32 if mode == "I" else np.uint16)
        Image.fromarray(deep).save(path)
    else:
        Image.new("L", (5, 4), 255).convert(mode).save(path)
    image = open_rgb(path, BIG)
    assert (image.mode, image.size) == ("RGB", (5, 4))
    assert np.asarray(image).min() == 255


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path):
    values = np.array([[0, 256 * 128, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    grey = np.asarray(open_rgb(tmp_path / "a.png", BIG))[0, :, 0]
    assert grey.tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        pytest.param(np.float32([[0, 0.5, 1]]), "holds floats", id="floats to 1"),
        pytest.param(np.float32([[0, 9, 255]]), "holds floats", id="floats to 255"),
        pytest.param(np.uint16([[0, 9, 255]]), "at most 255 of 65535", id="8 bits"),
        pytest.param(np.uint16([[0, 9, 4095]]), "at most 4095 of", id="12 bits"),
        pytest.param(np.int32([[0, 9, 10**6]]), "from 0 to 1000000", id="20 bits"),
        pytest.param(np.int32([[-5, 9, 50000]]), "from -5 to", id="below 0"),
    ],
)
def test_values_that_do_not_say_what_is_white_are_refused(tmp_path, values, words):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ImageFault, match=words):
        open_rgb(tmp_path / "a.tif", BIG)


def test_a_black_picture_of_16_bits_is_black(tmp_path):
    Image.fromarray(np.zeros((2, 3), dtype=np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(open_rgb(tmp_path / "a.png", BIG)).max() == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "a colour key"])
def test_what_is_transparent_shows_white_and_the_rest_stays(tmp_path, mode):
    # Black everywhere; only the first pixel can be seen.
    if mode == "P":
        image = Image.new("P", (2, 1), 1)
        image.putpalette([0, 0, 0, 0, 0, 0])
        image.putpixel((0, 0), 0)
        image.save(tmp_path / "a.png", transparency=1)
    elif mode == "a colour key":
        image = Image.new("RGB", (2, 1), (0, 0, 0))
        image.putpixel((0, 0), (0, 0, 1))
        image.save(tmp_path / "a.png", transparency=(0, 0, 0))
    else:
        image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
        image.putpixel((0, 0), (0, 0, 0, 255))
        image.convert(mode).save(tmp_path / "a.png")
    seen = np.asarray(open_rgb(tmp_path / "a.png", BIG))[0, :, 0]
    assert seen.tolist() == [0, 255]


def test_one_bit_is_black_and_white(tmp_path):
    image = Image.new("1", (2, 1), 0)
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png")
    assert np.asarray(open_rgb(tmp_path / "a.png", BIG))[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_the_usual_formats_are_decoded_whatever_the_name_says(tmp_path, kind):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.dat", kind)
    assert open_rgb(tmp_path / "a.dat", BIG).getpixel((0, 0))[0] > 250


@pytest.mark.parametrize("kind", ["ICO", "PPM", "EPS", "PCX", "TGA", "PDF"])
def test_other_formats_are_not_decoded(tmp_path, kind):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png", kind)
    with pytest.raises(ImageFault, match=r"is no image; .* read are: JPEG, PNG"):
        open_rgb(tmp_path / "a.png", BIG)


def test_a_picture_that_pillow_itself_refuses_names_its_limit(tmp_path, monkeypatch):
    Image.new("1", (300, 300)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(ImageFault, match="has more than 20000 pixels"):
        open_rgb(tmp_path / "a.png", BIG)


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
        pytest.param(b"\x89PNG\r\n\x1a\n123", "cannot be decoded: it begins as PNG",
                     id="cut off in its head"),
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


@pytest.mark.parametrize("more", [b"", bytes(300)], ids=["", "and zeros behind"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_file_looks_whole_with_both_ends_alone(kind, more):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, kind)
    content = file.getvalue()
    assert looks_whole(content + more, BIG)
    assert not looks_whole(content, 60 * 70 - 1)
    assert not looks_whole(content[:20], BIG)
    if kind not in {"BMP", "TIFF"}:  # which say nothing at their ends
        assert not looks_whole(content[: len(content) // 2], BIG)
    assert not looks_whole(b"no image", BIG)
    assert not looks_whole(b"", BIG)
