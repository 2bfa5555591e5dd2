"""``plugins check`` tells which of the named plugins a GPU would wait for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

PLUGINS = """
import os
from training import Callback

class Quiet(Callback):
    hook_api = ">=1.0,<2"

    def on_setup(self): ...

class Reads(Callback):
    hook_api = ">=1.0,<2"

    def on_batch_end(self, logs):
        self.last = logs["loss"]

class Declares(Reads):
    hook_api = ">=1.0,<2"
    reads_device = {"on_batch_end": "the next batch depends on it"}

class Asks(Callback):
    hook_api = ">=1.0,<2"

    def __init__(self, every: int):
        self.every = every

class Wants(Callback):
    hook_api = ">=1.0,<2"

    def __init__(self, place: str = ""):
        if not place:
            raise ValueError("name a place")

class Leaves(Callback):
    hook_api = ">=1.0,<2"

    def on_setup(self):
        os._exit(7)
"""


def test_check_says_which_named_plugin_waits_for_a_gpu_and_where(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "waiting.py"
    file.write_text(PLUGINS)
    kinds = ("Quiet", "Reads", "Declares", "Leaves")
    code, out, err = command("plugins", "check", *(f"{file}:{kind}" for kind in kinds))
    told = out.replace(f"{file}:", "").splitlines()
    assert code == 2
    assert "Leaves" in err
    line = 1 + PLUGINS.splitlines().index('        self.last = logs["loss"]')
    assert told[:3] == [
        "Quiet: good",
        "Reads: good",
        "  Reads.on_batch_end waits for the device (a number that is read) at "
        f'{line} in on_batch_end: self.last = logs["loss"], in 6 of 6 steps',
    ]
    assert told[3:5] == [
        "Declares: good",
        "  waits for the device in on_batch_end: the next batch depends on it",
    ]
    # It ends the process that tries it, not this one.
    assert told[5].startswith("Leaves: ")
    assert told[5] != "Leaves: good"


def test_who_cannot_be_made_without_options_is_not_called_good(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "waiting.py"
    file.write_text(PLUGINS)
    code, out, _ = command("plugins", "check", f"{file}:Asks", f"{file}:Wants")
    assert (code, out.replace(f"{file}:", "").splitlines()) == (
        0,
        [
            "Asks: imported, not tried: needs option every",
            "  give options in a test, as in "
            "assert_plugin_conforms(lambda: Asks(every=...))",
            "Wants: imported, not tried: ValueError: name a place",
            "  give options in a test, as in "
            "assert_plugin_conforms(lambda: Wants(...))",
        ],
    )
