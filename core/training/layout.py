"""The parts of a checkpoint and their types, as docs/checkpoint-format.md has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from training.checkpoint.checks import parts
from training.checkpoint.checks.settings import check_settings
from training.checkpoint.compare import first_difference
from training.checkpoint_io import UnreadableError, read_checkpoint
from training.errors import CheckpointError
from training.files.named_paths import named_path, open_file

if TYPE_CHECKING:
    from training.hardware.strategy import Strategy

#: Part -> its type; a mapping stands for a part with parts that must be there.
LAYOUT: dict[str, Any] = {
    "settings": dict,
    "progress": {
        "epoch": int,
        "step": int,
        "update": int,
        "batch": int,
        "loss_sum": (int, float),
        "weight_sum": (int, float),
    },
    "model": dict,
    "optimizer": {"state": dict, "param_groups": list},
    "scaler": (dict, type(None)),
    "rng": {"python": list, "torch": Tensor},
    "data": list,
    "history": list,
    "metrics": dict,
    "requests": list,
    "plugins": dict,
}


def _check_weights_are(label: Any, state: Mapping[str, Any]) -> None:
    """Which weights a plugin had put in place."""
    parts.require(isinstance(label, str), "weights_are", label, "text")


#: Part -> what looks at its values; those that a file may lack stand here, too.
CHECKS: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "settings": check_settings,
    "progress": parts.check_progress,
    "model": parts.check_model,
    "left_out": parts.check_left_out,
    "loss": parts.check_loss,
    "optimizer": parts.check_optimizer,
    "trainable": parts.check_trainable,
    "in_eval": parts.check_in_eval,
    "scaler": parts.check_scaler,
    "rng": parts.check_rng,
    "data": parts.check_data,
    "history": parts.check_history,
    "metrics": parts.check_metrics,
    "requests": parts.check_requests,
    "asked": parts.check_asked,
    "plugins": parts.check_plugins,
    "distributions": parts.check_distributions,
    "metadata": parts.check_metadata,
    "weights_are": _check_weights_are,
}
#: What each of ``ranks`` has of its own, and may have.
RANK, OF_RANK = {"rng": LAYOUT["rng"]}, ("rng", "data")
SAFETENSORS = ".safetensors"


def read_state(path: str | Path) -> dict[str, Any]:
    """Return the state in ``path``, verified, with every part there and of its type.

    Raises:
        UnreadableError: as ``read_checkpoint``, or names the first part that is missing
            or that holds a value which no run could have saved there.
        CheckpointError: of a newer format.
    """
    path = named_path(path)
    if _is_safetensors(path):
        raise UnreadableError(
            f"{str(path)!r} is a safetensors file: weights alone, from which no run "
            "goes on and which do not say how their model was made; name a checkpoint, "
            "or take the weights with load_checkpoint(path, weights_only=True)"
        )
    state = read_checkpoint(path)
    problem = _problem(state, LAYOUT, "") or _wrong_value(state)
    problem = problem or _wrong_rank(state.get("ranks", []))
    if problem is not None:
        raise UnreadableError(
            f"checkpoint {str(path)!r} is not as save_checkpoint writes it: {problem}; "
            "use an earlier one"
        )
    return state


def read_weights(path: str | Path) -> dict[str, Any]:
    """Return a state of which ``model`` counts: of a checkpoint or a safetensors file.

    Raises:
        UnreadableError: as ``read_state``, or it is no complete safetensors file.
    """
    path = named_path(path)
    if not _is_safetensors(path):
        return read_state(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {"model": load_file(path, device="cpu")}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UnreadableError(
            f"{str(path)!r} is no complete safetensors file ({error}); export it anew"
        ) from error


def read_by_all(
    strategy: Strategy, path: str | Path, weights_only: bool = False
) -> dict[str, Any]:
    """Return a state that each process of the run has read for itself.

    Raises:
        CheckpointError: one cannot read it, or finds another file there.
    """
    read = read_weights if weights_only else read_state
    state = strategy.on_each(lambda: read(path))
    seen = {part: state.get(part) for part in ("progress", "metrics", "requests")}
    by_main, *others = strategy.gather(seen)
    for rank, by_other in enumerate(others, 1):
        if (found := first_difference(by_main, by_other)) is not None:
            raise CheckpointError(
                f"{str(path)!r} is another file for rank {rank} than for the main "
                f"process ({found}); keep checkpoints where all processes see them"
            )
    return state


def _is_safetensors(path: Path) -> bool:
    """Whether the name says so, or the file begins as such a file does."""
    try:
        with open_file(path) as file:
            start = file.read(9)
    except OSError:
        return False  # whoever reads it says why it cannot be read
    return path.suffix == SAFETENSORS or (start[8:] == b"{" and start[6:8] == b"\0\0")


def _problem(
    state: Mapping[str, Any], layout: Mapping[str, Any], at: str
) -> str | None:
    for name, kind in layout.items():
        if name not in state:
            return f"{at}{name} is missing"
        value = state[name]
        inner = kind if isinstance(kind, dict) else None
        if not isinstance(value, dict if inner is not None else kind):
            return f"{at}{name} is {parts.shown(value)}"
        found = None if inner is None else _problem(value, inner, f"{at}{name}.")
        if found is not None:
            return found
    return None


def _wrong_value(state: Mapping[str, Any]) -> str | None:
    for name, check in CHECKS.items():
        if name in state:
            try:
                check(state[name], state)
            except parts.WrongValue as wrong:
                return str(wrong)
    return None


def _wrong_rank(ranks: Any) -> str | None:
    """Look at the places of the other processes, each like parts of the file."""
    if not isinstance(ranks, list):
        return f"ranks is {parts.shown(ranks)}, not a list of places"
    for number, place in enumerate(ranks):
        at = f"ranks[{number}]"
        if not isinstance(place, dict):
            return f"{at} is {parts.shown(place)}, not a mapping"
        if (found := _problem(place, RANK, f"{at}.")) is not None:
            return found
        if not isinstance(place.get("data", []), list):
            return f"{at}.data is {parts.shown(place['data'])}"
        own = {part: place[part] for part in OF_RANK if part in place}
        if (found := _wrong_value(own)) is not None:
            return f"{at}.{found}"
    return None
