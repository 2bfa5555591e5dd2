"""Buffers of every kind are looked at for values that are not finite."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor, nn
from toy import Regression, make_trainer

from training.modules.buffers import nonfinite_buffers


def of(kind: torch.dtype) -> Tensor:
    return torch.ones(4).to(kind)


with warnings.catch_warnings(action="ignore"):  # torch calls sparse rows new
    ROWS = torch.eye(4).to_sparse_csr()
KINDS = {
    "float32": of(torch.float32),
    "complex": of(torch.complex64),
    "8 bits without infinities": of(torch.float8_e4m3fn),
    "8 bits with infinities": of(torch.float8_e5m2),
    "sparse": torch.eye(4).to_sparse(),
    "sparse rows": ROWS,
}


@pytest.mark.parametrize("value", KINDS.values(), ids=KINDS.keys())
def test_a_buffer_of_any_kind_may_be_beside_what_is_skipped(value: Tensor) -> None:
    model = Regression()
    model.register_buffer("held", value)
    make_trainer(model, nonfinite="skip", loss_per="samples").train()


@pytest.mark.parametrize("value", KINDS.values(), ids=KINDS.keys())
def test_a_bad_value_in_a_buffer_of_any_kind_is_found(value: Tensor) -> None:
    model = nn.Module()
    model.register_buffer("held", value)
    assert nonfinite_buffers(model) == []
    layout, dense = value.layout, value.to_dense().abs().float()
    dense.view(-1)[0] = math.nan
    bad = dense.to(value.dtype)
    if layout is not torch.strided:
        bad = bad.to_sparse(layout=layout)
    model.held = bad
    assert nonfinite_buffers(model) == ["held"]
