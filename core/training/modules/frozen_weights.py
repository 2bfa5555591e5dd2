"""Leave weights that training cannot change out of a checkpoint, and know them again.

A run that trains adapters beside a large model writes the adapters alone. Who goes on
from such a file has the rest already; a digest tells whether it is the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from training.errors import CheckpointError
from training.messages.tables import count
from training.modules.plain_names import as_plain, plain_name, some, weights_of

#: The part of a checkpoint that names what is not in it.
LEFT_OUT = "left_out"
WHOLE = (Tensor, nn.Parameter)
#: Numbers of a weight that are compared at each save.
SAMPLE = 64


class FrozenWeights:
    """The parameters of a model that need no gradient when this is made.

    Args:
        model: wrapped or not.
    """

    def __init__(self, model: nn.Module) -> None:
        # Tied parameters go by several names.
        named = model.named_parameters(remove_duplicate=False)
        self._frozen = {
            plain_name(model, name): (value, tensor_version(value), sample_of(value))
            for name, value in named
            if not value.requires_grad
        }
        self._names: list[str] = []
        self._digest = ""

    def leave_out(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the state of a run without those that are as they were.

        One that somebody has written to, or has made trainable, stays in the state;
        writing through ``.data`` leaves no mark and is told by some of the numbers.
        The first call reads all the others, which takes about a second a gigabyte.

        Raises:
            CheckpointError: they are parts, of which no process can tell the digest.
        """
        model = state["model"]
        names = sorted(
            name
            for name, (value, mark, sample) in self._frozen.items()
            if name in model
            and not value.requires_grad
            and tensor_version(value) == mark
            # Waits for the device once a weight.
            and torch.equal(sample_of(value), sample)
        )
        if any(type(model[name]) not in WHOLE for name in names):
            raise CheckpointError(
                "nothing was saved: a sharded checkpoint leaves no weights out; save "
                "all of them, or with distributed.checkpoint 'full'"
            )
        if not names:
            return dict(state)
        if names != self._names:
            self._names, self._digest = names, digest_of(model, names)
        left = {name: value for name, value in model.items() if name not in set(names)}
        part = {"names": names, "digest": self._digest}
        return {**state, "model": left, LEFT_OUT: part}


def is_whole(state: Mapping[str, Any]) -> bool:
    """Whether no weight was left out of a checkpoint; its part may be there, empty."""
    return LEFT_OUT not in state or not state[LEFT_OUT]["names"]


def complete(model: nn.Module, state: dict[str, Any], source: str) -> None:
    """Put into ``state`` what was left out of it: the weights that ``model`` has.

    And those that go by a second name, as of tied layers: libraries write one of them.

    Args:
        model: what will take the weights.
        state: of a checkpoint; changed in place. Its weights then have plain names.
        source: the checkpoint, for messages.
    Raises:
        CheckpointError: the model has others there than the run that was saved.
    """
    saved = state["model"] = as_plain(model, state["model"])
    live = weights_of(model, keep_vars=True)
    known = {id(live[name]): value for name, value in saved.items() if name in live}
    for name, weight in live.items():
        if isinstance(weight, Tensor) and id(weight) in known:
            saved.setdefault(name, known[id(weight)])
    part = state.pop(LEFT_OUT, None)
    if part is None or not part["names"]:
        return
    own = weights_of(model)
    missing = [name for name in part["names"] if name not in own]
    if missing:
        raise CheckpointError(
            f"checkpoint {source!r} holds trained weights alone and does not fit this "
            f"model, which lacks {some(missing)}: build the model as it was"
        )
    if digest_of(own, part["names"]) != part["digest"]:
        raise CheckpointError(
            f"checkpoint {source!r} holds trained weights alone, and what else the "
            f"model has ({count(len(part['names']), 'weight')}) is not of its "
            "run: load the same base model before it"
        )
    state["model"] |= {name: own[name] for name in part["names"]}


def tensor_version(value: Tensor) -> tuple[int, int]:
    """Return what changes when somebody writes to a tensor, or puts it elsewhere."""
    return value.data_ptr(), value._version


def sample_of(value: Tensor) -> Tensor:
    """Return bytes of 64 of its numbers, or of the part here, spread over all."""
    local: Tensor = getattr(value, "to_local", value.detach)()
    local = local.detach()
    is_plain = local.layout is torch.strided and not local.is_nested
    if not is_plain or local.is_meta or local.is_quantized:
        return torch.empty(0)
    step = max(1, local.numel() // SAMPLE)
    if local.is_contiguous():
        some_of = local.view(-1)[::step][:SAMPLE]
    else:  # flattening it would copy the whole
        places = torch.arange(0, local.numel(), step, device=local.device)[:SAMPLE]
        try:
            some_of = local[torch.unravel_index(places, local.shape)]
        except NotImplementedError:  # of types of less than a byte
            some_of = local.reshape(-1)[::step][:SAMPLE]
    # As bytes: not every type can be compared, and NaN differs from itself.
    return some_of.clone().contiguous().view(torch.uint8)


def digest_of(weights: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return the SHA-256 of the tensors ``names``: of name, dtype, shape and bytes."""
    digest = hashlib.sha256()
    for name in names:
        value = weights[name].detach()
        if hasattr(value, "full_tensor"):  # sharded: all processes are here
            value = value.full_tensor()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        flat = value.cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.numpy().data)
    return digest.hexdigest()
