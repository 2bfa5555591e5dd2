"""Record device work once and replay it: CUDA graphs behind two methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch


class Recorder(Protocol):
    """Turns work whose tensors stay where they are into a call that repeats it."""

    def aside(self) -> AbstractContextManager[None]:
        """Return a context in which work runs now, as a recording will see it."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Note what ``work`` asks of the device, without doing it; return the replay.

        Numbers and addresses are noted as they are: what shall differ between replays
        must be read from a tensor. Asking the device for a number is an error.
        """


class CudaRecorder:
    """Records CUDA graphs; they share their memory, and one replays at a time.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Run on the stream of the recordings, between what came and what comes."""
        current = torch.cuda.current_stream(self._device)
        # An order on the device: the host waits for neither.
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture ``work``; it waits for the device, once.

        A loader's threads may use CUDA meanwhile: only this thread is watched.
        """
        graph = torch.cuda.CUDAGraph()
        capture = torch.cuda.graph(
            graph,
            pool=self._pool,
            stream=self._stream,
            capture_error_mode="thread_local",
        )
        with torch.cuda.device(self._device), capture:
            work()
        replay: Callable[[], None] = graph.replay
        return replay


def recorder_for(device: torch.device) -> Recorder | None:
    """Return what records on ``device``; None where nothing does."""
    return CudaRecorder(device) if device.type == "cuda" else None
