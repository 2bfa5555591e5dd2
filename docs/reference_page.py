"""Write reference.md: all keys of a configuration, and all commands, from the code."""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from trainbus_data.config import ONCE_FAMILY, ONCE_HERE
from trainbus_models.lora import Lora
from training.app.cli.command_line import build_parser
from training.app.cli.parser import Commands
from training.app.config import guide_keys
from training.app.config.call_schema import call_schema
from training.app.config.schema import Config
from training.discovery import installed
from training.discovery.signature import keyword_only, parameters_of
from training.discovery.sources import documented

HEAD = """\
# All keys and commands

{notice}

[Configuration and commands](configuration.md) shows them at work. `trainbus config schema`
prints the keys as a JSON schema for editors, with the options of whatever is installed;
`trainbus plugins show NAME` those of one plugin. What a text calls None is `null` in a file.

"""

KEYS = """\
## Keys

The options of each task, model family, reader and plugin that comes with trainbus have a table
of their own below. Every plugin also takes `id`, what it is called in this run, and `on_failure`,
`fatal` or `isolate` ([Errors](hooks.md#rules-that-hold-for-all)).

"""

OLDER = """\
## Older keys

They are read, too; on the right is what they became:

```text
{table}
```

Beside `data_paths`, the keys of `data` may stand at the top. Of the family `{family}`, {once}
may stand below `data`.

"""

#: The kinds of what is installed, and what one of each is called in a heading.
PARTS = {"task": "Task", "model": "Model", "reader": "Reader", "callback": "Plugin"}


def reference_page(notice: str) -> str:
    """Return docs/reference.md."""
    parts = [HEAD.format(notice=notice), KEYS, *_sections("", _whole())]
    for kind, heading in PARTS.items():
        for info in installed.installed(kind):
            if info.distribution in {"trainbus", *installed.SHIPPED.values()}:
                cls = installed.load(info)
                parts += _options(f"{heading} {info.name}", cls)
                if hasattr(cls, "build"):
                    parts += _options(f"{heading} {info.name}, build", cls.build)
    table = inspect.cleandoc((guide_keys.__doc__ or "").split("\n\n")[1])
    once = ", ".join(f"`{name}`" for name in ONCE_HERE)
    parts.append(OLDER.format(table=table, family=ONCE_FAMILY, once=once))
    parser = build_parser()
    parts.append("## Commands\n\n" + "Each also takes `--help`. " + _exits(parser))
    return "".join([*parts, *_commands("trainbus", parser, "")]).rstrip() + "\n"


def _whole() -> dict[str, Any]:
    """Return a configuration's schema: plugins as a list, adapters with keys."""
    schema = Config.model_json_schema()
    entry: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "object"}]}
    schema["properties"]["plugins"] = {"type": "array", "items": entry}
    known = schema["$defs"]
    known["Lora"] = call_schema(parameters_of(Lora), inspect.getdoc(Lora) or "")
    lora = {"$ref": "#/$defs/Lora", "default": None}
    known["ModelConfig"]["properties"]["lora"] = lora
    return schema


