"""Cached pixels are the processor's own, within a stated bound."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from trainbus_data.images.open_image import ImageFault
from trainbus_data.images.pixels import PixelStore
from training.errors import ConfigError

LIMIT = 10**7


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
    store = PixelStore(noisy_paths, processor, cache_mb, LIMIT, image_size)
    for _ in range(2):  # decoded, then from the cache
        assert torch.equal(store.get([2, 0, 1]), expected[[2, 0, 1]])


def test_a_processor_of_another_arithmetic_is_still_matched_exactly(noisy_paths):
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    processor = BlipImageProcessorPil(
        size={"height": 32, "width": 32}, rescale_factor=1 / 127.5, do_normalize=False
    )
    images = [Image.open(path) for path in noisy_paths]
    expected = processor(images=images, return_tensors="pt")["pixel_values"]
    store = PixelStore(noisy_paths, processor, 1, LIMIT)
    assert torch.equal(store.get([0, 1, 2]), expected)


def test_a_cached_image_is_not_read_again_and_the_bound_holds(tiny, tmp_path):
    processor = tiny["processor"].image_processor
    paths = []
    for number in range(500):  # 3 x 32 x 32 bytes each: 341 fit 1 MiB
        paths.append(str(tmp_path / f"{number}.png"))
    Image.new("RGB", (32, 32)).save(paths[0])
    Image.new("RGB", (32, 32)).save(paths[499])
    store = PixelStore(paths, processor, 1, LIMIT)
    assert store.num_slots == 341
    store.get([0, 499])
    (tmp_path / "0.png").unlink()
    (tmp_path / "499.png").unlink()
    assert store.get([0]).shape == (1, 3, 32, 32)
    with pytest.raises(ImageFault) as caught:
        store.get([0, 499])
    assert (str(caught.value), caught.value.number) == ("does not exist", 499)


def test_a_store_survives_pickling_without_its_cache(tiny, noisy_paths):
    store = PixelStore(noisy_paths, tiny["processor"].image_processor, 1, LIMIT)
    expected = store.get([0])
    assert torch.equal(pickle.loads(pickle.dumps(store)).get([0]), expected)


def test_a_processor_that_keeps_the_aspect_ratio_is_refused():
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    processor = BlipImageProcessorPil(size={"shortest_edge": 32})
    with pytest.raises(ConfigError, match=r"set data\.image_size"):
        PixelStore([], processor, 1, LIMIT)
