"""Write the pages that are made from the code: ``python docs/generate.py``."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from plugin_page import plugin_page
from reference_page import reference_page
from training import hookspecs
from training.discovery import installed
from training.app.plugin_tools.plugin_facts import facts_of
from training.discovery.installed import PluginInfo
from training.hooks.hook_api import SINCE
from training.hookspecs import API_VERSION, HOOKS
from training.discovery.sources import SourceFacts, documented

HERE = Path(__file__).resolve().parent
NOTICE = "<!-- Written by docs/generate.py; change the code, then run it again. -->"

HOOKS_HEAD = f"""\
# Hooks

{NOTICE}

Everything a plugin can hear, in the order of one run. Hook API {API_VERSION}.

A plugin is a class. With `training.Callback` as its base, its methods of these names are
its hooks; any other class marks them with `@training.hookimpl`. A hook names only the
arguments it uses, without defaults; they are bound by name. How to write one from
nothing is told in [writing-a-plugin.md](writing-a-plugin.md).

```text
{{order}}
```

What a plugin or a command asks for in its own time:

```text
{{asked}}
```

## Rules that hold for all

**Order.** Within an event, `before` and `after` of the classes decide; ties go by name,
never by the order of installation or of a list, nor by `tryfirst` and `trylast`, which
are refused. `before = ("mutates:optimizer",)` means all that declare
`mutates = ("optimizer",)`. A name of an absent plugin is allowed, as is a part that
nobody changes; one that is nearly that of a plugin that is there, or of a part, is
warned of. `trainbus plugins list CONFIG --order` prints each event's listeners and the
reason of each edge.

**Around an event.** `@hookimpl(wrapper=True)` above a hook that yields once makes it a
scope: it runs before all listeners and, after them, from the `yield` on. An error of a
listener arrives at the `yield`, for cleaning up; it is raised afterwards whatever the
wrapper does. So put back in `finally` what was changed before: `try: yield`, `finally:`. A
signal leaves an evaluation by an error, and the run is saved then: weights that were swapped in
would be what it trains on from there. Scopes are for time, locks and swapped weights. An error of a
wrapper itself always ends the run. `on_exception` and `on_close` call everybody and have no scopes.

**What would never be called is refused** when a plugin is registered, in one sentence: an
unknown hook or argument (one of the method's own has a default, and no name near one of the
hook's), an argument with a default, by keyword only or with stars (`*args`,
`**kwargs` alone, as a decorator without `functools.wraps` leaves them), `async def`, a
`yield` without the mark, `hookwrapper=True`, a hook's name on what is no function or method
(None there is no hook), an object that hears nothing (of a `Callback` a warning says so). So is what would say nothing to anybody:
a class attribute or a state method that is nearly one of those below (`rank = "main"`), a value
of `mutates` or `reads_device` that there is not, `state_dict` without `load_state_dict`. Names
are refused that cannot be printed, and `signal`, `trainer` and `user`, which records use where
no plugin asked.

**Heard in some settings.** A method under `@heard_if(lambda self: self.every_n_steps)`, of
`training.plugin`, is called where that is true. It is asked once as a run begins, before
`on_setup`, and the answer holds for all of the run; what changes later counts from the next
one on. An event that nobody hears costs nothing. Of several conditions each must hold. What
wraps the method obeys them, as the mark goes where `functools.wraps` does: a decorator above
the mark, or an override under `@functools.wraps(Base.on_step_end)`. Any other override has no
condition. `on_exception` and `on_close`, and what is asked before a run begins
(`make_strategy`, `resume_candidates`, `plan_evaluations`, `plan`), are refused with one.

**Taken out.** Inside a run `trainer.bus.unregister(name)` closes the plugin: its `on_close`
is called at once, once, and nothing after that, not even the rest of the event at hand. One
whose window, wrapper or engine is in the run is not taken out of it: its part would stay. What
`trainer.bus.register` adds to a run that goes on from a checkpoint gets its state there and then.

