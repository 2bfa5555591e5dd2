"""Watch a plugin at work: what it changes, and when it reads the device."""

from __future__ import annotations

import copy
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from training.bus.meter import Meter
from training.logs import LazyLogs
from training.testing.equality import difference

#: Hooks that fire at least once a step: what they cost is paid all the time.
BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_before_step", "on_step_end")

#: Logs that lie on the device until somebody looks; on a CPU they may be floats.
DEVICE_LOGS = ("loss", "grad_norm")

# Methods of a tensor that make the CPU wait for the device, seen also on a CPU.
_READS = {
    *("item", "tolist", "numpy", "cpu", "nonzero", "is_nonzero"),
    *("__float__", "__int__", "__bool__", "__index__", "__array__", "__contains__"),
}


@dataclass(slots=True)
class Probe(Meter):
    """Base of probes: wraps the calls of one plugin.

    Attributes:
        name: the plugin under test.
        trainer: the run it is in.
    """

    name: str = ""
    trainer: Any = None

    def watch_run(self, trainer: Any) -> None:
        """Begin to watch the plugin in the run of ``trainer``."""
        self.trainer = trainer
        trainer.bus.meter = self

    def for_call(self, plugin: str, hook: str) -> Callable[..., Any]:
        """Return ``call(function, *arguments)``, watched if it is the plugin's."""

        def call(function: Callable[..., Any], *arguments: Any) -> Any:
            if plugin != self.name:
                return function(*arguments)
            return self.watch(hook, function, *arguments)

        return call

    def watch(self, hook: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call ``function`` and look at what it does."""
        raise NotImplementedError


@dataclass(slots=True)
class MutationProbe(Probe):
    """Finds hooks that change the run.

    Attributes:
        changes: (hook, what it changed), each pair once.
        calls: hook -> calls.
        asked: (hook, number of its call from 1) -> kinds of what was asked for there.
    """

    changes: list[tuple[str, str]] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    asked: dict[tuple[str, int], list[str]] = field(default_factory=dict)

    def watch(self, hook: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Compare the run before and after the call."""
        self.calls[hook] += 1
        call, number = (hook, self.calls[hook]), len(self.trainer.requests)
        before = self._seen(arguments)
        try:
            return function(*arguments)
        finally:
            after = self._seen(arguments)
            if made := self.trainer.requests[number:]:
                self.asked[call] = [request.kind for request in made]
            # A plugin may ask for more, but take nothing back.
            after["requests"] = after["requests"][: len(before["requests"])]
            for what, value in before.items():
                if difference(value, after[what]) and (hook, what) not in self.changes:
                    self.changes.append((hook, what))

    def _seen(self, arguments: Sequence[Any]) -> dict[str, Any]:
        model, optimizer = self.trainer.model, self.trainer.optimizer
        parameters = list(model.parameters())
        grads = [parameter.grad for parameter in parameters]
        numpy = sys.modules.get("numpy")
        return {
            "parameters": [
                [t.detach().clone() for t in model.state_dict().values()],
                [parameter.requires_grad for parameter in parameters],
            ],
            "gradients": [None if g is None else g.detach().clone() for g in grads],
            # Its state, too, such as momenta.
            "optimizer": [
                *(copy.deepcopy(optimizer.state.get(each)) for each in parameters),
                *(
                    {k: copy.deepcopy(v) for k, v in group.items() if k != "params"}
                    for group in optimizer.param_groups
                ),
            ],
            "batch": [
                each.detach().clone()
                for each in _pytree.tree_leaves(arguments)
                if isinstance(each, torch.Tensor)
            ],
            "modes": [module.training for module in model.modules()],
            "history": self.trainer.history,
            "requests": [repr(request) for request in self.trainer.requests],
            "rng": [
                torch.get_rng_state(),
                repr(random.getstate()),
                repr(numpy.random.get_state()) if numpy else "",
            ],
        }


@dataclass(slots=True)
class ReadProbe(Probe):
    """Counts calls of per-batch hooks that read a tensor's value.

    Attributes:
        calls: hook -> calls.
        reads: hook -> calls that read the device.
        examples: hook -> the look-up or tensor method that did.
    """

    calls: Counter[str] = field(default_factory=Counter)
    reads: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def watch(self, hook: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call under a mode that sees every tensor method."""
        if hook not in BATCH_HOOKS:
            return function(*arguments)
        self.calls[hook] += 1
        with _Reads() as mode:
            seen = mode.seen
            result = function(*(_counted(value, seen) for value in arguments))
        if mode.seen:
            self.reads[hook] += 1
            self.examples[hook] = mode.seen[0]
        return result


class _Reads(TorchFunctionMode):
    """Notes calls of tensor methods that wait for the device.

    What a call makes of numbers alone and names no device for lies on the host, as does
    what is made of that: to read it waits for nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self._on_host: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        given = _pytree.tree_leaves((args, kwargs))
        is_on_host = all(
            any(each is own for own in self._on_host)
            for each in given
            if isinstance(each, Tensor)
        )
        if name in _READS and not is_on_host:
            self.seen.append(f"Tensor.{name}")
        result = func(*args, **kwargs)
        if not is_on_host or _moves(name, args):  # also what is written to
            gone = {id(each) for each in (*given, result)}
            self._on_host = [own for own in self._on_host if id(own) not in gone]
        elif kwargs.get("device") is None:
            made = _pytree.tree_leaves(result)
            self._on_host += [each for each in made if isinstance(each, Tensor)]
        return result


def _moves(name: str, args: Sequence[Any]) -> bool:
    """Whether a call may put a tensor elsewhere, which a CPU does not show."""
    if name == "to":
        return not all(isinstance(each, (torch.dtype, Tensor)) for each in args)
    return name == "cuda"


class _CountedLogs(LazyLogs):
    """Logs that note each look-up of a value that may lie on the device."""

    __slots__ = ("_seen",)

    def __init__(self, logs: LazyLogs, seen: list[str]) -> None:
        super().__init__(logs._values)
        self._seen = seen

    def __getitem__(self, name: str) -> float:
        if name in DEVICE_LOGS:
            self._seen.append(f"logs[{name!r}]")
        return super().__getitem__(name)


def _counted(value: Any, seen: list[str]) -> Any:
    return _CountedLogs(value, seen) if isinstance(value, LazyLogs) else value
