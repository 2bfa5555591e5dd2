"""The errors a person may see: one sentence with the thing, the value, the way out.

Each class carries the exit code the command line ends with, so that a script can tell
a typing mistake from a broken row from a diverged run.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

# Exit codes of the command line that no error class carries.
EXIT_DONE = 0
EXIT_USER_CODE = 1
EXIT_SIGINT = 130


class TrainbusError(Exception):
    """Base of every error that is the user's to mend; the message is one sentence."""

    exit_code = EXIT_USER_CODE


class ConfigError(TrainbusError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""

    exit_code = 2


class PluginError(ConfigError):
    """A plugin is unknown, broken, registered twice, or its options do not fit."""


class MetricError(ConfigError):
    """A plugin watches a metric that nobody produces: ``"a.monitor watches ..."``."""


class DataError(TrainbusError, ValueError):
    """A row, an image or a whole data set cannot be used."""

    exit_code = 3


class CheckpointError(TrainbusError, ValueError):
    """A checkpoint is missing, damaged, foreign, or does not fit this run."""

    exit_code = 4


class NonFiniteError(TrainbusError, ArithmeticError):
    """A loss or gradient is NaN or infinite; the optimizer made no update of it."""

    exit_code = 5


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest of ``choices``, else ``""``.

    Of words in parts more must agree, unless one holds the other: ``loss_fn`` is hardly
    meant for ``loss_per``, but ``top_k`` for ``save_top_k``.
    """
    word, known = word.lower(), {each.lower(): each for each in choices}
    akin = [each for each in known if "_" not in word or each in word or word in each]
    near = get_close_matches(word, known, 1, 0.7) or get_close_matches(word, akin, 1)
    return f" (did you mean {known[near[0]]!r}?)" if near else ""
