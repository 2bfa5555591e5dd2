"""Write one file at a time in a thread, and hand its error to whoever asks."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """At most one piece of work in flight."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        # There while a thread is: it cannot be copied, as the plugin may be afterwards.
        self._ended: threading.Event | None = None
        self._error: BaseException | None = None

    @property
    def is_busy(self) -> bool:
        """Whether work was started and its end not yet asked for."""
        return self._thread is not None

    @property
    def is_working(self) -> bool:
        """Whether work was started and has not ended."""
        return self._ended is not None and not self._ended.is_set()

    def start(self, work: Callable[[], object]) -> None:
        """Begin ``work``; ``finish`` must have ended the one before."""
        assert self._thread is None, "one at a time"

        self._ended = ended = threading.Event()

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._error = error
            finally:
                ended.set()

        # No daemon: Python would end the process under it, inside of torch, by abort.
        self._thread = threading.Thread(target=run, name="checkpointing", daemon=False)
        self._thread.start()

    def finish(self, wait: bool) -> bool:
        """Return whether the work has ended; raise the error that ended it.

        Args:
            wait: until it has.
        """
        if self._thread is None or self._ended is None:
            return False
        if not wait and not self._ended.is_set():
            return False
        # Not ``join``: one that a signal ends takes the thread for ended.
        self._ended.wait()
        self._thread.join()
        self._thread = self._ended = None
        error, self._error = self._error, None
        if error is not None:
            raise error
        return True
