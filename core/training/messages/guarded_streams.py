"""Print for people without ending a run: a stream that breaks is noted, not raised.

Whoever reads along may leave, a log's disk may fill, a terminal may know no more than
ASCII. What a run does for its user stands in files; none of it shall be lost for words.
"""

from __future__ import annotations

import contextlib
from typing import Any

__all__ = ["Guarded", "guarded"]


class Guarded:
    """A text stream that takes whatever is written, whether or not that arrives.

    Characters that it cannot encode arrive as backslash escapes. Everything else is
    the stream's own.

    Args:
        stream: has ``write``; ``flush`` and ``isatty`` where it likes.
    Attributes:
        error: the first one that was met in writing; None: there was none.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        """Write ``text``; return its length."""
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = getattr(self._stream, "encoding", None) or "ascii"
                known = text.encode(encoding, "backslashreplace")
                self._stream.write(known.decode(encoding))
        except (OSError, ValueError) as error:  # ValueError: it is closed
            self.error = self.error or error
        return len(text)

    def flush(self) -> None:
        """Pass on what was written, where the stream keeps it back."""
        try:
            getattr(self._stream, "flush", lambda: None)()
        except (OSError, ValueError) as error:
            self.error = self.error or error

    def isatty(self) -> bool:
        """Whether a person looks at it at a terminal."""
        with contextlib.suppress(OSError, ValueError):
            return bool(getattr(self._stream, "isatty", lambda: False)())
        return False

    def writelines(self, lines: Any) -> None:
        """Write all of ``lines``."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guarded(stream: Any) -> Guarded:
    """Return ``stream``, guarded once."""
    return stream if isinstance(stream, Guarded) else Guarded(stream)
