"""What holds numbers and tensors of a run that no checkpoint asks for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from training.hardware.rng import is_generator
from training.modules.frozen_weights import WHOLE, sample_of
from training.modules.of_user import has_users_hook, is_users_object
from training.modules.plain_names import named_parts
from training.modules.reachable import OF_MODULES, held_in, joined
from training.modules.unsaved_buffers import holds_numbers
from training.plain import is_number

#: Its dotted place, and what is there.
Held = tuple[str, Any]
#: What differs if a number or tensor has moved, by name and, of tensors, by kind.
Marks = dict[tuple[str, Hashable], Any]


class UnsavedHolders:
    """Modules, their optimizer and what is beside them, by what they hold unsaved.

    That is numbers and tensors among plain attributes; of a module in one, as in a
    list, also parameters and buffers. Passed over are torch's own optimizers, modules
    and optimizers that save more than torch does, by methods or hooks, and metrics that
    are saved; and tensors with a graph, as a loss that is kept: they are of one step.

    Args:
        modules: part -> module, such as the model.
        optimizer: that of the run.
        beside: returns what can be reached from functions of the user, and objects
            whose tensors and modules others save, as plugins do.
    Attributes:
        optimizer: as passed.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        optimizer: Optimizer,
        beside: Callable[[], tuple[list[Held], list[Any]]] = lambda: ([], []),
    ) -> None:
        self._modules, self.optimizer, self._beside = dict(modules), optimizer, beside

    def in_optimizer(self) -> list[str]:
        """Return the places of optimizers and generators that it does not save."""
        return [
            place
            for place, each in _inside_of(_own_attributes(self.optimizer))
            if is_generator(each)
            or (isinstance(each, Optimizer) and not _is_merged(each, self.optimizer))
        ]

    def marks(self) -> Marks:
        """Return what differs if it has moved; waits for the device once a tensor.

        Of another shape it is another one, such as a cache for longer inputs.
        """
        beside, kept = self._beside()
        theirs = [each for _, each in _inside_of(dict(enumerate(kept)))]
        # Only whole ones: of the parts of a sharded one there is no other view.
        whole = [each for each in self._saved(theirs) if type(each) in WHOLE]
        saved = {_storage_of(each) for each in whole if holds_numbers(each)}
        marks: Marks = {}
        passed = set(map(id, kept))
        for name, value in self._held(beside, _modules_in(theirs), passed):
            if isinstance(value, Tensor):
                if _is_plain(value) and _storage_of(value) not in saved:
                    numbers = sample_of(value).tolist()
                    # The version counts what is written beside the sample.
                    marks[name, (value.dtype, value.shape)] = numbers, value._version
            # NaN differs from itself, and would always seem to have moved.
            elif is_number(value) and value == value:
                marks[name, None] = value
        return marks

    def _saved(self, theirs: Iterable[Any]) -> Iterator[Tensor]:
        """Yield what is saved, and gradients: another tensor may be a view of them."""
        yield from (each for each in theirs if isinstance(each, Tensor))
        for module in {*_modules_in(self._modules.values()), *_modules_in(theirs)}:
            for parameter in module.parameters(recurse=False):
                yield parameter
                if parameter.grad is not None:
                    yield parameter.grad
            yield from module.buffers(recurse=False)
        for state in getattr(self.optimizer, "state", {}).values():
            yield from (each for _, each in held_in(state) if isinstance(each, Tensor))

    def _held(
        self, beside: list[Held], theirs: set[nn.Module], passed: set[int]
    ) -> Iterator[Held]:
        """Yield all attributes and variables that no checkpoint asks for.

        And weights of modules that are found there.
        """
        own = _modules_in(self._modules.values())
        seen = theirs - own
        found: list[Held] = [*self._modules.items(), *beside]
        if not _is_of_torch(self.optimizer):
            found += _inside_of(_own_attributes(self.optimizer), "optimizer", passed)
        for place, value in found:  # grows
            if not isinstance(value, nn.Module):
                yield place, value
                continue
            new = [each for each in named_parts({place: value}) if each[1] not in seen]
            for name, module in new:
                seen.add(module)
                if module not in own:  # nobody asks it for what it saves
                    tensors = {**module._parameters, **module._buffers}
                    found += [
                        (joined(name, n), t.detach())
                        for n, t in tensors.items()
                        if t is not None and type(t) in WHOLE
                    ]
                elif _saves_more(module) or _is_kept(module):
                    continue
                found += _inside_of(_own_of(module), name, passed)


