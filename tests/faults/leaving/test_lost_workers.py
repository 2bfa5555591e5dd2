"""P6: workers of a loader for validation that are lost."""

from __future__ import annotations

from typing import Any

import pytest
from faults.leaving.test_workers import breaks
from faults.runs import build, loader_of
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter


@pytest.mark.parametrize("sanity_batches", [0, 1], ids=["measured", "looked at"])
def test_p6_a_worker_for_validation_whose_line_breaks_is_told_as_lost(
    monkeypatch: pytest.MonkeyPatch, sanity_batches: int
) -> None:
    torchs: Any = _MultiProcessingDataLoaderIter
    error = ConnectionResetError()
    monkeypatch.setattr(torchs, "_try_get_data", lambda self: breaks(self, error))
    plugins = [{"evaluation": {"sanity_batches": sanity_batches}}]
    trainer = build(val_dataloader=loader_of(workers=1), plugins=plugins)
    with pytest.raises(RuntimeError, match=r"DataLoader worker .* exited") as caught:
        trainer.train()
    assert caught.value.__cause__ is error
    assert (trainer.step > 0) == (sanity_batches == 0)
