"""A state is copied into as much host memory as it has bytes, and used again."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainbus_checkpointing.staging import ALIGNMENT, Staging, blocks_of

MIB = 1 << 20
#: Bytes of the tensors of three states: of layers of width 768, and a large embedding.
LAYERS = [4 * size for size in (768 * 768, 768, 768 * 3072, 3072, 768)] * 36
SIZES = {
    "layers": LAYERS,
    "an embedding and layers": [4 * 30524 * 768, *LAYERS],
    "just above a power of two each": [MIB + 1] * 64,
    "one byte each": [1] * 100,
    "none": [],
}


@pytest.mark.parametrize("name", SIZES)
def test_blocks_are_powers_of_two_and_hold_each_piece_by_itself(name: str) -> None:
    sizes = SIZES[name]
    blocks, places = blocks_of(sizes)
    assert all(block & (block - 1) == 0 for block in blocks)
    taken: list[tuple[int, int, int]] = sorted(
        (block, start, start + size)
        for size, (block, start) in zip(sizes, places, strict=True)
    )
    assert all(end <= blocks[block] for block, _, end in taken)
    assert all(start % ALIGNMENT == 0 for _, start, _ in taken)
    for (block, _, end), (other, start, _) in pairwise(taken):
        assert block != other or end <= start


@pytest.mark.parametrize(
    "name", ["layers", "an embedding and layers", "just above a power of two each"]
)
def test_pinned_memory_is_as_large_as_the_state(name: str) -> None:
    """Each block by itself would take up to twice: torch rounds up to powers of two."""
    sizes = SIZES[name]
    assert sum(blocks_of(sizes)[0]) < 1.05 * sum(sizes)
    alone = sum(1 << (size - 1).bit_length() for size in sizes)
    assert alone > 1.3 * sum(sizes)


def state() -> dict[str, Any]:
    tied = torch.arange(6.0)
    return {
        "model": {"a": tied, "b": tied.view(2, 3).t(), "empty": torch.zeros(0)},
        "more": [torch.arange(5), (torch.tensor(True), nn.Parameter(torch.ones(3)))],
        "half": torch.arange(3).to(torch.bfloat16),
        "sparse": torch.eye(2).to_sparse(),
        "step": 3,
    }


def test_a_copy_has_the_values_and_the_shared_memory_and_outlives_the_staging() -> None:
    staging, given = Staging(), state()
    copied = staging.copy(given)
    del staging
    model = copied["model"]
    assert torch.equal(model["a"], given["model"]["a"])
    assert torch.equal(model["b"], given["model"]["b"])
    assert model["a"].untyped_storage().data_ptr() == (
        model["b"].untyped_storage().data_ptr()
    )
    assert torch.equal(copied["more"][0], given["more"][0])
    assert torch.equal(copied["more"][1][1], torch.ones(3))
    assert torch.equal(copied["half"], given["half"])
    assert torch.equal(copied["sparse"].to_dense(), torch.eye(2))
    assert copied["step"] == 3
    given["model"]["a"].zero_()
    assert model["a"].sum() == 15.0


def test_a_view_of_a_conjugate_is_copied_with_its_values() -> None:
    view = torch.tensor([1 + 2j, 3 - 4j]).conj()
    copied = Staging().copy({"conjugate": view, "negated": view.imag})
    assert copied["conjugate"].tolist() == [1 - 2j, 3 + 4j]
    assert copied["negated"].tolist() == [-2.0, 4.0]


def test_a_copy_has_the_kinds_of_what_was_given_and_nothing_of_it_that_may_change() -> (
    None
):
    given: dict[str, Any] = {
        "list": [1, [2]],
        "tuple": (1, (2, {3})),
        "set": {1, 2},
        "dict": {"a": {}},
        "ordered": OrderedDict(a=[]),
        "size": torch.Size([2, 3]),
    }
    copied = Staging().copy(given)
    assert repr(copied) == repr(given)
    given["tuple"][1][1].add(4)
    given["set"].add(3)
    given["ordered"]["a"].append(1)
    assert repr(copied["tuple"]) == "(1, (2, {3}))"
    assert copied["set"] == {1, 2}
    assert copied["ordered"] == OrderedDict(a=[])


def test_the_next_copy_takes_the_same_memory_until_the_sizes_differ() -> None:
    staging = Staging()
    first: Tensor = staging.copy({"a": torch.zeros(100)})["a"]
    second: Tensor = staging.copy({"a": torch.ones(100)})["a"]
    assert first.data_ptr() == second.data_ptr()
    assert first.sum() == 100
    third: Tensor = staging.copy({"a": torch.ones(1000)})["a"]
    assert third.sum() == 1000


def test_a_file_holds_a_copied_tensor_and_nothing_of_its_neighbours(
    tmp_path: Path,
) -> None:
    copied = Staging().copy({"large": torch.zeros(MIB), "small": torch.ones(2)})
    assert copied["small"].untyped_storage().nbytes() == 8
    torch.save(copied["small"], tmp_path / "small.pt")
    assert (tmp_path / "small.pt").stat().st_size < 4096
