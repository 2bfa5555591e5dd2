"""Send the curves of a run to Weights & Biases; a resumed run goes on in its own."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from training import Callback, checked_options
from training.plugin import require_state

if TYPE_CHECKING:
    from training import Trainer


class WandbCallback(Callback):
    """Log losses, rates and metrics to Weights & Biases; x is ``step``.

    Every ``every_n_steps`` steps: ``train/loss``, ``train/lr`` and whatever else the
    step tells; at each evaluation its metrics by name; at the end who ended the run and
    why. The configuration of the run is that of the one there. Its id is in
    checkpoints: a resumed run goes on in it, and steps that are done again are drawn
    over those before.

    Args:
        project: as ``wandb.init`` has it; None: its own choice.
        run_name: likewise; None: the name of the run's ``save_dir``.
        every_n_steps: steps between points; each reads the device.
        init: further arguments of ``wandb.init``, such as ``entity``, ``tags`` and
            ``mode``, which is "online", "offline" or "disabled".
    Raises:
        ConfigError: ``every_n_steps`` is below 1.
    """

    name = "wandb"
    hook_api = ">=1.0,<2"
    failure = "isolate"  # a run is worth more than its curves
    ranks = "main"

    @checked_options
    def __init__(
        self,
        project: str | None = None,
        run_name: str | None = None,
        every_n_steps: Annotated[int, Ge(1)] = 50,
        init: Mapping[str, Any] | None = None,
    ) -> None:
        self.project, self.run_name = project, run_name
        self.every_n_steps = every_n_steps
        self._init = dict(init or {})
        #: Of the run there; None before the first one has begun.
        self.id: str | None = None
        self._run: Any = None
        self._exit_code = 0

    def state_dict(self) -> dict[str, Any]:
        """Return which run it is."""
        return {"id": self.id}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the run that a checkpoint names.

        Raises:
            CheckpointError: it names none.
        """
        given = state.get("id")
        is_right = given is None or (isinstance(given, str) and bool(given))
        require_state(self.name, is_right, "id", given, "the id of a run")
        self.id = given

    def on_train_begin(self, trainer: Trainer, resumed: bool) -> None:
        """Begin the run there, or go on in it."""
        # Now, not with this file: importing it takes a second.
        wandb = importlib.import_module("wandb")
        self._exit_code = 0
        if not resumed:  # nor is it named if there will be none
            self.id = None
        self._run = wandb.init(
            **{
                "project": self.project,
                "name": self.run_name or trainer.save_dir.absolute().name,
                "id": self.id,
                "resume": "allow",
                "dir": str(trainer.save_dir),
                "config": trainer.metadata.get("config", dict(trainer.metadata)),
                **self._init,
            }
        )
        self.id = self._run.id
        # Its own counter may not go back, as a run does that goes on from a checkpoint.
        self._run.define_metric("*", step_metric="step")

    def on_step_end(self, trainer: Trainer, logs: Mapping[str, float]) -> None:
        """Log a step, if it is due."""
        if trainer.step % self.every_n_steps == 0:
            # Waits for the device.
            self._log(trainer, {f"train/{name}": logs[name] for name in logs})

    def on_metrics(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Log what an evaluation has measured."""
        self._log(trainer, metrics)

    def on_train_end(self, trainer: Trainer) -> None:
        """Tell who ended the run, and why."""
        self._tell_end(trainer.stop_owner, trainer.stop_reason)

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """Tell what ended it, an error or a signal, and that it is not finished."""
        self._exit_code = 1
        if trainer.stop_owner == "signal":
            self._tell_end("signal", trainer.stop_reason)
        else:
            self._tell_end("error", f"{type(error).__name__}: {error}")

    def on_close(self) -> None:
        """Send what is left."""
        run, self._run = self._run, None
        if run is not None:
            run.finish(exit_code=self._exit_code)

    def _tell_end(self, owner: str | None, reason: str | None) -> None:
        if self._run is not None:
            self._run.summary.update({"stopped_by": owner, "reason": reason})

    def _log(self, trainer: Trainer, values: Mapping[str, float]) -> None:
        if self._run is not None:
            self._run.log({**values, "step": trainer.step})
