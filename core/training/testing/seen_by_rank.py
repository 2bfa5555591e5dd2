"""What one of several processes sees a plugin do: what it asks, writes and waits in."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.testing.probes import Probe

#: Functions that tell the time.
CLOCKS = ("time", "monotonic", "perf_counter")
#: Seconds by which a fast clock runs ahead, more with each call of the plugin.
AHEAD = 3600.0


@dataclass(slots=True)
class SeenByRank(Probe):
    """Watches the calls of a plugin in one process.

    Attributes:
        file: what is seen is written there, also before a call that may not return.
        is_fast: whether clocks run ahead inside of the plugin's calls.
        asked: (hook, kind, step) of each request that the plugin made.
        written: path -> the hook in which it was written.
        hook: that is being called, ``""``: none.
        failed_in: the first hook that raised.
        calls: of the plugin, so far.
    """

    file: Path = Path()
    is_fast: bool = False
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)
    hook: str = ""
    failed_in: str = ""
    calls: int = 0

    def watch_process(self, trainer: Any) -> None:
        """Begin to watch; for the rest of this process's life."""
        self.watch_run(trainer)
        sys.addaudithook(self._hear)
        if self.is_fast:
            self._speed_up(trainer.plugins.get(self.name))

    def watch(self, hook: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call ``function``; note what it asks for."""
        before, outer = len(self.trainer.requests), self.hook
        self.hook, self.calls = hook, self.calls + 1
        if hook.startswith("on_") or hook == "evaluate":
            self.tell("", False)  # it may wait for ever
        try:
            return function(*arguments)
        except BaseException:
            self.failed_in = self.failed_in or hook
            raise
        finally:
            self.hook = outer
            for request in self.trainer.requests[before:]:
                if request.owner == self.name:
                    self.asked.append((hook, request.kind, request.step))

    def tell(self, error: str, is_refusal: bool) -> None:
        """Write down what was seen so far, and how it ended."""
        is_main_only = self.trainer is not None and (
            self.name in self.trainer.bus.main_only
        )
        place = self.hook or self.failed_in
        told = {
            "asked": self.asked,
            "written": list(self.written.items()),
            "place": f"{self.name}.{place}" if place else "the run itself",
            "error": error,
            "step": 0 if self.trainer is None else self.trainer.step,
            "is_refusal": is_refusal,
            "is_main_only": is_main_only,
        }
        hook, self.hook = self.hook, ""  # this file is not the plugin's
        self.file.write_text(json.dumps(told))
        self.hook = hook

    def _hear(self, event: str, arguments: Any) -> None:
        """Note a file that is opened for writing, or put in place, in a call."""
        if not self.hook:
            return
        if event == "open":
            path, mode, flags = arguments
            is_written = set(mode or "") & set("wax+") or (
                mode is None and flags & (os.O_WRONLY | os.O_RDWR)
            )
            if is_written and isinstance(path, (str, bytes, os.PathLike)):
                self._note(path)
        elif event == "os.rename":
            self._note(arguments[1])

    def _note(self, path: Any) -> None:
        whole = os.path.abspath(os.fsdecode(path))
        # A file without a name is opened by that of its folder.
        if not whole.startswith(("/dev/", "/proc/")) and not os.path.isdir(whole):
            self.written.setdefault(whole, self.hook)

    def _speed_up(self, plugin: Any) -> None:
        """Let the time that the plugin reads run ahead, more so with each call."""
        clocks = [getattr(time, name) for name in CLOCKS]
        fast = {id(clock): self._ahead_of(clock) for clock in clocks}
        package = type(plugin).__module__.partition(".")[0]
        modules = [m for n, m in sys.modules.items() if n.partition(".")[0] == package]
        for owner in (time, *modules, type(plugin), plugin):
            for name, value in list(getattr(owner, "__dict__", {}).items()):
                clock = fast.get(id(getattr(value, "__func__", value)))
                if clock is not None:
                    is_class = owner is type(plugin)
                    setattr(owner, name, staticmethod(clock) if is_class else clock)

    def _ahead_of(self, clock: Callable[[], float]) -> Callable[[], float]:
        def ahead() -> float:
            return clock() + (AHEAD * self.calls if self.hook else 0.0)

        return ahead
