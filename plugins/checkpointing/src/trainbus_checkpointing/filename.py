"""Names of checkpoint files from a template that cannot reach outside its folder.

``str.format`` follows attributes and indices, and fails on ``{epoch:03d}`` when epoch
is a float. Here a field is a bare name with a numeric format, and nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from training import ConfigError

#: Counters that every file name may use; all other fields are metric names.
COUNTERS = ("epoch", "step", "update")
#: Of a checkpoint that does not compete for the best.
LAST_NAME = "last-epoch{epoch:03d}-step{step}.pt"
SUFFIXES = (".pt", ".pth", ".ckpt")
#: Of a checkpoint that is a folder of the parts of several processes.
SUFFIX_OF_FOLDER = ".ckpt"
#: Bytes; leaves room for ``-v2`` and ``.tmp-<pid>`` below the usual limit of 255.
MAX_NAME_BYTES = 200

_FIELD = re.compile(r"\{([^{}]*)\}")
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_/@-]*")
_OF_LAST = re.compile(r"last-epoch\d+-step\d+(-v\d+)?\.(pt|ckpt)")
_NUMERIC_FORMAT = re.compile(r"\+?\d{0,2}(?P<precision>\.\d{1,2})?[deEfFgG]?")


class FilenameTemplate:
    """A file name with fields such as ``{epoch:03d}`` and ``{val_loss:.4f}``.

    Args:
        template: literal text and fields ``{name}`` or ``{name:format}``; a name is a
            counter (epoch, step, update) or a metric, a format is a numeric one.
    Raises:
        ConfigError: a path instead of a name, a field that is no bare name, a format
            that is not numeric, another suffix than SUFFIXES, or too long.
    """

    def __init__(self, template: str) -> None:
        self.template = template
        literal = _FIELD.sub("", template)
        if "{" in literal or "}" in literal:
            raise _refused(template, "its braces do not match")
        if not literal.isprintable() or "/" in literal or "\\" in literal:
            raise _refused(template, "it holds a character that no bare file name has")
        if template.startswith(".") or not template.endswith(SUFFIXES):
            raise _refused(template, f"it must end in one of: {', '.join(SUFFIXES)}")
        self.fields = tuple(
            _checked_field(template, field) for field in _FIELD.findall(template)
        )
        if len(self._fill(dict.fromkeys(self.fields, 0.0)).encode()) > MAX_NAME_BYTES:
            raise _refused(template, f"it is longer than {MAX_NAME_BYTES} bytes")

    @property
    def metric_fields(self) -> tuple[str, ...]:
        """The fields that are metrics."""
        return tuple(field for field in self.fields if field not in COUNTERS)

    def render(self, values: Mapping[str, float | None], is_mid_epoch: bool) -> str:
        """Return the file name; a value that is absent now becomes ``na``.

        Args:
            values: counters and fresh metrics by name.
            is_mid_epoch: add the step where the template has no field for it, since
                one epoch then has several files.
        """
        stem, dot, suffix = self._fill(values).rpartition(".")
        if is_mid_epoch and "step" not in self.fields:
            stem += f"-step{values['step']}"
        room = MAX_NAME_BYTES - len(dot + suffix)
        stem = stem.encode()[:room].decode(errors="ignore")  # 1e300 has 301 digits
        return stem + dot + suffix

    def may_be(self, name: str, values: Mapping[str, float | None]) -> bool:
        """Whether a checkpoint of ``values`` gets this name, or one with a ``-v2``."""
        names = [self.render(values, is_mid_epoch) for is_mid_epoch in (False, True)]
        names.append(LAST_NAME.format(epoch=values["epoch"], step=values["step"]))
        return _unnumbered(name) in map(_unnumbered, names)

    def _fill(self, values: Mapping[str, float | None]) -> str:
        def text(match: re.Match[str]) -> str:
            name, _, spec = match[1].partition(":")
            return _number(values.get(name), spec)

        return _FIELD.sub(text, self.template)


def default_template(monitor: str | None) -> str:
    """Return the template for checkpoints that are ranked by ``monitor``.

    A name that is no field, such as ``val.acc``, is left out.
    """
    is_field = monitor is not None and _FIELD_NAME.fullmatch(monitor)
    field = f"-{{{monitor}:.4f}}" if is_field else ""
    return f"checkpoint-{{epoch:03d}}{field}.pt"


def as_folder(name: str) -> str:
    """Return the name of a checkpoint as that of one that is a folder."""
    return name.rpartition(".")[0] + SUFFIX_OF_FOLDER


def is_name_of_last(name: str) -> bool:
    """Whether a file was written only so that training can go on from it."""
    return _OF_LAST.fullmatch(name) is not None


def _unnumbered(name: str) -> str:
    return re.sub(r"-v\d+$", "", name.rpartition(".")[0])


def _number(value: float | None, spec: str) -> str:
    if value is None:
        return "na"
    if not math.isfinite(value):
        return str(float(value))  # a number format would pad or refuse it
    return format(int(value) if spec.endswith("d") else value, spec)


def _checked_field(template: str, field: str) -> str:
    """Return the name in ``field``; raise ConfigError if it is not a safe one."""
    name, colon, spec = field.partition(":")
    if not _FIELD_NAME.fullmatch(name):
        raise _refused(template, f"{{{field}}} is no bare name")
    match = _NUMERIC_FORMAT.fullmatch(spec)
    if match is None or (colon and not spec):
        raise _refused(template, f"{spec!r} is no numeric format")
    if match["precision"] and spec.endswith("d"):
        raise _refused(template, f"{spec!r} gives decimals to a whole number")
    if match["precision"] and name in COUNTERS and spec[-1].isdigit():
        raise _refused(template, f"{spec!r} gives decimals to a whole number")
    return name


def _refused(template: str, why: str) -> ConfigError:
    return ConfigError(
        f"checkpointing.filename is {template!r}, but {why}; write a file name such as "
        "'checkpoint-{epoch:03d}-{val_loss:.4f}.pt'"
    )