def _modules_in(values: Iterable[Any]) -> set[nn.Module]:
    wholes = [each for each in values if isinstance(each, nn.Module)]
    return {module for whole in wholes for module in whole.modules()}


def _is_merged(inner: Optimizer, outer: Optimizer) -> bool:
    """Whether the state of the outer optimizer has all that the inner one's has.

    Before a step there is none: then one that loads in a way of its own is trusted
    with the states of its parameters.
    """
    if inner.state is outer.state:
        return True
    if any(inner.state.values()):
        return all(
            value is outer.state.get(parameter, {}).get(name)
            for parameter, state in inner.state.items()
            for name, value in state.items()
        )
    own = {each for group in outer.param_groups for each in group["params"]}
    steps = {each for group in inner.param_groups for each in group["params"]}
    takes_back = type(outer).load_state_dict is not Optimizer.load_state_dict
    return takes_back and steps <= own


def _inside_of(
    attributes: Mapping[Any, Any], of: str = "", passed: Collection[int] = ()
) -> Iterator[Held]:
    """Yield what counts in attributes, and in those of a user's object among them."""
    # One by one: a long list is data, but a class may have many attributes.
    for name, value in attributes.items():
        if id(value) in passed and not is_number(value):
            continue
        parts = vars(value) if is_users_object(value) else {"": value}
        for part, each in parts.items():
            for place, held in held_in(each, joined(str(name), part)):
                yield joined(of, place), held


def _own_of(module: nn.Module) -> dict[str, Any]:
    """Return the attributes beside what is saved; what torch hides it makes anew."""
    is_of_torch = _is_of_torch(module)
    return {
        name: value
        for name, value in vars(module).items()
        if name not in OF_MODULES and not (is_of_torch and name.startswith("_"))
    }


def _own_attributes(optimizer: Optimizer) -> dict[str, Any]:
    """Return the attributes that torch's own class does not have.

    None of one that saves by itself: it has a ``state_dict`` of its own, or hooks that
    add to torch's and take that back.
    """
    if type(optimizer).state_dict is not Optimizer.state_dict:
        return {}
    own = vars(optimizer)
    puts, *takes = (
        has_users_hook(own.get(f"_optimizer_{name}_hooks", {}))
        for name in ("state_dict_post", "load_state_dict_pre", "load_state_dict_post")
    )
    if puts and any(takes):
        return {}
    return {
        name: value
        for name, value in own.items()
        if name not in ("defaults", "param_groups", "state")
        and not name.startswith("_optimizer_")
    }


def _is_of_torch(holder: Any) -> bool:
    return type(holder).__module__.startswith("torch.")


def _saves_more(module: nn.Module) -> bool:
    """Whether it saves more than its tensors, and takes it back: by methods or hooks.

    Not by those of one side alone, such as one that renames what is loaded, nor by
    those that torch puts there, as its ``spectral_norm`` does.
    """

    def has_own(name: str) -> bool:
        return getattr(type(module), name) is not getattr(nn.Module, name)

    saves = has_own("_save_to_state_dict") or has_users_hook(module._state_dict_hooks)
    loads = (
        has_own("_load_from_state_dict")
        or has_users_hook(module._load_state_dict_pre_hooks)
        or has_users_hook(module._load_state_dict_post_hooks)
    )
    whole = has_own("state_dict") and has_own("load_state_dict")
    return has_own("get_extra_state") or whole or (saves and loads)


def _is_kept(module: nn.Module) -> bool:
    """Whether it is a metric of torchmetrics that is in its ``state_dict``."""
    flags = vars(module).get("_persistent")
    return isinstance(flags, dict) and bool(flags) and all(flags.values())


def _is_plain(value: Tensor) -> bool:
    # One that requires gradients is saved, or was computed in some step.
    return type(value) in WHOLE and not value.requires_grad and holds_numbers(value)


def _storage_of(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()
