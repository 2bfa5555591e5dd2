"""What the values in a checkpoint must be, each part by itself.

Every function takes a part and raises ``WrongValue`` at the first value that no run
could have saved there.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from training.modules.plain_names import some

#: Bytes of a generator's state on a GPU.
CUDA_STATE = 16
MOST = 2**63
#: What is said of a count.
COUNT = "a whole number of at least 0"
KINDS_OF_REQUEST = ("stop", "checkpoint", "evaluation")


class WrongValue(Exception):
    """Where in a checkpoint which value is wrong, as in ``rng.torch is 'x'``."""

    def __init__(self, at: str, value: Any, wanted: str) -> None:
        super().__init__(f"{at} is {shown(value)}, not {wanted}")


def shown(value: Any) -> str:
    """Return a value as a sentence can hold it."""
    if isinstance(value, Tensor):
        return f"a {value.layout} tensor of {value.dtype} {tuple(value.shape)}"
    kind = type(value).__name__
    if isinstance(value, dict):
        return f"{kind} of {some([str(name)[:40] for name in value], 3) or 'nothing'}"
    # Its text would be made in full first, of millions of numbers perhaps.
    if isinstance(value, (list, tuple, set)) and len(value) > 5:
        return f"{kind} of {len(value):,} values"
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # a whole number of thousands of digits
        text = "too large to show"
    return f"{kind} {text if len(text) <= 60 else text[:50] + '...'}"


def require(is_right: bool, at: str, value: Any, wanted: str) -> None:
    """Raise ``WrongValue`` unless ``is_right``."""
    if not is_right:
        raise WrongValue(at, value, wanted)


def is_count(value: Any, most: int = MOST) -> bool:
    """Whether it is a whole number from 0 to ``most``."""
    # Not isinstance: True is an int.
    return type(value) is int and 0 <= value <= most


def is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold; NaN and infinities are."""
    return type(value) is float or (type(value) is int and abs(value) <= MOST)


def is_finite(value: Any) -> bool:
    """Whether it is a number, and neither NaN nor infinite."""
    return is_number(value) and math.isfinite(value)


def is_json(value: Any) -> bool:
    """Whether it is made of what JSON has, and of tuples."""
    if isinstance(value, (list, tuple)):
        return all(map(is_json, value))
    if isinstance(value, dict):
        return has_names(value) and all(map(is_json, value.values()))
    return value is None or isinstance(value, (bool, int, float, str))


def is_name(value: Any) -> bool:
    """Whether it is text."""
    return isinstance(value, str)


def are_names(value: Any) -> bool:
    """Whether it is a list of texts."""
    return isinstance(value, list) and all(map(is_name, value))


def has_names(value: Any) -> bool:
    """Whether it is a mapping whose keys are text."""
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def is_dense(value: Any) -> bool:
    """Whether it is an ordinary tensor with its numbers at hand."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type != "meta"
        and not value.is_quantized
    )


def same_numbers(saved: Tensor, own: Tensor) -> bool:
    """Whether the numbers of one can be those of the other: no part would be lost."""
    kinds = [
        (each.is_complex(), each.is_floating_point(), each.dtype is torch.bool)
        for each in (saved, own)
    ]
    # Between float types nothing but precision is lost; whole numbers would wrap.
    is_whole = not any(kinds[1])
    return kinds[0] == kinds[1] and (not is_whole or saved.dtype == own.dtype)


def check_progress(progress: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Counters are whole, and none exceeds what it is a part of."""
    for name in ("epoch", "step", "update", "batch"):
        require(is_count(progress[name]), f"progress.{name}", progress[name], COUNT)
    for name in ("skipped_windows", "nonfinite_windows"):
        value = progress.get(name, 0)
        require(is_count(value), f"progress.{name}", value, COUNT)
    loss = progress["loss_sum"]
    require(is_number(loss), "progress.loss_sum", loss, "a number")
    weight, rate = (progress.get(name, 0.0) for name in ("weight_sum", "lr"))
    is_right = is_finite(weight) and weight >= 0
    require(is_right, "progress.weight_sum", weight, "a finite number of at least 0")
    require(is_finite(rate), "progress.lr", rate, "a finite number")
    sums = progress.get("part_sums", {})
    is_right = has_names(sums) and all(map(_is_sum, sums.values()))
    require(is_right, "progress.part_sums", sums, "names of sums and weights")
    step, skipped = progress["step"], progress.get("skipped_windows", 0)
    for name, value, most in (
        ("update", progress["update"] + skipped, step),
        ("nonfinite_windows", progress.get("nonfinite_windows", 0), skipped),
    ):
        wanted = f"within the {most} windows it is a part of"
        require(value <= most, f"progress.{name}", progress.get(name), wanted)
    decided, served = progress.get("decided", -1), progress.get("served", False)
    is_right = type(decided) is int and -1 <= decided <= step
    require(is_right, "progress.decided", decided, "-1 or a step so far")
    require(isinstance(served, bool), "progress.served", served, "True or False")
    wanted = f"within the {step} windows of the run, of which each epoch has one"
    require(progress["epoch"] <= step, "progress.epoch", progress["epoch"], wanted)
    # It would be in the mean of the epoch that begins.
    if progress["batch"] == 0 and progress["weight_sum"] == 0:
        for name, value in (("loss_sum", loss), ("part_sums", sums)):
            require(not value, f"progress.{name}", value, "0 before a first batch")