**Errors.** What a hook raises carries a note with plugin, class, distribution, version,
hook and step. The class attribute `failure`, or `on_failure` in a configuration, says
what follows. `"fatal"`: the run ends; `on_exception` and `on_close` of all plugins are
called, and the original error is raised, with later ones attached. `"isolate"`: one
warning, with the traceback unless it is an `OSError` (a network, a disk) or an error of
`training` (at level debug all have theirs), and the run goes on; after three failures in it, or one in
`on_setup` or `on_train_begin`, the plugin is closed and switched off. KeyboardInterrupt
and SystemExit always end the run, and so does a `ConfigError` in `on_setup` or
`on_train_begin`: nothing is lost yet, and the user can mend it. `state_dict` and
`load_state_dict` are held to the same: a checkpoint is written without the state of an
isolated plugin that fails or was switched off, and says so when it is read; one that cannot
take its state back is switched off. One whose part is in the run (`wrap_model`,
`wrap_dataloader`, `make_window`, `make_strategy`) is not: the failure ends the run. Nor is, on several
processes, one that all of them call (`ranks = "all"`): its first failure ends the run, as the others
would wait for what it has missed; but not one in `on_exception` or `on_close`, where nobody waits. Where
one plugin asks another, as by `summary`, the error is that
of the one that raised it. Observers are isolated; deciders and writers are fatal.

On the command line an exit of a plugin's own, with whatever code, ends with 1 and its
traceback, and every error that a plugin raised comes with that note.

**A hang.** Python cannot stop a thread from outside. `trainbus run --watchdog SECONDS`
tells which plugin takes longer than that, and where: in a hook or around one, in its
import or constructor, or over its state; with `--watchdog-abort` it ends the process.

**What is given is read-only.** `logs` and `metrics` cannot be assigned to; restored state
and `trainer.history` are copies. What `evaluate` returns must be numbers by name: no text,
no True, no tensor of several values, and no column that the history has.

**Requests.** `trainer.request_stop`, `request_checkpoint` and `request_evaluation` are how a
plugin asks; only the kernel steps, saves and stops. A request is granted at the
next boundary: before the first batch of an epoch, at the end of a window, at the end of an
epoch. What is asked for while one is served, in `evaluate`, `on_metrics`, `on_epoch_end` or
`on_checkpoint`, waits for the one after it, and past the last it is granted once, before
`on_train_end`; a checkpoint comes with the boundary that is being served where it still can.
A stop ends this run and not those that go on from its checkpoints: who wants that asks again in
`on_train_begin`.

**Versions.** Within hook API 1.x hooks and arguments are only added, which raises the
second number. A plugin declares what it is written for, `hook_api = ">=1.0,<2"`, and is
refused elsewhere with both ranges. What will go in 2.0 warns for at least one release:
whoever implements a deprecated hook, or names a deprecated argument, gets a
`DeprecationWarning` at that line. A method with the name of a hook that came after 1.0 is
that hook where the class says so, as with `hook_api = ">=1.2,<2"`, or the method has
`@hookimpl`; elsewhere it stays the plugin's own, and a warning says so. These are
{{since}}.

## Class attributes of a plugin

| Attribute | Default | Meaning |
|---|---|---|
"""

SHIPPED_HEAD = f"""\
# Shipped plugins

{NOTICE}

