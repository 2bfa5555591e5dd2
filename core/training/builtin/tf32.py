"""Whether fp32 products of a run may round their factors to TF32."""

from __future__ import annotations

from contextlib import ExitStack

from training.bus.callback import BuiltIn
from training.hardware.float32_precision import using_tf32


class TF32(BuiltIn):
    """Set the process's switches while a run lasts, and put them back.

    Args:
        tf32: False computes in full fp32.
    """

    name = "tf32"

    def __init__(self, tf32: bool) -> None:
        self.tf32 = tf32
        self._switched = ExitStack()

    def wrap_model(self) -> None:
        """Set them at a run's first event, before anything of it computes.

        Raises:
            ConfigError: the process has used torch's newer switches.
        """
        self._switched.enter_context(using_tf32(self.tf32))

    def on_exception(self) -> None:
        """Put them back before anybody else is told that the run has failed."""
        self._switched.close()

    def on_close(self) -> None:
        """Put them back before anybody else is closed."""
        self._switched.close()
