"""Cached pixels are the processor's own, within a stated bound."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainbus_data.images.open_image import ImageFault
from trainbus_data.images.picture import Picture
from trainbus_models.pixels import Normalisation, PixelCache
from training.errors import ConfigError

MIB = 1 << 20


@pytest.fixture(scope="module")
def noisy_paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    random = np.random.default_rng(0)
    paths = []
    for number, size in enumerate([(32, 32), (40, 25), (90, 64)]):
        pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        paths.append(str(folder / f"{number}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.mark.parametrize("cache_mb", [0, 1], ids=["without cache", "cached"])
@pytest.mark.parametrize("image_size", [None, 48], ids=["own size", "48 pixels"])
def test_pixels_equal_the_real_processors_bit_for_bit(
    tiny, noisy_paths, cache_mb, image_size
):
    processor = tiny["processor"].image_processor
    size = {} if image_size is None else {"size": {"height": 48, "width": 48}}
    images = [Image.open(path) for path in noisy_paths]
    expected = processor(images=images, return_tensors="pt", **size)["pixel_values"]
    store = PixelCache(processor, cache_mb * MIB, image_size)
    pictures = [Picture(noisy_paths[number]) for number in (2, 0, 1)]
    for _ in range(2):  # decoded, then from the cache
        pixels = store.normalise(store.get(pictures))
        assert torch.equal(pixels, expected[[2, 0, 1]])


def test_a_processor_of_another_arithmetic_is_still_matched_exactly(noisy_paths):
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    processor = BlipImageProcessorPil(
        size={"height": 32, "width": 32}, rescale_factor=1 / 127.5, do_normalize=False
    )
    images = [Image.open(path) for path in noisy_paths]
    expected = processor(images=images, return_tensors="pt")["pixel_values"]
    store = PixelCache(processor, MIB)
    pixels = store.get([Picture(path) for path in noisy_paths])
    assert torch.equal(store.normalise(pixels), expected)
    again = pickle.loads(pickle.dumps(store.normalise))
    assert torch.equal(again(pixels), expected)


EVERY_BYTE = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)


def test_what_normalises_weighs_next_to_nothing_in_a_batch(tiny):
    processor = tiny["processor"].image_processor
    normalise = PixelCache(processor, MIB).normalise
    assert len(pickle.dumps(normalise)) < 500
    assert pickle.loads(pickle.dumps(normalise)) == normalise


def test_the_reciprocal_of_255_would_give_other_bits(tiny):
    """What a device may do with a division by a number, and not by a tensor."""
    processor = tiny["processor"].image_processor
    right = PixelCache(processor, MIB).normalise(EVERY_BYTE)
    mean, std = (
        torch.tensor(each).view(-1, 1, 1)
        for each in (processor.image_mean, processor.image_std)
    )
    other = (EVERY_BYTE * torch.tensor(1 / 255) - mean) / std
    assert not torch.equal(other, right)
    assert torch.allclose(other, right, atol=1e-5)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("by_formula", [True, False], ids=["formula", "table"])
def test_a_card_normalises_to_the_same_bits(tiny, by_formula):
    processor = tiny["processor"].image_processor
    normalise = PixelCache(processor, MIB).normalise
    if not by_formula:
        table = normalise(EVERY_BYTE)[0, :, 0].contiguous().numpy().tobytes()
        normalise = Normalisation(table)
    on_card = normalise(EVERY_BYTE.to("cuda"))
    assert torch.equal(on_card.cpu(), normalise(EVERY_BYTE))


def test_a_cached_image_is_not_read_again_and_the_bound_holds(tiny, tmp_path):
    processor = tiny["processor"].image_processor
    assert PixelCache(processor, MIB).num_slots == 341  # of 3 x 32 x 32 bytes each
    store = PixelCache(processor, 2 * 3 * 32 * 32)
    pictures = [Picture(f"{n}.png", str(tmp_path / f"{n}.png")) for n in range(3)]
    for picture in pictures:
        Image.new("RGB", (32, 32)).save(picture.key)
    store.get(pictures)
    for picture in pictures:
        Path(picture.key).unlink()
    assert store.get(pictures[:2]).shape == (2, 3, 32, 32)
    with pytest.raises(ImageFault, match="does not exist") as caught:
        store.get(pictures)
    assert caught.value.picture is pictures[2]


def test_a_store_survives_pickling_without_its_cache(tiny, noisy_paths):
    store = PixelCache(tiny["processor"].image_processor, MIB)
    picture = Picture(noisy_paths[0])
    expected = store.get([picture])
    assert expected.dtype is torch.uint8
    assert len(pickle.dumps(store)) < 10_000
    assert torch.equal(pickle.loads(pickle.dumps(store)).get([picture]), expected)


def test_a_processor_that_keeps_the_aspect_ratio_is_refused():
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    processor = BlipImageProcessorPil(size={"shortest_edge": 32})
    with pytest.raises(ConfigError, match=r"set model\.image_size"):
        PixelCache(processor, MIB)


@pytest.mark.parametrize("side", [8, 20, 32, 64, 128])
def test_a_normalisation_is_read_where_resizing_swallows_bytes(noisy_paths, side):
    from transformers.models.convnext.image_processing_pil_convnext import (
        ConvNextImageProcessorPil,
    )

    processor = ConvNextImageProcessorPil(size={"shortest_edge": side})
    images = [Image.open(path) for path in noisy_paths]
    expected = processor(images=images, return_tensors="pt")["pixel_values"]
    store = PixelCache(processor, 0)
    pixels = store.get([Picture(path) for path in noisy_paths])
    assert torch.equal(store.normalise(pixels), expected)


@pytest.mark.parametrize(
    ("resized", "normalised", "why"),
    [
        (lambda bytes_: bytes_ // 2, lambda numbers: numbers, "all 128 comes out"),
        (
            lambda bytes_: bytes_,
            lambda numbers: (numbers - numbers.mean()) / (numbers.std() + 1e-3),
            "differing numbers of one byte",
        ),
    ],
    ids=["no byte above 127", "by each row's own mean"],
)
def test_a_normalisation_that_is_none_of_bytes_is_refused(resized, normalised, why):
    def processor(images, do_rescale=True, **_):
        pixels = resized(images.transpose(2, 0, 1))
        if do_rescale:
            rows = [normalised(row / 255) for row in np.moveaxis(pixels, 1, 0)]
            pixels = np.stack(rows, axis=1)
        return {"pixel_values": [pixels[:, :24, :24]]}

    with pytest.raises(ConfigError, match=why):
        PixelCache(processor, 0)
