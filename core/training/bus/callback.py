"""``Callback``: what plugins may derive from, and what the bus reads of them.

A callback is a class whose methods carry hook names; ``hookspecs`` lists them. The base
class declares none of them, so that a method names only the arguments it uses and still
type-checks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar


class Callback:
    """Base of callbacks: write methods named after the hooks you want to hear.

    A method that starts with ``on_`` and is no hook is refused with a suggestion.
    Any other class works too when its methods carry ``@training.hookimpl``.
    """

    #: Name in the bus, in ``before``/``after`` and in checkpoints; unique in a run.
    #: None: the class's own name.
    name: ClassVar[str | None] = None
    #: Names of plugins that must run after this one, wherever both hear an event.
    before: ClassVar[tuple[str, ...]] = ()
    #: Names of plugins that must run before this one, wherever both hear an event.
    after: ClassVar[tuple[str, ...]] = ()

    #: What an exception in a hook does: "fatal" ends the run; "isolate" warns, goes on,
    #: and switches the plugin off after three. For observers whose loss is bearable.
    failure: ClassVar[str] = "fatal"
    #: Which of the processes of a run call it: "all"; or "main": the one that writes
    #: files and prints, for those that observe. What steers must do so on all.
    ranks: ClassVar[str] = "all"
    #: Versions of the hook API that it is written for, as in ``">=1.0,<2"``; None: any.
    #: A method with the name of a hook that came later than the oldest is no hook.
    hook_api: ClassVar[str | None] = None
    #: What its hooks may change: "parameters" (also which are trained), "gradients",
    #: "optimizer" (state, and options such as the learning rate), "modes", "rng"
    #: (global random generators). Observers: nothing.
    mutates: ClassVar[tuple[str, ...]] = ()
    #: Per-batch hooks that read the device at every call (a sync on CUDA); a mapping
    #: gives each its reason.
    reads_device: ClassVar[Collection[str]] = ()
    #: Metrics that ``evaluate`` may deliver, for those who read about it; where it
    #: chooses among those of the run's task, any of these go by ``chooses_metrics``.
    produces: ClassVar[tuple[str, ...]] = ()
    #: Whether its ``evaluate`` may read the validation data. One that does not, and
    #: says so, leaves the evaluation plugin on; else it is taken to measure in place
    #: of that.
    reads_validation: ClassVar[bool] = True
    #: Options that list metrics of the run's task to be measured, None for all; each
    #: with what else it may list: names, and in these words ``"./file.py:NAME"``, where
    #: the plugin loads a user's own. A configuration is refused that lists others.
    chooses_metrics: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    #: Options that name a metric to be watched, such as "monitor".
    consumes: ClassVar[tuple[str, ...]] = ()
    #: Whether weights would differ without it, as with other batches or another model:
    #: a checkpoint of a run with it is resumed without it only if that is consented to.
    #: Who says "gradients" in ``mutates`` has said it.
    alters_training: ClassVar[bool] = False
    #: Options of the optimizer's groups, such as "max_lr", that its ``load_state_dict``
    #: compares: elsewhere they are compared as settings of the run.
    compares_options: Collection[str] = ()
    #: Of one that chooses the engine: whether checkpoints of several processes are
    #: folders of parts.
    saves_parts: bool = False
    #: The scheduler object that it steps: the trainer's ``scheduler`` of that identity
    #: gets no LR plugin beside it.
    scheduler: Any = None

    def state_dict(self) -> Mapping[str, Any]:
        """Return progress to keep in checkpoints: tensors and JSON values only.

        Keep what was learnt (best value, counts), never settings (patience, mode):
        a resumed run obeys its new configuration.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` returned; called after ``on_setup``."""


class BuiltIn(Callback):
    """A plugin that ``Trainer`` enables itself: it hears events as any other.

    Nobody chose it by name, so no list, record or checkpoint counts it. It stands
    around all others: ``before`` and ``after`` do not reach it.
    """

    #: Whether it hears an event after all others, not before them.
    is_last: ClassVar[bool] = False