def _sections(
    path: str, section: dict[str, Any], definitions: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Yield a table of a section's keys, and those of the sections in it."""
    known = section["$defs"] if definitions is None else definitions
    inner = {}
    rows = []
    told = documented(section["description"], "Attributes")
    required = section.get("required", ())
    for name, entry in section["properties"].items():
        refs = [e["$ref"] for e in (entry, *entry.get("anyOf", ())) if "$ref" in e]
        kind = _type(entry)
        if refs:
            below = f"{path}.{name}".lstrip(".")
            inner[below] = known[refs[0].rpartition("/")[2]]
            kind = f"[keys](#{below.replace('.', '')})"
        default = (
            "required" if name in required else _default(entry.get("default", ...))
        )
        rows.append((name, kind, default, told.get(name) or entry["description"]))
    if path:
        yield f"### {path}\n\n{_first(section['description'])}\n\n"
    yield from _table(rows)
    for below, each in inner.items():
        yield from _sections(below, each, known)


def _options(heading: str, called: Any) -> Iterator[str]:
    """Yield a table of what a class, or a method of one, takes from a file."""
    is_class = isinstance(called, type)
    parameters = parameters_of(called) if is_class else keyword_only(called)
    schema = call_schema(parameters, inspect.getdoc(called) or "")
    rows = []
    for name, entry in schema["properties"].items():
        default = parameters[name].default
        shown = "required" if name in schema["required"] else _default(default)
        rows.append((name, _type(entry), shown, entry.get("description", "")))
    first = schema["description"].removeprefix("Return ")
    yield f"### {heading}\n\n{_text(first[:1].upper() + first[1:])}\n\n"
    yield from _table(rows) if rows else ["It has no options.\n\n"]


def _table(rows: list[tuple[str, str, str, str]]) -> Iterator[str]:
    yield "| key | type | default | what it is |\n|---|---|---|---|\n"
    for name, kind, default, told in rows:
        yield f"| `{name}` | {kind} | {default} | {_text(told)} |\n"
    yield "\n"


def _type(entry: Mapping[str, Any]) -> str:
    """Return in words what a file may hold there; null is told by the default."""
    if "enum" in entry:
        return ", ".join(f"`{value}`" for value in entry["enum"])
    choices = entry.get("anyOf") or entry.get("oneOf")
    if choices:
        kinds = [_type(each) for each in choices if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    kind = str(entry.get("type", "object of Python"))
    if kind == "array":
        return f"list of {_type(entry['items'])}" if entry.get("items") else "list"
    words = {"object": "mapping", "boolean": "true or false", "string": "text"}
    words |= {"integer": "whole number"}
    shown = "path" if entry.get("format") == "path" else words.get(kind, kind)
    signs = {"minimum": ">=", "exclusiveMinimum": ">"}
    signs |= {"maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {entry[b]:g}" for b, sign in signs.items() if _tells(entry, b)]
    return " ".join([shown, ", ".join(bounds)]).strip()


def _tells(entry: Mapping[str, Any], bound: str) -> bool:
    """Whether a bound is more than what a computer's numbers can hold."""
    return bound in entry and abs(entry[bound]) < 2**63


def _default(value: Any) -> str:
    """Return a default as a file says it; nothing for one that is made when needed."""
    if value is ... or value is inspect.Parameter.empty:
        return ""
    shown = value if isinstance(value, str) else json.dumps(value)
    return f"`{shown}`"


def _exits(parser: argparse.ArgumentParser) -> str:
    codes = (parser.epilog or "").partition("exit codes:\n")[2]
    return f"Exit codes: {' '.join(codes.split())}.\n\n"


def _commands(name: str, parser: argparse.ArgumentParser, told: str) -> Iterator[str]:
    """Yield a table of the arguments of each command, the shell's order kept."""
    below = [each for each in parser._actions if isinstance(each, Commands)]
    for action in below:
        helps = {each.dest: each.help or "" for each in action._choices_actions}
        for word, each in action.choices.items():
            yield from _commands(f"{name} {word}", each, helps[word])
    if below:
        return
    yield f"### {name}\n\n{_text(told[:1].upper() + told[1:])}.\n\n"
    yield "| argument | what it is |\n|---|---|\n"
    arguments = [each for each in parser._actions if each.dest != "help"]
    for action in sorted(arguments, key=lambda each: bool(each.option_strings)):
        yield f"| {_argument(action)} | {_meaning(action)} |\n"
    yield "\n"


def _argument(action: argparse.Action) -> str:
    values = str(action.metavar or "|".join(action.choices or ()))
    if action.nargs == 0:
        values = ""
    names = action.option_strings or [""]
    return _text(", ".join(f"`{f'{name} {values}'.strip()}`" for name in names))


def _meaning(action: argparse.Action) -> str:
    told = action.help or ""
    if action.metavar and action.choices:
        told = f"{told}: {', '.join(map(str, action.choices))}" if told else ""
    if action.required and action.option_strings:
        told = f"{told} (required)"
    if action.default in (None, False) or isinstance(action.default, list):
        return _text(told)
    is_told = f"{action.default}" in re.split(r"[() ]+", told)
    return _text(told if is_told else f"{told} (default: {action.default})")


def _first(doc: str) -> str:
    return _text(inspect.cleandoc(doc).partition("\n")[0])


def _text(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")
