"""One plugin under test, and the runs that checks make of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from training.bus.registration import checked_name
from training.checkpoint.compare import entries_of_each
from training.testing.equality import state_of
from training.testing.runs import tiny_trainer
from training.testing.toys import FixedDuration, tiny_batches
from training.trainer import Trainer


@dataclass(slots=True)
class Case:
    """How to make the plugin, and what its runs need.

    Attributes:
        make: returns a fresh instance.
        folder: where the runs of a check write.
        options: of ``tiny_trainer``.
        max_seconds: median time that a call of a per-batch hook may take.
        remarks: what a check has to say that is no mistake.
    """

    make: Callable[[], Any]
    folder: Path
    options: Mapping[str, Any]
    max_seconds: float
    remarks: list[str] = field(default_factory=list)
    _own: Collection[str] | None = field(default=None, init=False)

    def trainer(self, name: str, *plugins: Any, **changes: Any) -> Trainer:
        """Return a trainer that writes to the folder ``name`` of this check.

        No failure of a plugin is passed over in it, be it isolated elsewhere.
        """
        for plugin in plugins:
            if getattr(plugin, "failure", None) == "isolate":
                with suppress(AttributeError):  # one that may not be set
                    plugin.failure = "fatal"
        options = {**self.options, **changes}
        return tiny_trainer(
            FixedDuration(), *plugins, save_dir=self.folder / name, **options
        )

    def shuffled(self, num_batches: int = 4) -> Case:
        """Return one whose runs read a shuffling ``DataLoader``, if none is given."""
        batches = tiny_batches(self.options.get("num_batches", num_batches))
        rows = TensorDataset(*map(torch.cat, zip(*batches, strict=True)))
        loader = DataLoader(rows, batch_size=2, shuffle=True)
        options = {"train_dataloader": loader, **self.options}
        return replace(self, folder=self.folder / "shuffled", options=options)

    def name_of(self, plugin: Any) -> str:
        """Return what the plugin is called in a run."""
        return checked_name(plugin, None)

    def compared(self, difference: Callable[[Collection[str]], str]) -> str:
        """Return what differs, but for what two equal runs have each their own of.

        Args:
            difference: names of entries of the state that are left out -> what differs,
                ``""``: nothing.
        """
        # Two runs more, which most plugins do not need.
        return difference(()) and difference(self._entries_of_each_run())

    def _entries_of_each_run(self) -> Collection[str]:
        if self._own is None:
            states = [self._state_after_a_run(name) for name in ("one", "other")]
            is_compared = all(isinstance(state, Mapping) for state in states)
            self._own = entries_of_each(*states) if is_compared else ()
        return self._own

    def _state_after_a_run(self, name: str) -> Any:
        plugin = self.make()
        trainer = self.trainer(name, plugin)
        trainer.train()
        return state_of(trainer, self.name_of(plugin))