What each hooks, keeps, changes and may raise. The bus treats them as any other: all pass
`assert_plugin_conforms`, the kit for [everybody's plugins](writing-a-plugin.md), and another
plugin of the same hooks can take the place of each. They read of a trainer what the
[promised view](api/plugins.md) has, but for evaluation, which is released with it and reads
`trainer.state`, too. Options: `trainbus plugins show NAME`.

"""


def hooks_page() -> str:
    """Return docs/hooks.md."""
    doc = hookspecs.__doc__ or ""
    order, asked = (
        inspect.cleandoc(each.partition("\n\n")[0])
        for each in doc[: doc.index("\nAn implementation")].split("::\n\n")[1:]
    )
    since = textwrap.fill(", ".join(f"`{hook}`" for hook in SINCE), 88)
    parts = [HOOKS_HEAD.format(order=order, asked=asked, since=since)]
    parts += [f"| `{n}` | `{d}` | {m} |\n" for n, d, m in _attributes()]
    heard = {hook: [] for hook in HOOKS}
    for info, facts in _shipped():
        for hook in facts.hooks:
            heard[hook].append(info.name)
    for hook in HOOKS:
        parts += ["\n", *_hook(hook, heard[hook])]
    return "".join(parts)


def shipped_page() -> str:
    """Return docs/shipped-plugins.md."""
    parts = [SHIPPED_HEAD]
    for info, facts in _shipped():
        says = facts.attributes
        changes = ", ".join(says.get("mutates") or ()) or "nothing"
        order = [
            f"{key} `{name}`"
            for key in ("before", "after")
            for name in says.get(key) or ()
        ]
        rows = {
            "hooks": ", ".join(f"`{hook}`" for hook in facts.hooks),
            "keeps in checkpoints": _sentence(facts.state)
            .removeprefix("Return ")
            .rstrip(".")
            or "nothing",
            "changes": changes,
            "order": ", ".join(order) or "by name",
            "watches": ", ".join(f"`{o}`" for o in says.get("consumes") or ()) or "-",
            "delivers": ", ".join(f"`{m}`" for m in says.get("produces") or ()) or "-",
            "may raise": ", ".join(f"`{n}`" for n in raised(facts.file)) or "nothing",
            "on failure": f"`{says.get('failure', 'fatal')}`",
            "processes": f"`{says.get('ranks', 'all')}`",
        }
        parts.append(f"## {info.name}\n\n{_sentence(facts.doc.splitlines()[0])}\n\n")
        parts.append(f"`{info.value}`, of {info.distribution}\n\n| | |\n|---|---|\n")
        parts += [f"| {label} | {text} |\n" for label, text in rows.items()]
        parts.append("\n")
    return "".join(parts).rstrip() + "\n"


def raised(file: Path) -> list[str]:
    """Return the errors raised in ``file`` and in modules of its package it imports."""
    names: set[str] = set()
    seen: set[Path] = set()
    left = [file]
    while left:
        path = left.pop()
        if path in seen:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                names.add(ast.unparse(node.exc.func))
            elif isinstance(node, ast.Name) and node.id == "checked_options":
                names.add("ConfigError")
            elif isinstance(node, ast.ImportFrom) and node.module:
                top, _, rest = node.module.partition(".")
                if top == file.parent.name and rest:
                    left.append(file.parent / f"{rest.replace('.', '/')}.py")
                elif top == file.parent.name:
                    left += [
                        file.parent / f"{a.name}.py"
                        for a in node.names
                        if (file.parent / f"{a.name}.py").exists()
                    ]
    return sorted(name for name in names if name[0].isupper())


def _shipped() -> Iterator[tuple[PluginInfo, SourceFacts]]:
    for info in installed.installed():
        if installed.SHIPPED.get(info.name) == info.distribution:
            yield info, facts_of(info)


def _hook(hook: str, heard: list[str]) -> Iterator[str]:
    function = getattr(hookspecs, hook)
    arguments = ", ".join(
        f"{each.name}: {each.annotation}"
        for each in inspect.signature(function).parameters.values()
    ).replace("TrainerView", "Trainer")  # the protocol's one class, which authors know
    doc = inspect.getdoc(function) or ""
    yield f"## {hook}\n\n`{hook}({arguments})`\n\n"
    yield _prose(doc)
    names = ", ".join(f"[{n}](shipped-plugins.md#{n})" for n in heard) or "none"
    yield f"\nShipped listeners: {names}.\n"


def _prose(doc: str) -> str:
    """Return a hook's docstring as a list: when, state, arguments and the rest."""
    first, _, rest = doc.partition("\n\n")
    lines = [f"{_sentence(first)}\n\n"]
    arguments = documented(doc)
    label = ""
    for line in rest.splitlines():
        head, _, text = line.partition(":")
        if line and not line.startswith(" "):
            label = head
            if label == "Args":
                lines += [f"- `{n}`: {_sentence(t)}\n" for n, t in arguments.items()]
            else:
                lines.append(f"- **{label}:** {_sentence(text.strip())}\n")
        elif label != "Args" and line.strip():
            lines[-1] = f"{lines[-1].rstrip()} {_sentence(line.strip())}\n"
    return "".join(lines)


def _sentence(text: str) -> str:
    return text.replace("``", "`")


def _attributes() -> Iterator[tuple[str, str, str]]:
    """Yield (name, default, meaning) of what ``Callback`` declares."""
    source = (Path(hookspecs.__file__).parent / "bus" / "callback.py").read_text()
    lines = source.splitlines()
    tree = ast.parse(source)
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    cls = next(node for node in classes if node.name == "Callback")
    for node in cls.body:
        if not isinstance(node, ast.AnnAssign) or node.value is None:
            continue
        words: list[str] = []
        number = node.lineno - 2
        while lines[number].strip().startswith("#:"):
            words.insert(0, lines[number].strip().removeprefix("#:").strip())
            number -= 1
        meaning = _sentence(" ".join(words)).replace("|", "\\|")
        yield ast.unparse(node.target), ast.unparse(node.value), meaning


PAGES = {
    "api/plugins.md": lambda: plugin_page(NOTICE),
    "hooks.md": hooks_page,
    "reference.md": lambda: reference_page(NOTICE),
    "shipped-plugins.md": shipped_page,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
        print(HERE / name, file=sys.stderr)
