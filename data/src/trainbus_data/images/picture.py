"""A picture that a row names: its text in the file, and the way to its pixels."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Self

from PIL import Image

from trainbus_data.images.open_image import ImageFault, looks_whole, open_rgb

__all__ = ["MAX_PIXELS", "EmbeddedPicture", "Picture"]

#: Width times height that is decoded unless a configuration says otherwise.
MAX_PIXELS = 50_000_000


class Picture(str):
    """What a row says of its picture, such as ``"images/1.jpg"``; opened on demand.

    A string, so that a row with pictures is JSON; two of the same text may be two
    files, which ``key`` tells apart.

    Args:
        text: as the row has it.
        path: the file; the text itself where it is left out.
        max_pixels: width times height that is still decoded.
    """

    key: str
    max_pixels: int

    def __new__(
        cls, text: str, path: str | None = None, max_pixels: int = MAX_PIXELS
    ) -> Self:
        """Make one; a plain text is its own path."""
        self = super().__new__(cls, text)
        self.key = text if path is None else path
        self.max_pixels = max_pixels
        return self

    @property
    def absence(self) -> str:
        """Why there is nothing to open, for behind its name; ``""``: there is."""
        if os.path.isfile(self.key):
            return ""
        return "is a folder" if os.path.isdir(self.key) else "does not exist"

    @property
    def _source(self) -> str | bytes:
        return self.key

    def look(self) -> None:
        """Decode the picture if its file does not look whole, which is quickly seen.

        Raises:
            ImageFault: it cannot be used.
        """
        if not looks_whole(self._source, self.max_pixels):
            self.open()

    def open(self) -> Image.Image:
        """Return the decoded picture in mode RGB, upright.

        Raises:
            ImageFault: it cannot be used.
        """
        try:
            return open_rgb(self._source, self.max_pixels)
        except ImageFault as fault:
            raise self.fault(str(fault)) from fault

    def fault(self, reason: str) -> ImageFault:
        """Return the error that says so of this picture."""
        fault = ImageFault(reason)
        fault.picture = self
        return fault


class EmbeddedPicture(Picture):
    """A picture whose file stands in the row itself; its text is a digest of it.

    Args:
        content: of the file.
        max_pixels: width times height that is still decoded.
    """

    content: bytes

    def __new__(cls, content: bytes, max_pixels: int = MAX_PIXELS) -> Self:
        """Make one; equal contents have equal texts."""
        digest = hashlib.sha256(content).hexdigest()[:24]
        self = super().__new__(cls, f"sha256:{digest}", None, max_pixels)
        self.content = content
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.content, self.max_pixels)

    @property
    def absence(self) -> str:
        """Nothing: it is in the row."""
        return ""

    @property
    def _source(self) -> str | bytes:
        return self.content
