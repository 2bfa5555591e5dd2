"""Read YAML strictly and remember the line of every value.

The dialect is YAML 1.2's core: only ``true`` and ``false`` are booleans, ``3e-5`` is a
number, keys are strings (``on:`` and ``yes:`` too), and a date is text. What could run
code, hide a value or take the machine down is refused with its place.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any, NoReturn

import yaml

from training.errors import ConfigError
from training.files.named_paths import named_path, open_file

__all__ = ["Lines", "parse_yaml_value", "read_yaml_with_lines"]

#: Path of a value, such as ``("plugins", 0, "csv")``, -> its line, from 1.
Lines = dict[tuple[str | int, ...], int]

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
#: Values in a file, those reached through aliases counted each time.
MAX_VALUES = 5_000

_TAGS = "tag:yaml.org,2002:"
# YAML 1.2, section 10.3.2, core schema; a number may not carry underscores.
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = {"inf": math.inf, "+inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})


def read_yaml_with_lines(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], Lines]:
    """Return the mapping in a YAML file, and the line of every value in it.

    Refused: duplicate keys, merge keys, tags, a second document, a byte order mark,
    aliases that grow beyond 5,000 values or contain themselves, nesting deeper than 32.

    Raises:
        ConfigError: the file is missing, larger than 1 MiB, not UTF-8, not YAML, not a
            mapping at its top, or uses what is refused; the message starts with
            ``file:line:column``.
    """
    name = os.fspath(path)
    text = _read_text(named_path(path))
    try:
        node = _Composer(text, name).get_single_node()
    except yaml.MarkedYAMLError as error:
        _refuse_syntax(name, text, error)
    except yaml.reader.ReaderError as error:
        line, column = _place(text, error.position)
        _refuse(
            name, line, column, f"the character U+{_code(error):04X} is not allowed"
        )
    if node is None:
        _refuse(name, 1, 1, "the file is empty; a configuration is a mapping of keys")
    if not isinstance(node, yaml.MappingNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
        _refuse_node(name, node, f"the top is {kind}; a configuration maps keys")
    lines: Lines = {}
    values = _Builder(name, lines).build(node, ())
    return values, lines


def parse_yaml_value(text: str, name: str) -> Any:
    """Return what ``text`` means as a value in a file: a number, a list, text.

    Args:
        text: as a person would write it behind ``key:``.
        name: named in errors in place of a file.
    Raises:
        ConfigError: the file is missing, larger than 1 MiB, not UTF-8, not YAML, not a
            mapping at its top, or uses what is refused; the message starts with
            ``file:line:column``.
    """
    try:
        node = _Composer(text, name).get_single_node()
    except yaml.MarkedYAMLError as error:
        _refuse_syntax(name, text, error)
    except yaml.reader.ReaderError as error:
        _refuse(name, *_place(text, error.position), "a character is not allowed")
    return None if node is None else _Builder(name, {}).build(node, ())


class _Composer(yaml.SafeLoader):
    """PyYAML's composer with bounds, and every plain scalar left as text."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.file_name = name
        self.depth = 0
        self.num_values = 0
        self.sizes: dict[str, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        anchor = event.anchor
        if isinstance(event, yaml.AliasEvent):
            if anchor in self.anchors and anchor not in self.sizes:
                self.fail(event, f"the alias *{anchor} contains itself")
            self.count(event, self.sizes.get(anchor, 0))
            return super().compose_node(parent, index)
        start = self.num_values
        self.count(event, 1)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(event, f"values are nested deeper than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        if anchor is not None:
            self.sizes[anchor] = self.num_values - start
        return node

    def count(self, event: Any, num_values: int) -> None:
        self.num_values += num_values
        if self.num_values > MAX_VALUES:
            self.fail(event, f"the file grows beyond {MAX_VALUES} values")

    def fail(self, event: Any, problem: str) -> NoReturn:
        mark = event.start_mark
        _refuse(self.file_name, mark.line + 1, mark.column + 1, problem)


# Without resolvers a plain scalar keeps the tag of a string, like a quoted one; the
# builder tells them apart by their style.
_Composer.yaml_implicit_resolvers = {}


class _Builder:
    """Turns nodes into dicts, lists and scalars, never sharing one between places."""

    def __init__(self, name: str, lines: Lines) -> None:
        self._name = name
        self._lines = lines

    def build(self, node: Any, path: tuple[str | int, ...]) -> Any:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            self._check_tag(node, "map")
            return self._build_mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, "seq")
            return [
                self.build(item, (*path, index))
                for index, item in enumerate(node.value)
            ]
        self._check_tag(node, "str")
        return _scalar(node.value) if node.style is None else node.value

    def _build_mapping(self, node: Any, path: tuple[str | int, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                _refuse_node(self._name, key_node, "a key must be a plain word")
            self._check_tag(key_node, "str")
            key = key_node.value
            if key == "<<" and key_node.style is None:
                what = "the merge key << is not read; write its values out"
                _refuse_node(self._name, key_node, what)
            if key in values:
                first = self._lines[(*path, key)]
                _refuse_node(
                    self._name,
                    key_node,
                    f"the key {key!r} is already given on line {first}",
                )
            self._lines[(*path, key)] = key_node.start_mark.line + 1
            values[key] = self.build(value_node, (*path, key))
        return values

    def _check_tag(self, node: Any, expected: str) -> None:
        if node.tag != _TAGS + expected:
            tag = node.tag.replace(_TAGS, "!!")
            _refuse_node(self._name, node, f"the tag {tag!r} is not allowed; remove it")


def _scalar(text: str) -> Any:
    """Return what a plain scalar means in YAML 1.2's core schema."""
    if text in _NULLS:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.fullmatch(text) and len(text) <= 300:
        return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)
    if _FLOAT.fullmatch(text) and len(text) <= 300:
        return float(text)
    special = text.lower().replace(".", "", 1)
    if "." in text[:2] and special in _SPECIAL:
        return _SPECIAL[special]
    return text


def _read_text(path: Path) -> str:
    try:
        with open_file(path) as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        _refuse(str(path), 1, 1, f"the file has more than {MAX_BYTES} bytes")
    if raw.startswith(b"\xef\xbb\xbf"):
        _refuse(str(path), 1, 1, "the file starts with a byte order mark; save it as "
                "UTF-8 without one")  # fmt: skip
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8")
        line, column = _place(before, len(before))
        _refuse(str(path), line, column, "the file is not UTF-8 here; save it as UTF-8")


def _code(error: yaml.reader.ReaderError) -> int:
    """Return the number of the refused character, which PyYAML gives in two ways."""
    character: str | int = error.character
    return ord(character) if isinstance(character, str) else character


def _place(text: str, position: int) -> tuple[int, int]:
    """Return line and column, from 1, of a character."""
    before = text[:position]
    return before.count("\n") + 1, position - before.rfind("\n")


def _refuse_syntax(name: str, text: str, error: yaml.MarkedYAMLError) -> NoReturn:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        raise ConfigError(f"{name}: {error}") from error
    problem = str(error.problem or error.context)
    if "'\\t'" in problem:
        problem = "a tab starts or separates here; indent with blanks"
    elif "expected a single document" in str(error.context):
        problem = "a second document starts here; a configuration is one document"
    elif error.context:
        problem = f"{problem} ({error.context})"
    _refuse(name, mark.line + 1, mark.column + 1, problem)


def _refuse_node(name: str, node: Any, problem: str) -> NoReturn:
    mark = node.start_mark
    _refuse(name, mark.line + 1, mark.column + 1, problem)


def _refuse(name: str, line: int, column: int, problem: str) -> NoReturn:
    raise ConfigError(f"{name}:{line}:{column}: {problem}")
