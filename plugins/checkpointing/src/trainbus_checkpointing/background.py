"""Write one file at a time in a thread, and hand its error to whoever asks."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """At most one piece of work in flight."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def is_busy(self) -> bool:
        """Whether work was started and its end not yet asked for."""
        return self._thread is not None

    def start(self, work: Callable[[], object]) -> None:
        """Begin ``work``; ``finish`` must have ended the one before."""
        assert self._thread is None, "one at a time"

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._error = error

        # A daemon: who leaves at once does not wait; everybody else calls ``finish``.
        self._thread = threading.Thread(target=run, name="checkpointing", daemon=True)
        self._thread.start()

    def finish(self, wait: bool) -> bool:
        """Return whether the work has ended; raise the error that ended it.

        Args:
            wait: until it has.
        """
        if self._thread is None:
            return False
        if self._thread.is_alive() and not wait:
            return False
        self._thread.join()
        self._thread, error, self._error = None, self._error, None
        if error is not None:
            raise error
        return True
