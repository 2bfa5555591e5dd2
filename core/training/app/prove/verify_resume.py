"""Prove on a person's own data and plugins that a resume is exact.

Three processes: one trains straight on; one is killed after its first part; one goes
on from what that one saved. Then everything is compared, to the bit.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.bus.callback import Callback
from training.discovery.installed import SHIPPED
from training.discovery.signature import RESERVED
from training.errors import CheckpointError, ConfigError, DataError, TrainbusError
from training.files.named_paths import named_path, path_mistake
from training.messages.error_texts import text_of
from training.messages.tables import count

if TYPE_CHECKING:
    from training.trainer import Trainer

__all__ = ["verify_resume"]

#: Options of plugins that lead out of the run's folder; moved into it here.
PLACES = {"save_dir", "log_dir", "folder", "path"}
#: Exit codes of a process -> the error that it ended with; any other is a failure.
REFUSALS = {each.exit_code: each for each in (ConfigError, DataError)}
#: What is compared, in this order: what differs first explains the rest.
ORDER = (
    "batches",
    "model",
    "optimizer",
    "scaler",
    "rng",
    "data",
    "loader",
    "progress",
    "metrics",
    "history",
    "plugins",
)


def verify_resume(arguments: argparse.Namespace) -> None:
    """Train straight, and killed and resumed; print what was equal.

    Raises:
        CheckpointError: something differs; names the first thing.
    """
    from training.app.config.from_arguments import load
    from training.app.config.load import as_mapping
    from training.checkpoint.compare import first_difference

    if min(arguments.before, arguments.after) < 1:
        raise ConfigError("--before and --after count steps; use 1 or more")
    mapping = as_mapping(load(arguments))
    places = [str(named_path(folder).absolute()) for folder in arguments.folders]
    end = arguments.before + arguments.after
    with tempfile.TemporaryDirectory(prefix="verify-resume-") as name:
        folder = Path(name)
        plan = {"folders": places, "end": end}
        straight = _run(folder, "straight", mapping, at=arguments.before, **plan)
        _run(folder, "killed", mapping, at=arguments.before, kill=True, **plan)
        middle = folder / "killed.pt"
        if not middle.exists():
            raise ConfigError(
                f"the run ended before step {arguments.before}; use a smaller --before"
            )
        resumed = _run(folder, "killed", mapping, at=None, load=str(middle), **plan)
        middles = [_plugins_in(folder / f"{n}.pt") for n in ("straight", "killed")]
    done = straight["progress"]["step"]
    if done == arguments.before:
        raise ConfigError(
            f"the run ends at step {done}, so that nothing is left to do after it was "
            "killed; use a smaller --before"
        )
    _expect_ids(straight, resumed, *middles)
    number = len(straight["batches"])
    straight["batches"] = straight["batches"][number - len(resumed["batches"]) :]
    for part in ORDER:
        found = first_difference(straight[part], resumed[part], part)
        if found is not None:
            raise CheckpointError(
                f"the resumed run is another one: {found} (straight and resumed, after "
                f"step {done}); {_hint(part, straight['forgetful'])}"
            )
        print(f"equal: {part}{_size(part, resumed[part])}")
    more = done - arguments.before
    print(f"{count(arguments.before, 'step')}, killed, {more} more: bit-identical")


def _plugins_in(path: Path) -> Any:
    from training.checkpoint_io import read_checkpoint

    return read_checkpoint(path)["plugins"]


def _expect_ids(straight: Any, resumed: Any, own: Any, saved: Any) -> None:
    """Compare what two equal runs have each their own of with what was saved.

    An id that a run has drawn for itself goes on as it was saved; what moves with a
    clock is compared with nothing.

    Args:
        straight: what the straight run has left; changed in place.
        resumed: what the resumed run has left; changed in place.
        own: states of the straight run's plugins in the middle.
        saved: those of the run that was killed there.
    """
    from training.checkpoint.compare import entries_of_each

    for name in own.keys() & saved.keys() & straight["plugins"].keys():
        end = straight["plugins"][name]
        moved = entries_of_each(own[name], end)
        for entry in entries_of_each(own[name], saved[name]):
            if entry not in moved:
                end[entry] = saved[name].get(entry)
                continue
            for each in (end, resumed["plugins"].get(name, {})):
                each.pop(entry, None)


HINTS = {
    "batches": "a dataset that keeps its own generator, or a loader that cannot skip, "
    "gives other samples: draw from python's, numpy's or torch's global generators",
    "model": "an operation that is not deterministic: try "
    "torch.use_deterministic_algorithms(True)",
    "optimizer": "an option or state of it is set by what no checkpoint holds",
    "rng": "something draws random numbers a different number of times",
    "plugins": "the plugin's state_dict and load_state_dict do not return and take all "
    "that it has learnt",
}


def _hint(part: str, forgetful: list[str]) -> str:
    """Return what may be the cause, plugins without a state first."""
    hint = HINTS.get(part, "this is a bug, please report it")
    if part not in ("batches", "model", "optimizer") or not forgetful:
        return hint
    return (
        f"{', '.join(forgetful)} may change training and keeps no state: return what "
        f"it counts from state_dict() and take it back in load_state_dict(); or {hint}"
    )


def _kept_inside(mapping: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the configuration with places inside ``folder`` for those outside.

    What a plugin names stays apart from what another one does. A file that is there may
    be read or written, so that a third party's plugin gets a copy, as large as it is.
    """
    plugins = []
    for index, item in enumerate(mapping.get("plugins", [])):
        if isinstance(item, Mapping):
            ((name, options),) = item.items()
            own = folder / f"plugin-{index}"
            item = {name: {k: _moved(name, k, v, own) for k, v in options.items()}}
        plugins.append(item)
    training = {**mapping.get("training", {}), "save_dir": str(folder)}
    return {**mapping, "plugins": plugins, "training": training}


