"""One validation loader or several, each of which is wrapped and measured by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from training.errors import ConfigError
from training.feed.epoch_loader import refuse_one_shot
from training.feed.structure import attribute_of

Loader = Iterable[Any]


def refuse_several(train_dataloader: Any) -> None:
    """Raise ``ConfigError`` for several loaders where one is meant."""
    if isinstance(train_dataloader, Mapping) or _holds_loaders(train_dataloader):
        kind = type(train_dataloader).__name__
        raise ConfigError(
            f"train_dataloader is a {kind} of {len(train_dataloader)}; a run trains on "
            "one loader: join the data sets with ConcatDataset"
        )


def named_loaders(given: Any) -> Loader | Mapping[str, Loader] | None:
    """Return ``given``, several loaders as a mapping by name.

    Args:
        given: ``val_dataloader`` as the user passed it. A mapping holds loaders by
            name; a list or tuple of loaders that have a ``dataset`` names them by their
            place, ``"0"``, ``"1"`` and so on; anything else is one loader.
    Raises:
        ConfigError: something among them is no loader, or can be iterated once only.
    """
    if given is None:
        return None
    # A list of batches is one loader: only a data set inside makes it several.
    if isinstance(given, (list, tuple)) and _holds_loaders(given):
        given = {str(place): loader for place, loader in enumerate(given)}
    if not isinstance(given, Mapping):
        refuse_one_shot(given, "val_dataloader")
        return given  # type: ignore[no-any-return]
    if not given:
        raise ConfigError("val_dataloader is an empty mapping; pass loaders by name")
    for name, loader in given.items():
        _check_named(name, loader)
    # A copy: the user's mapping may change after this was checked.
    return dict(given)


def loaders_by_name(loaders: Any) -> Mapping[str, Loader]:
    """Return what ``trainer.val_dataloader`` holds by name; one loader is ``""``."""
    if loaders is None:
        return {}
    return loaders if isinstance(loaders, Mapping) else {"": loaders}


def wrapped_loaders(wrap: Callable[[Loader], Loader | None], loaders: Any) -> Any:
    """Return ``loaders``, each replaced by what ``wrap`` makes of it.

    Args:
        wrap: loader -> what takes its place; None: nothing.
        loaders: one, or several by name, or None.
    """
    found = {}
    for name, loader in loaders_by_name(loaders).items():
        wrapped = wrap(loader)
        found[name] = loader if wrapped is None else wrapped
    return found if isinstance(loaders, Mapping) else found.get("")


def _holds_loaders(value: Any) -> bool:
    """Whether a list begins with a loader; a batch may be a list, but has no data set.

    It is not iterated: a list of batches may load them one by one.
    """
    return isinstance(value, (list, tuple)) and any(
        isinstance(each, DataLoader) or attribute_of(each, "dataset") is not None
        for each in value[:1]
    )


def _check_named(name: Any, loader: Any) -> None:
    place = f"val_dataloader[{name!r}]"
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise ConfigError(f"{place}: a loader's name is a text, such as 'clean'")
    # All of these can be iterated, and would give rows or letters for batches.
    if isinstance(loader, (Mapping, Tensor, str)) or _holds_loaders(loader):
        raise ConfigError(
            f"{place} is a {type(loader).__name__}; pass a DataLoader or a list of "
            "batches for each name"
        )
    refuse_one_shot(loader, place)