def _is_sum(value: Any) -> bool:
    is_pair = isinstance(value, list) and len(value) == 2
    return is_pair and is_number(value[0]) and is_finite(value[1]) and value[1] > 0


def check_model(model: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Weights are tensors that hold numbers; a module's extra state may be anything."""
    require(has_names(model), "model", model, "a mapping of names")
    for name, value in model.items():
        if not name.endswith("_extra_state"):
            is_right = isinstance(value, Tensor) and value.device.type != "meta"
            require(is_right, f"model[{name!r}]", value, "a tensor with data")


def check_left_out(left_out: Any, state: Mapping[str, Any]) -> None:
    """What the file does not hold goes by names, of which it holds none."""
    at = "left_out"
    is_right = has_names(left_out) and left_out.keys() == {"names", "digest"}
    require(is_right, at, left_out, "names and digest")
    names, digest = left_out["names"], left_out["digest"]
    is_right = are_names(names) and state["model"].keys().isdisjoint(names)
    require(is_right, f"{at}.names", names, "names of weights that are not in model")
    require(is_name(digest), f"{at}.digest", digest, "text")


def check_loss(loss: Any, state: Mapping[str, Any]) -> None:
    """What the loss keeps beside the model goes by names, as weights do."""
    require(has_names(loss), "loss", loss, "a mapping of names")
    for name, value in loss.items():
        is_right = not isinstance(value, Tensor) or value.device.type != "meta"
        require(is_right, f"loss[{name!r}]", value, "a tensor with data")


def check_trainable(names: Any, state: Mapping[str, Any]) -> None:
    """The parameters that require a gradient, by name."""
    require(are_names(names) and bool(names), "trainable", names, "a list of names")


def check_in_eval(names: Any, state: Mapping[str, Any]) -> None:
    """The modules that were in eval mode, by name."""
    require(are_names(names), "in_eval", names, "a list of names")


def check_optimizer(optimizer: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Each parameter is in one group; each state is of one of them."""
    groups, seen = optimizer["param_groups"], set()
    require(bool(groups), "optimizer.param_groups", groups, "a list of groups")
    for number, group in enumerate(groups):
        at = f"optimizer.param_groups[{number}]"
        is_right = has_names(group) and isinstance(group.get("params"), list)
        require(is_right, at, group, "a mapping with params")
        # A key twice would give two parameters one state.
        for each in group["params"]:
            is_key = is_count(each) or isinstance(each, str)
            require(is_key and each not in seen, f"{at}.params", each, "a new key")
            seen.add(each)
    for key, entry in optimizer["state"].items():
        at = f"optimizer.state[{key!r}]"
        is_key = isinstance(key, str) or (type(key) is int and key in seen)
        require(is_key, f"a key of {at}", key, "that of a parameter")
        if isinstance(key, str) and key not in seen:
            continue  # something an optimizer of its own kind keeps beside them
        require(has_names(entry), at, entry, "a mapping of names")

    if "names" in optimizer:
        _check_names(optimizer["names"], groups)


def _check_names(names: Any, groups: list[dict[str, Any]]) -> None:
    """There is a name for each parameter of each group, and none twice."""
    at, seen = "optimizer.names", set()
    is_right = isinstance(names, list) and len(names) == len(groups)
    require(is_right, at, names, f"{len(groups)} lists of names")
    for number, (listed, group) in enumerate(zip(names, groups, strict=True)):
        is_right = isinstance(listed, list) and len(listed) == len(group["params"])
        wanted = f"{len(group['params'])} names"
        require(is_right, f"{at}[{number}]", listed, wanted)
        for name in listed:
            is_new = isinstance(name, str) and name not in seen
            require(is_new, f"{at}[{number}]", name, "a new name")
            seen.add(name)


def check_scaler(scaler: Any, state: Mapping[str, Any]) -> None:
    """The scale and its factors are positive, its counters whole."""
    # None without fp16; a scaler that is switched off saves an empty mapping.
    if not scaler:
        return
    require(has_names(scaler), "scaler", scaler, "a mapping of names")
    for name in ("scale", "growth_factor", "backoff_factor"):
        value = scaler.get(name)
        is_right = is_finite(value) and value > 0
        require(is_right, f"scaler.{name}", value, "a number above 0")
    for name in ("growth_interval", "_growth_tracker"):
        value = scaler.get(name)
        require(is_count(value), f"scaler.{name}", value, COUNT)


def check_rng(rng: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Each generator's state is one that such a generator takes."""
    at, python = "rng.python", rng["python"]
    is_right = len(python) == 3 and isinstance(python[1], list)
    require(is_right, at, python, "a generator's state")
    gauss = python[2]
    require(gauss is None or is_finite(gauss), f"{at}[2]", gauss, "a number or None")
    words = python[1]
    require(all(map(is_count, words)), f"{at}[1]", words, "a list of whole numbers")
    # Its own setter judges it, on a generator of nobody's: no table to keep.
    take = random.Random().setstate
    _try(take, (python[0], tuple(words), gauss), at, python)
    require(python[0] == 3 and type(python[0]) is int, f"{at}[0]", python[0], "3")
    check_generator(rng["torch"], "rng.torch", on_cpu=True)
    if "numpy" in rng:
        _check_numpy(rng["numpy"])
    cuda = rng.get("cuda", [])
    require(isinstance(cuda, (list, Tensor)), "rng.cuda", cuda, "a list of states")
    for number, value in enumerate([cuda] if isinstance(cuda, Tensor) else cuda):
        check_generator(value, f"rng.cuda[{number}]", on_cpu=False)


def _check_numpy(value: Any) -> None:
    at = "rng.numpy"
    is_right = isinstance(value, list) and len(value) == 5
    require(is_right, at, value, "a generator's state")
    kind, words, position, has_gauss, gauss = value
    require(kind == "MT19937", f"{at}[0]", kind, "'MT19937'")
    is_words = isinstance(words, list) and len(words) == 624
    is_right = is_words and all(is_count(word, 2**32 - 1) for word in words)
    require(is_right, f"{at}[1]", words, "624 words of 32 bits")
    require(is_count(position, 624), f"{at}[2]", position, "a position")
    require(is_count(has_gauss, 1), f"{at}[3]", has_gauss, "0 or 1")
    require(is_finite(gauss), f"{at}[4]", gauss, "a number")


def check_generator(value: Any, at: str, on_cpu: bool | None = None) -> None:
    """A state of a torch generator is a row of bytes as long as such a one has.

    Args:
        value: what was saved.
        at: where.
        on_cpu: whether it is of a generator on the CPU; None: it may be.
    """
    is_bytes = is_dense(value) and value.dtype is torch.uint8 and value.dim() == 1
    require(is_bytes, at, value, "a generator's state")
    # A GPU need not be here to judge its state: the length tells.
    if on_cpu or (on_cpu is None and value.numel() != CUDA_STATE):
        _try(torch.Generator().set_state, value, at, value)
    else:
        require(value.numel() == CUDA_STATE, at, value, "a generator's state")


def check_data(data: list[Any], state: Mapping[str, Any]) -> None:
    """The states of the user's generators, which may be on a GPU."""
    for number, value in enumerate(data):
        check_generator(value, f"data[{number}]")


def check_history(history: list[Any], state: Mapping[str, Any]) -> None:
    """Each row maps names to numbers; epochs and steps are those of the run.

    They never go back; an epoch has two rows where a run ended inside it and went on.
    """
    least = {"epoch": 1, "step": 1}
    for number, row in enumerate(history):
        at = f"history[{number}]"
        require(has_names(row), at, row, "a row")
        for name, value in row.items():
            require(is_number(value), f"{at}.{name}", value, "a number")
        for name, more in (("epoch", 1), ("step", 0)):
            value, most = row.get(name), state["progress"][name] + more
            is_right = is_count(value, most) and value >= least[name]
            wanted = f"a {name} from {least[name]} to {most}"
            require(is_right, f"{at}.{name}", value, wanted)
            least[name] = value


def check_metrics(metrics: Mapping[Any, Any], state: Mapping[str, Any]) -> None:
    """Each is (value, step, epoch, producer), of a step and an epoch of the run."""
    progress = state["progress"]
    for name, value in metrics.items():
        at = f"metrics[{name!r}]"
        require(isinstance(name, str), f"a key of {at}", name, "a name")
        is_right = (
            isinstance(value, list)
            and len(value) == 4
            and is_number(value[0])
            and is_count(value[1], progress["step"])
            and is_count(value[2], progress["epoch"])
            and isinstance(value[3], str)
        )
        wanted = "a list of value, step, epoch and producer, of this run"
        require(is_right, at, value, wanted)


def check_requests(requests: list[Any], state: Mapping[str, Any]) -> None:
    """Each is (kind, owner, reason, step, epoch)."""
    for number, value in enumerate(requests):
        is_right = (
            isinstance(value, list)
            and len(value) == 5
            and all(isinstance(each, str) for each in value[:3])
            and value[0] in KINDS_OF_REQUEST
            and all(map(is_count, value[3:]))
        )
        wanted = "a list of kind, owner, reason, step and epoch"
        require(is_right, f"requests[{number}]", value, wanted)


def check_asked(asked: Any, state: Mapping[str, Any]) -> None:
    """What was asked for, each with its reason."""
    require(has_names(asked), "asked", asked, "a mapping of names")
    for name, value in asked.items():
        require(name in KINDS_OF_REQUEST, "a key of asked", name, "a kind of request")
        require(isinstance(value, str), f"asked.{name}", value, "a reason")


def check_plugins(plugins: Mapping[Any, Any], state: Mapping[str, Any]) -> None:
    """Each plugin's state is a mapping; what is in it, the plugin itself looks at."""
    for name, value in plugins.items():
        require(isinstance(name, str), "a key of plugins", name, "a name")
        require(isinstance(value, dict), f"plugins[{name!r}]", value, "a mapping")


def check_distributions(entries: Any, state: Mapping[str, Any]) -> None:
    """Each says where a plugin comes from."""
    require(has_names(entries), "distributions", entries, "a mapping of names")
    for name, entry in entries.items():
        at = f"distributions[{name!r}]"
        require(has_names(entry), at, entry, "a mapping of names")
        for key, value in entry.items():
            is_flag = key == "alters_training"
            is_right = value is None or isinstance(value, bool if is_flag else str)
            require(is_right, f"{at}.{key}", value, "text" if not is_flag else "a bool")


def check_metadata(metadata: Any, state: Mapping[str, Any]) -> None:
    """What a run was told to carry goes by names."""
    require(has_names(metadata), "metadata", metadata, "a mapping of names")


def _try(take: Callable[[Any], Any], value: Any, at: str, shown_as: Any) -> None:
    """Let a generator of nobody's take a state."""
    try:
        take(value)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise WrongValue(at, shown_as, "a generator's state") from error
