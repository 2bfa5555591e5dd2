"""Which model answers: how it is made, fed, asked, described and written."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from training.recipes.batch import Batch
    from training.recipes.task import Task

__all__ = ["CONFIDENCES", "USUAL_GENERATION", "ModelFamily", "followed_options"]

#: What the number beside a prediction may be -> its least and its most.
CONFIDENCES: Mapping[str, tuple[float, float]] = {
    "probability": (0.0, 1.0),
    "mean_log_probability": (-math.inf, 0.0),
}

EMPTY = inspect.Parameter.empty
#: How answers are generated where neither the run nor the family says it.
USUAL_GENERATION = {"max_new_tokens": 10, "num_beams": 1}


class ModelFamily:
    """A kind of model and its processor, whatever that is: ``None`` will do.

    A family is announced in the entry-point group ``trainbus.models``, or named as
    ``./file.py:Class``; its constructor's arguments are its options. It has ``load`` or
    ``build`` or both; a configuration is refused that asks for the other::

        def load(self, name, rows): ...  # a folder, or a name in the hub
        def build(self, rows, *, seed, width=64): ...  # fresh weights; its own options

    Both return ``(model, processor)``, weights in float32, the model in eval mode. A
    ``load_model(self, name)`` returns the model alone, and a ``load_processor(self)``
    the processor of a pipeline that has no model; a family may have neither.
    ``rows`` are the training rows: vocabularies and label names come from them, and
    live in the processor or in the model's configuration afterwards. ``build`` gets the
    run's ``seed`` where it has such a parameter.

    A family that can tell how sure it is has a ``predict_with_confidence``, too: called
    as ``predict``, of whose options it takes the same, it returns for each row a pair
    of the same prediction and a float. ``confidence`` says what that is, and is what
    files of predictions call it.

    A ``sample_rows(self)``, which it may do without, returns some rows as ``collate``
    gets them, targets included, which a model that ``build`` makes can learn in a few
    seconds: ``trainbus plugins check`` tries the family on them.

    Instance and processor are pickled for worker processes.

    Attributes:
        tasks: names of the tasks that it can do.
        task: the run's task; set before any call.
        cache_bytes: memory that ``collate`` may take to remember what it made, in each
            process; set before any call.
        is_fed_from_host: whether batches go on to a device by ``Batch.to``, so that
            ``collate`` may leave work to it; set before any call.
        split: of the rows that ``prepare`` and ``collate`` are shown: ``train``,
            ``validation``, ``test``, or ``""`` where it does not matter.
        is_deterministic: whether ``collate`` draws no random number; then nothing is
            seeded for it, which saves a little for each row.
        confidence: ``"probability"`` of what was predicted, from 0 to 1, or
            ``"mean_log_probability"`` of the tokens of an answer, its end token among
            them, at most 0.
    """

    tasks: tuple[str, ...] = ()
    task: Task
    cache_bytes: int = 0
    is_fed_from_host: bool = False
    split: str = ""
    is_deterministic: bool = False
    confidence: str = ""

    def prepare(self, processor: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        """See the rows of a split, once, before any is collated.

        Of those that are not held in memory 2,000, drawn by chance. To warn of what
        will be cut, and to make at once what ``collate`` looks up.
        """

    def collate(self, processor: Any, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Return rows as the model's keyword arguments; runs in worker processes.

        Rows that lack the task's target are left out of the loss, and the weight counts
        the others; a batch that has no others is without labels, and of weight 0.
        """
        raise NotImplementedError

    def echo(self, processor: Any, value: Any) -> Any:
        """Return the prediction of a model that knows ``value``; itself by default.

        Decoding may not give a text back as it was: ``"Red"`` as ``"red"``.
        """
        return value

    def predict(self, model: nn.Module, processor: Any, batch: Batch) -> list[Any]:
        """Return a JSON value for each row, whatever else is in the batch.

        Called in eval mode, without gradients, the batch on the model's device.
        """
        raise NotImplementedError

    def describe(self, model: nn.Module, processor: Any) -> dict[str, Any]:
        """Return JSON values from which ``rebuild`` makes both again, bar weights."""
        raise NotImplementedError

    def check(self, description: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
        """Refuse a description of another model than the one that has ``weights``.

        Called before ``rebuild``, so that no memory is taken for it; raises as that.
        """

    def rebuild(self, description: Mapping[str, Any]) -> tuple[nn.Module, Any]:
        """Return (model, processor) with random weights; nothing described is run.

        Raises:
            Exception: any, where the description is damaged; it becomes one sentence.
        """
        raise NotImplementedError

    def export(self, model: nn.Module, processor: Any, folder: Path) -> None:
        """Write both into ``folder`` for other programs, by ``save_pretrained``.

        Raises:
            NotImplementedError: the model has no such method.
        """
        for part in (model, processor):
            save = getattr(part, "save_pretrained", None)
            if save is None and part is not None:
                raise NotImplementedError(f"{type(part).__name__}.save_pretrained")
            if save is not None:
                save(folder)


def followed_options(family: ModelFamily, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of generation that the family's predictions follow.

    One that is None is left out, and what the family takes then is its own; only of a
    family that has none it is ``USUAL_GENERATION``.
    """
    taken = inspect.signature(family.predict).parameters
    needed = {
        n: v
        for n, v in USUAL_GENERATION.items()
        if n in taken and taken[n].default is EMPTY
    }
    given = {name: value for name, value in options.items() if value is not None}
    return needed | {name: value for name, value in given.items() if name in taken}