def _moved(plugin: str, option: str, value: Any, folder: Path) -> Any:
    """Return the option's value, or if it names a place or file one in ``folder``."""
    if option in RESERVED or not isinstance(value, str):
        return value
    is_place = option in PLACES or (plugin, option) == ("csv", "filename")
    named = os.path.expanduser(value)
    is_file = not path_mistake(value) and os.path.isfile(named)
    is_copied = plugin not in SHIPPED and is_file
    if not is_place and not is_copied:
        return value
    place = folder / option / Path(value).name
    place.parent.mkdir(parents=True, exist_ok=True)
    # The resumed run goes on with what the killed one left.
    if is_copied and not place.exists():
        shutil.copy(named, place)
    return str(place)


def _run(folder: Path, name: str, mapping: dict[str, Any], **plan: Any) -> Any:
    """Train in a process of its own; return the end state, None if it was killed."""
    import torch

    order = {**plan, "config": _kept_inside(mapping, folder / name)}
    order |= {"middle": str(folder / f"{name}.pt"), "out": str(folder / "out.pt")}
    (folder / "order.json").write_text(json.dumps(order))
    code = "from training.app.prove.verify_resume import child; child()"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "order.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    if plan.get("kill") and done.returncode == -signal.SIGKILL:
        return None
    if done.returncode:
        kind = REFUSALS.get(done.returncode, CheckpointError)
        raise kind(
            f"the {name} run failed with exit code {done.returncode}; its last words: "
            f"{done.stderr.strip()[-500:] or 'none'}"
        )
    return torch.load(folder / "out.pt", weights_only=True)


def child() -> None:
    """Do what the order file in the arguments says; the body of each process."""
    try:
        _obey()
    except TrainbusError as error:  # one that the person can mend: no traceback
        print(text_of(error), file=sys.stderr)
        sys.exit(error.exit_code)


def _obey() -> None:
    import torch

    from training.app.building.factory import create_trainer_from_config
    from training.checkpoint.state import capture
    from training.discovery import installed

    order = json.loads(Path(sys.argv[1]).read_text())
    for folder in order["folders"]:
        installed.use_folder(folder)
    probe = Probe(order)
    trainer = create_trainer_from_config(order["config"], callbacks=[probe])
    if order.get("load"):
        trainer.load_checkpoint(order["load"])
    trainer.train()
    state = capture(trainer)
    state["plugins"].pop(Probe.name, None)
    forgetful = [
        name
        for name, each in trainer.plugins.items()
        if name not in state["plugins"]
        and (getattr(each, "mutates", None) or getattr(each, "alters_training", None))
    ]
    kept = {"batches": probe.batches, "forgetful": forgetful}
    torch.save({**state, **kept}, order["out"])


class Probe(Callback):
    """Notes what each batch holds, saves and dies in the middle, stops at the end."""

    name = "verify_resume_probe"
    after = ("checkpointing",)

    def __init__(self, order: Mapping[str, Any]) -> None:
        self.order = order
        self.batches: list[int] = []

    def on_train_begin(self, trainer: Trainer) -> None:
        """Refuse a run of which nothing is left to do, where its length is known."""
        at, end = self.order["at"], trainer.total_steps
        if at is not None and end is not None and end <= at:
            raise ConfigError(
                f"the run ends at step {end}, so that nothing is left to do after step "
                f"{at}; use a smaller --before"
            )

    def on_batch_begin(self, inputs: Any) -> None:
        """Note a checksum of the batch."""
        self.batches.append(_checksum(inputs, 0))

    def on_step_end(self, trainer: Trainer) -> None:
        """Ask for the checkpoint in the middle, and for the end."""
        if trainer.step == self.order["at"]:
            trainer.request_checkpoint("the middle")
        if trainer.step == self.order["end"]:
            trainer.request_stop("the end")

    def on_checkpoint(self, trainer: Trainer) -> None:
        """Save in the middle, and vanish there if that is the order."""
        path = Path(self.order["middle"])
        if trainer.step == self.order["at"] and not path.exists():
            trainer.save_checkpoint(path)
            if self.order.get("kill"):
                os.kill(os.getpid(), signal.SIGKILL)


def _checksum(value: Any, so_far: int) -> int:
    """Return a CRC32 over all tensors and plain values in a batch."""
    if hasattr(value, "detach"):
        plain = value.detach().cpu().contiguous()
        shape = f"{plain.dtype}{tuple(plain.shape)}"
        content = plain.view(-1).numpy(force=True).tobytes() if plain.numel() else b""
        return zlib.crc32(content, zlib.crc32(shape.encode(), so_far))
    if isinstance(value, Mapping):
        for name in value:
            so_far = _checksum(value[name], zlib.crc32(str(name).encode(), so_far))
        return so_far
    if isinstance(value, (list, tuple)):
        for item in value:
            so_far = _checksum(item, so_far)
        return so_far
    return zlib.crc32(repr(value).encode(), so_far)


def _size(part: str, value: Any) -> str:
    if part == "batches":
        return f", {len(value)} of them"
    if part == "model":
        return f", {count(len(value), 'tensor')}"
    if part == "plugins":
        return f", {', '.join(sorted(value)) or 'none has a state'}"
    return ""
