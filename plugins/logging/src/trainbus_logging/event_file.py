"""TensorBoard's writer, which after an error makes room for another."""

from __future__ import annotations

import contextlib
import logging
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import PluginError
from training.plugin import write_durably

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

#: Bytes that can be written before a new event file is begun after an error.
ROOM = 1 << 16


class EventFile:
    """What is written of one run.

    A writer whose file could not be written fails ever after: another takes its place
    as soon as there is room for a new file.

    Args:
        folder: of the event files.
        purge_step: points from here on are hidden; None: none are.
    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None  # None: lost, until there is room
        self._writer = import_writer()(str(folder), purge_step=purge_step)

    @property
    def is_lost(self) -> bool:
        """Whether what is put would be lost, as far as is known."""
        return self._writer is None

    def put(self, method: str, *args: Any, **options: Any) -> None:
        """Call a method of the writer; warn if it is lost with this call."""
        try:
            if self._writer is None:
                _require_room(self._folder)
                self._writer = import_writer()(str(self._folder))
            attrgetter(method)(self._writer)(*args, **options)
        except OSError as error:
            if self._writer is not None:
                logger.warning(
                    "tensorboard: %s cannot be written (%s); values are lost until it "
                    "can be, and then go to a new event file",
                    *(self._folder, error),
                )
                with contextlib.suppress(OSError):  # its thread ends
                    attrgetter("file_writer.close")(self._writer)()
            self._writer = None

    def close(self) -> None:
        """End the file, if there is one."""
        if self._writer is not None:
            self.put("close")


def import_writer() -> type[SummaryWriter]:
    """Import late: it takes about a second.

    Raises:
        PluginError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise PluginError(
            f"the plugin 'tensorboard' needs the package tensorboard ({error}); run: "
            "pip install tensorboard"
        ) from error
    return SummaryWriter


def _require_room(folder: Path) -> None:
    """Raise OSError if no event file can be written; a writer that tries leaves one."""
    write_durably(folder / "room", lambda file: file.write(bytes(ROOM))).unlink()
