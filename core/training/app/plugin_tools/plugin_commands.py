"""What each command about plugins does; none of them imports torch by itself."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from training.app.config.plugin_choices import Choice
from training.app.plugin_tools.active import active
from training.app.plugin_tools.plugin_facts import (
    Entry,
    Named,
    Standing,
    complaint,
    entries,
    facts_of,
    kind_of,
    order_of,
    standing_in,
)
from training.bus.unmet import unmet_relations
from training.discovery import installed
from training.discovery.sources import (
    Option,
    SourceError,
    SourceFacts,
    UnknownSourceError,
    read_class,
)
from training.errors import PluginError
from training.hooks.hook_api import FAILURE_POLICIES
from training.messages.tables import table

__all__ = [
    "check_plugins",
    "config_schema",
    "list_plugins",
    "new_plugins",
    "show_plugins",
    "why_plugins",
]


def list_plugins(arguments: argparse.Namespace) -> None:
    """List installed plugins, broken ones among them, without importing any."""
    _use(arguments)
    chosen, parts = active(arguments.config, arguments.plugins)
    found = entries(chosen, parts)
    if arguments.order:
        print("\n".join(_order_lines(chosen, found)))
        return
    if arguments.json:
        print(json.dumps([entry.as_json() for entry in found], indent=2))
    elif not found:
        print("no plugin is installed; try: pip install trainbus-logging")
    else:
        print("\n".join(_entry_lines(found)))
    names = {e.info.name for e in found if e.info.kind == installed.CALLBACK}
    for choice in chosen.values():
        if choice.is_active and choice.use not in names:  # refused with a suggestion
            installed.find(choice.use, choice.trail[-1].removeprefix("on: "))


def show_plugins(arguments: argparse.Namespace) -> None:
    """Describe one plugin: options, hooks, metrics, state, failure policy."""
    _use(arguments)
    kind = kind_of(arguments.name, arguments.kind, "plugins show")
    info = installed.find(arguments.name, "plugins show", kind)
    try:
        facts = facts_of(info)
    except UnknownSourceError as error:
        print(f"{info.name}: {info.value}, of {info.distribution} {info.version}")
        print(f"  its source does not tell more: {error}")
        print(f"  try: trainbus plugins check {arguments.name}")
        return
    except SourceError as error:
        raise PluginError(f"plugin {info.name!r} is broken: {error}") from error
    print(f"{info.name}: {facts.doc.partition(chr(10))[0]}")
    print("\n".join(f"  {label:<13} {text}" for label, text in _traits(info, facts)))
    print("  options")
    for line in _option_lines(facts.options):
        print(line)
    if "model" in facts.kinds and facts.build_options:
        print("  options below model.build")
        for line in _option_lines(facts.build_options):
            print(line)
    if kind != installed.CALLBACK:
        return
    print("    id: str  what the instance is called; tells two of a kind apart")
    print(f"    on_failure: {' | '.join(FAILURE_POLICIES)}  instead of its own policy")
    if trouble := complaint(facts):
        raise PluginError(f"plugin {info.name!r} is broken: {trouble}")


def check_plugins(arguments: argparse.Namespace) -> None:
    """Import and validate plugins in another process; refuse if one has trouble.

    A model family that has ``sample_rows()`` is tried on them. A callback that is named
    and whose options all have defaults goes through the runs of
    ``assert_plugin_conforms``, and one that tells whether a GPU would wait for it.
    """
    from training.app.plugin_tools.plugin_check import check

    _use(arguments)
    everything = installed.installed(arguments.kind) if not arguments.names else ()
    named = [
        (kind_of(name, arguments.kind, "plugins check"), name)
        for name in arguments.names
    ]
    named = named or sorted({(info.kind, info.name) for info in everything})
    results = check(named, arguments.folders, is_tried=bool(arguments.names))
    for (kind, name), found in results.items():
        what = name if kind == installed.CALLBACK else f"{name} ({kind})"
        print(f"{what}: {found.trouble or found.verdict}")
        if found.remark:
            print(f"  {found.remark}")
    if not arguments.names and any(kind == installed.CALLBACK for kind, _ in results):
        print("each is tried by its name: trainbus plugins check NAME")
    broken = [name for (_, name), found in results.items() if found.trouble]
    if broken:
        raise PluginError(f"{len(broken)} of {len(results)}: {', '.join(broken)}")


def why_plugins(arguments: argparse.Namespace) -> None:
    """Say what switched a plugin on or off, the strongest source last."""
    _use(arguments)
    chosen, parts = active(arguments.config, arguments.plugins)
    name = arguments.name
    kind = kind_of(name, arguments.kind, "plugins why")
    if kind != installed.CALLBACK:
        _why_part(installed.find(name, "plugins why", kind), parts)
        return
    own = installed.name_of(name)
    meant = [c for c in chosen.values() if own in (c.name, installed.name_of(c.use))]
    found = {e.info.name: e for e in entries(chosen) if e.info.kind == kind}
    for choice in meant:
        _why_chosen(choice, found)
    if meant:
        return
    info = installed.find(name, "plugins why")
    if info.name in found and found[info.name].state == "broken":
        print(f"{info.name} is off, and broken: {found[info.name].why}")
        return
    print(f"{info.name} is off: installed is not active, and nobody chose it")
    print(f"  switch it on: -p {name}, or list it under plugins")


def _why_chosen(choice: Choice, found: Mapping[str, Entry]) -> None:
    """Say what switched one that runs, or would, under a name of its own."""
    if choice.is_active:  # refused where nobody provides it
        installed.find(choice.use, "plugins why")
    state = "active" if choice.is_active else "off"
    entry = found.get(choice.use)
    if entry is not None and entry.state == "broken":
        state = f"{state}, and broken: {entry.why}"
    elif entry is None and not installed.is_file(choice.use):
        state = f"{state}, and not installed"
    has_use = choice.use != choice.name and (
        installed.name_of(choice.use) != choice.name or installed.is_known(choice.name)
    )
    print(f"{choice.name}{f', {choice.use},' if has_use else ''} is {state}")
    for sentence in choice.trail:
        print(f"  {sentence}")


def _why_part(info: installed.PluginInfo, parts: Mapping[Named, str]) -> None:
    """Say what chose a task, model family or reader."""
    found = entries({}, parts)
    entry = next(
        (e for e in found if (e.info.kind, e.info.name) == (info.kind, info.name)), None
    )
    state, why = (entry.state, entry.why) if entry else ("off", "nobody chose it")
    print(f"{info.name} ({info.kind}) is {state}")
    print(f"  {why}")


def new_plugins(arguments: argparse.Namespace) -> None:
    """Write a plugin project that can be installed and tested at once."""
    from training.app.plugin_tools.scaffold import write_project

    folder = write_project(arguments.name, arguments.into, arguments.kind)
    words = {"callback": "a plugin with options, state", "task": "a task, its model"}
    print(f"{folder}: {words[arguments.kind]}, README, CI and a test")
    print(f"next: pip install -e '{folder}[test]' && pytest {folder}")


def config_schema(arguments: argparse.Namespace) -> None:
    """Print the JSON schema of a configuration file."""
    from training.app.config.json_schema import config_schema as schema

    _use(arguments)
    with contextlib.redirect_stdout(sys.stderr):  # plugins are imported, and may print
        found = schema()
    print(json.dumps(found, indent=2))


def _use(arguments: argparse.Namespace) -> None:
    for folder in arguments.folders:
        installed.use_folder(folder)


def _entry_lines(found: list[Entry]) -> Iterator[str]:
    head = ["name", "kind", "state", "distribution", "version", "hook API", "path"]
    rows = [
        [
            entry.info.name,
            entry.info.kind,
            entry.state,
            entry.info.distribution,
            entry.info.version,
            (entry.hook_api or "any") if entry.info.kind == installed.CALLBACK else "-",
            entry.info.path or "not found",
        ]
        for entry in found
    ]
    title, *lines = table(head, rows, "<" * len(head))
    yield title
    for entry, line in zip(found, lines, strict=True):
        yield line
        yield f"    {entry.why}"
        if entry.info.kind == installed.CALLBACK:
            hooks = ", ".join(entry.facts.hooks) if entry.facts else "unknown"
            yield f"    hooks: {hooks or 'none'}"
        for copy in entry.info.shadowed:
            yield f"    warning: a copy in version {copy} is behind it on the path"


def _traits(
    info: installed.PluginInfo, facts: SourceFacts
) -> Iterator[tuple[str, str]]:
    says = facts.attributes
    yield "distribution", f"{info.distribution} {info.version}"
    yield "class", info.value
    yield "file", str(facts.file)
    if info.kind != installed.CALLBACK:
        for label in ("fields", "target", "metrics", "tasks", "default_family"):
            if label in says:
                yield label.replace("_", " "), _words(says[label])
        return
    yield "hook API", str(says.get("hook_api") or "any")
    around = [f"{h} (around)" if h in facts.wrappers else h for h in facts.hooks]
    yield "hooks", ", ".join(around) or "none"
    for label, key in (
        ("produces", "produces"),
        ("watches", "consumes"),
        ("changes", "mutates"),
        ("before", "before"),
        ("after", "after"),
    ):
        value = says.get(key) or ()
        is_listed = isinstance(value, (tuple, list, set))
        words = ", ".join(map(str, value)) if is_listed else repr(value)
        yield label, words or ("computed" if key in facts.unread else "nothing")
    yield "state", facts.state or "none"
    yield "on failure", str(says.get("failure", "fatal"))
    yield "processes", str(says.get("ranks", "all"))


def _option_lines(options: Iterable[Option]) -> Iterator[str]:
    for option in options:
        default = "required" if option.default is None else f"= {option.default}"
        yield f"    {option.name}: {option.type or 'any'}  {default}"
        if option.doc:
            yield f"        {option.doc}"


def _words(value: object) -> str:
    is_listed = isinstance(value, (tuple, list, set, dict))
    return ", ".join(map(str, value)) if is_listed else str(value)  # type: ignore[call-overload]


def _order_lines(chosen: Mapping[str, Choice], found: Sequence[Entry]) -> Iterator[str]:
    """Yield for each event who hears it in which order, and why."""
    plugins = {"run_record": _run_record()}
    infos = {e.info.name: e.info for e in found if e.info.kind == installed.CALLBACK}
    unknown: list[str] = []
    for name, choice in chosen.items():
        if not choice.is_active:
            continue
        info = infos.get(choice.use) or installed.find(choice.use, "plugins list")
        try:
            facts = facts_of(info)
            if trouble := complaint(facts):
                raise SourceError(trouble)
            plugins[name] = standing_in(facts)
            unknown += [
                f"{name} may stand elsewhere, its {key!r} is computed"
                for key in ("before", "after")
                if key in facts.unread
            ]
        except UnknownSourceError as error:
            unknown.append(f"{name} is not in this order, {error}")
        except SourceError as error:
            raise PluginError(f"plugin {name!r} cannot be ordered: {error}") from error
    for hook, names, reasons in order_of(plugins):
        yield f"{hook}: {', '.join(names)}"
        yield from (f"    {reason}" for reason in sorted(reasons))
    yield from unknown
    yield from unmet_relations(plugins)
    yield "without a reason given, plugins are called in the order of their names"


def _run_record() -> Standing:
    """Return what `trainbus run` adds to the chosen plugins; it comes after ours."""
    facts = read_class("training.builtin.run_record", "RunRecord")
    return Standing(facts, after=tuple(sorted(installed.SHIPPED)))
