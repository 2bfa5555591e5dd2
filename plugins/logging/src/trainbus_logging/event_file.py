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
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        self._folder, self._purge_step = folder, purge_step
        self._writer: SummaryWriter | None = None  # lost, until there is room
        try:
            self._begin()
        except OSError as error:
            self._warn(error)

    @property
    def is_lost(self) -> bool:
        """Whether what is put would be lost, as far as is known."""
        return self._writer is None

    def put(self, method: str, *args: Any, **options: Any) -> None:
        """Call a method of the writer; warn if it is lost with this call."""
        try:
            if self._writer is None:
                _require_room(self._folder)
                self._begin()
            attrgetter(method)(self._writer)(*args, **options)
        except OSError as error:
            if self._writer is not None:
                self._warn(error)
                with contextlib.suppress(OSError):  # its thread ends
                    attrgetter("file_writer.close")(self._writer)()
            self._writer = None

    def _begin(self) -> None:
        self._writer = import_writer()(str(self._folder), purge_step=self._purge_step)
        self._purge_step = None  # those of another file of the run are not hidden

    def _warn(self, error: OSError) -> None:
        logger.warning(
            "tensorboard: %s cannot be written (%s); values are lost until it can be, "
            "and then go to a new event file",
            *(self._folder, error),
        )

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
    folder.mkdir(parents=True, exist_ok=True)  # where it could not be made before
    write_durably(folder / "room", lambda file: file.write(bytes(ROOM))).unlink()
