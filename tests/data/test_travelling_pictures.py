"""Pictures on their way to a card: as bytes, and there the same bits."""

import pytest
import torch

from trainbus_data.data_pipeline import DataPipeline
from training.discovery.parts import build_pair
from training.documents.document import dotted
from training.feed.batches import batch_to_device

BOS = 5  # [DEC] in the tiny vocabulary


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("family", ["blip", "image_classifier"])
def test_pictures_travel_as_bytes_and_become_the_same_bits_there(
    family, num_workers, tiny, rows_file
):
    """A device without data takes the place of a card for what is asked of the host."""
    task = {"blip": "vqa", "image_classifier": "image_classification"}[family]
    processor = tiny["processor"]
    batches = []
    for device in (None, torch.device("cpu"), torch.device("meta")):
        pair = build_pair(task, family, {}, dotted)
        data = {"train": str(rows_file()), "num_workers": num_workers}
        if family == "image_classifier":
            data["fields"] = {"label": "answer"}
            processor = tiny["processor"].image_processor
            processor.label_names = ["blue", "green", "red"]
        pipeline = DataPipeline(
            {**data, "shuffle": False},
            processor=processor,
            bos_token_id=BOS,
            task=pair[0],
            family=pair[1],
            device=device,
        )
        pipeline.setup()
        batches += pipeline.get_train_dataloader()
    unknown, here, sent = batches
    pixels = sent["pixel_values"]
    assert pixels.dtype is torch.uint8
    assert pixels.nbytes * 4 == here["pixel_values"].nbytes
    for other in (unknown, sent.finished(), sent.to("cpu")):
        assert other.keys() == here.keys()
        assert all(torch.equal(other[key], here[key]) for key in here)
        assert not other.deferred
    there = batch_to_device(sent, torch.device("meta"))
    assert there["pixel_values"].dtype is torch.float32
    assert there["pixel_values"].device.type == "meta"
