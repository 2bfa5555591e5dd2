"""A recorder for a CPU."""

from __future__ import annotations

import pytest
from tape import TapeRecorder


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> TapeRecorder:
    """Let a CPU be treated as a device that records and is slow to answer."""
    recorder = TapeRecorder()
    monkeypatch.setattr("training.hardware.readback.reads_wait", lambda device: True)
    monkeypatch.setattr(
        "trainbus_cuda_graphs.recording.recorder_for", lambda device: recorder
    )
    return recorder
