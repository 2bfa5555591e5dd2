"""What a run asks of a model; read, written and checked without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

__all__ = ["Task"]


class Task:
    """What a row holds, and how a prediction for it is scored.

    A task is announced in the entry-point group ``trainbus.tasks``, or named as
    ``./file.py:Class``; its constructor's arguments are its options. A method
    ``submission(record)``, which it may do without, returns the JSON value that a
    server takes of a row with its ``prediction``; files of predictions that end in
    ``.json`` are a list of these, of rows that have an id where ``fields`` name one.

    Attributes:
        name: what it is called in ``tasks`` of a family; an installed one goes by its
            entry point, and a class in a file without it by its own name.
        fields: name -> kind of the values that a row has: ``text``, ``texts``, ``id``,
            or what else the pipeline reads; with ``?`` a row may do without.
        target: the field that is predicted; ``predict`` does without it.
        instead: field -> another, from which ``complete`` makes it where a row has that
            one alone.
        metrics: what ``score`` and ``summarise`` return, without the loss; one that no
            row has is warned of where it is measured.
        default_family: the family of a run that names none; the task's own name where
            its class is a ``ModelFamily``, too.
    """

    fields: ClassVar[Mapping[str, str]]
    target: ClassVar[str]
    instead: ClassVar[Mapping[str, str]] = {}
    metrics: tuple[str, ...] = ()
    default_family: ClassVar[str] = ""

    def complete(self, row: dict[str, Any]) -> None:
        """Fill in what a row does without; it has passed the checks of ``fields``."""

    def score(self, prediction: Any, row: Mapping[str, Any]) -> dict[str, float]:
        """Return the scores of one row; a run's metric is their mean over rows.

        Args:
            prediction: what the family's ``predict`` returned for the row.
            row: the values of ``fields``.
        """
        raise NotImplementedError

    def summarise(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return what only all rows together have; nothing by default.

        Args:
            records: each row with its ``prediction``.
        """
        return {}

    def floors(
        self, train: Sequence[Mapping[str, Any]], judged: Sequence[Mapping[str, Any]]
    ) -> dict[str, dict[str, float]]:
        """Return name -> scores by kind of what answers without looking.

        ``all`` and the kinds are of ``accuracy``, or of ``exact_match`` where there is
        none; a score of another metric has that one's name. A kind that may be called
        as a metric is, or ``all``, has its own metric's name: ``accuracy/all``.

        Args:
            train: rows that may be learnt from.
            judged: rows that are scored.
        """
        return {}
