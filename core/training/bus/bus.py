"""Register plugins, order them, and call their hooks without paying for silence.

pluggy registers and validates. For every event the bus then compiles one attribute:
None when nobody listens, else one plain function that calls the listeners in order. So
the loop writes ``if bus.on_batch_end is not None: bus.on_batch_end(trainer, ...)``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pluggy

from training import hookspecs
from training.bus.order import bus_order, not_built_in, warn_of_unasked
from training.bus.ranks import ENDING, ON_ALL, names_declaring
from training.bus.registration import Hooks, Manager, checked_name, hooks_of
from training.bus.slots import (
    Arguments,
    Made,
    Slots,
    call,
    compile_slot,
    describe,
    late,
    note_culprit,
    note_plugin,
    plugin_of,
    raised_by_other_plugin,
    removal_obstacle,
    silence,
)
from training.bus.wrappers import entered_wrappers
from training.errors import ConfigError, PluginError, did_you_mean
from training.hooks.answers import checked_answer
from training.hooks.asked import NEVER_MISSED
from training.hookspecs import HOOKS, PROJECT
from training.messages.error_texts import add_note, bug_in, repr_of

if TYPE_CHECKING:
    from training.bus.meter import Meter

log = logging.getLogger(__name__)

Told = Callable[[str, Any, Any], None]
#: How often an isolated plugin may fail before it is switched off.
MAX_FAILURES = 3
#: Calls in which a plugin may refuse the run, and without which it cannot go on.
BEGINNING = ("on_setup", "load_state_dict", "on_train_begin")


class Bus(Slots):
    """The plugins of one run, and a slot for every hook.

    Each hook name is an attribute: None while nobody listens, else a function that
    takes the hook's arguments by position. Slots follow every later ``register`` and
    ``unregister``, also one made inside a call: each is compiled when it is first
    called after a change.
    """

    def __init__(self) -> None:
        self._manager = Manager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._plugins: dict[str, Any] = {}  # all, in bus order
        self._chosen: dict[str, Any] = {}  # without those built in
        #: Those that failed too often in this run, and why they are off.
        self.off: dict[str, tuple[Any, str]] = {}
        #: Failures of isolated plugins in this run so far, by name.
        self.failures: dict[str, int] = {}
        self._meter: Meter | None = None
        self._told: set[str] = set()
        self.made: list[Made] = []
        self._run: Any = None  # the trainer whose run is on
        self._closed: set[pluggy.HookImpl] = set()  # called so far as its run ends
        self._compiled: dict[str, Callable[..., Any]] = {}
        #: Names of the plugins whose exceptions do not end the run.
        self.isolated: set[str] = set()
        #: Names of those that the main process alone calls.
        self.main_only: set[str] = set()
        self._is_main, self._has_others = True, False
        self._left_out: set[pluggy.HookImpl] = set()
        self._forget_slots()

    @property
    def plugins(self) -> Mapping[str, Any]:
        """Name -> plugin instance, in bus order, none built in; read-only."""
        return MappingProxyType(self._chosen)

    def register(self, plugin: Any, name: str | None = None) -> str:
        """Add ``plugin`` and return the name it goes by.

        Raises:
            PluginError: a class instead of an instance, a name that is taken, an
                unknown hook or argument, or an order that runs in a circle.
        """
        return self.register_all([(name, plugin)])[0]

    def register_all(self, plugins: Iterable[tuple[str | None, Any]]) -> list[str]:
        """Add all of (name or None, plugin), or none of them; return their names."""
        known = dict(self._plugins)
        added: dict[str, Hooks] = {}
        for given, plugin in plugins:
            name = checked_name(plugin, given)
            if name in known:
                raise PluginError(
                    f"two plugins are named {name!r}: {describe(known[name])} and "
                    f"{describe(plugin)}; set `plugin.name` of one, or `id:` in a file"
                )
            known[name] = plugin
            added[name] = hooks_of(self._manager, plugin, name)
        ordered = bus_order(known)  # may refuse, so before pluggy knows any
        try:
            for name, hooks in added.items():
                self._manager.register(hooks, name)
        except BaseException:  # such as a warning that was made an error
            for name in filter(self._manager.has_plugin, added):
                self._manager.unregister(name=name)
            raise
        self._adopt(ordered)
        if self._run is not None and self._run.resumption is not None:
            self._run.resumption.give_to(added)
        from training.bus.unmet import warn_of_unmet  # late: it is nothing to the loop

        warn_of_unmet(self._chosen, self._told)
        return list(added)

    def unregister(self, name: str) -> Any:
        """Take the plugin out and return it; inside a run it is closed, too.

        After that it is called no more, nor in the event at hand.

        Raises:
            PluginError: no plugin has that name, or the run goes on with what it made.
            Exception: what its ``on_close`` raised; it is out all the same.
        """
        if self.is_in_run and (made := removal_obstacle(name, self.made)):
            raise PluginError(f"plugin {name!r} {made}; take it out before train()")
        plugin, last = self._take_out(name)
        for impl in filter(self._is_to_close, last if self.is_in_run else ()):
            call(impl, "on_close", {"trainer": self._run}, self._meter)
        return plugin

    def begin_run(self, trainer: Any) -> None:
        """Note whose run is on until ``call_all`` closes everybody; keep its engine."""
        # Who failed in an earlier run hears this one.
        off = ((name, plugin) for name, (plugin, _) in self.off.items())
        self.register_all(each for each in off if each[0] not in self._chosen)
        self.off.clear()
        self._run = trainer
        self._closed.clear()
        self.failures.clear()
        self.made = [made for made in self.made if made.hook == "make_strategy"]

    @property
    def is_in_run(self) -> bool:
        """Whether a run is on, whose plugins are not closed yet."""
        return self._run is not None

    def choose_listeners(self, is_heard: Callable[[pluggy.HookImpl], bool]) -> None:
        """Of all that are registered by now, call only those that ``is_heard``."""
        impls = (getattr(self._manager.hook, hook).get_hookimpls() for hook in HOOKS)
        left_out = {impl for each in impls for impl in each if not is_heard(impl)}
        if left_out != self._left_out:
            self._left_out = left_out
            self._forget_slots()

    def set_distributed(self, is_main: bool) -> None:
        """Note that the run has other processes; main alone calls those of its own."""
        self._is_main, self._has_others = is_main, True
        self._forget_slots()

    def calls(self, name: str) -> bool:
        """Whether that plugin is called in this process."""
        return self._is_main or name not in self.main_only

    def caller(self) -> str:
        """Return the name of the plugin that is being called, ``"user"`` for none."""
        # Asked seldom, by requests: what every step needs stays without it.
        from training.bus.on_stack import caller_of

        return caller_of(sys._getframe(1), self._plugins)

    def _take_out(self, name: str) -> tuple[Any, list[pluggy.HookImpl]]:
        """Take a plugin out; return it, and what it hears of ``on_close``."""
        if name not in self._plugins:
            hint = did_you_mean(name, self._plugins)
            raise PluginError(f"no plugin is named {name!r}{hint}")
        last = [each for each in self.listeners("on_close") if each.plugin_name == name]
        rest = dict(self._plugins)
        plugin = rest.pop(name)
        self._manager.unregister(name=name)
        at_hand, self._compiled = self._compiled, {}  # one may be under way
        self._adopt(bus_order(rest))
        for slot in at_hand.values():
            silence(slot, name)
        return plugin, last

    def _is_to_close(self, impl: pluggy.HookImpl) -> bool:
        """Whether this ``on_close`` is still to be called in the run, as it is now."""
        is_first = impl not in self._closed
        self._closed.add(impl)
        return is_first

    def name_of(self, plugin: Any) -> str | None:
        """Return the name that ``plugin`` is registered under, by identity."""
        return next((n for n, known in self._plugins.items() if known is plugin), None)

    def listeners(self, hook: str) -> list[pluggy.HookImpl]:
        """Return the implementations of ``hook`` in the order of calls."""
        return [impl for impl in self._impls(hook) if not impl.wrapper]

    def collect(self, hook: str, **arguments: Any) -> list[tuple[str, Any]]:
        """Call every listener of ``hook``; return (plugin name, checked answer) pairs.

        Wrappers are scopes here: they surround the calls and see no result.
        """
        results: list[tuple[str, Any]] = []
        self._ask(hook, arguments, lambda *each: results.append(each))
        return results

    def chain(self, hook: str, passed: str, told: Told, **arguments: Any) -> Any:
        """Hand the argument ``passed`` from listener to listener; return the last one.

        Args:
            hook: name of the event.
            passed: name of the argument that each other result but None replaces.
            told: gets plugin name, argument and such a result.
            arguments: of the event.
        """

        def pass_on(name: str, result: Any) -> None:
            if result is not None and result is not arguments[passed]:
                told(name, arguments[passed], result)
                arguments[passed] = result
                self.made.append(Made(name, self._plugins.get(name), hook, result))

        self._ask(hook, arguments, pass_on)
        return arguments[passed]

    def first(self, hook: str, use: Callable[[str, Any], Any], **arguments: Any) -> Any:
        """Return what ``use`` makes of the first plugin name and answer but None."""
        made: list[Any] = []

        def is_answer(name: str, result: Any) -> bool:
            if result is not None:
                made.append(use(name, result))
                warn_of_unasked(hook, name, self.listeners(hook))
                self.made.append(Made(name, self._plugins.get(name), hook, made[0]))
            return bool(made)

        self._ask(hook, arguments, is_answer)
        return made[0] if made else None

    def _ask(
        self, hook: str, arguments: Arguments, answer: Callable[..., object]
    ) -> None:
        with entered_wrappers(self._wrappers(hook), hook, arguments, self._meter):
            for impl in self.listeners(hook):
                if self._guarded_call(impl, hook, arguments, answer):
                    return

    def _guarded_call(
        self,
        impl: pluggy.HookImpl,
        hook: str,
        arguments: Arguments,
        answer: Callable[..., object] = lambda *_: None,
    ) -> object:
        """Return what ``answer`` says of (name, result); None where nothing came."""
        name = impl.plugin_name
        if name not in self._plugins:
            return None  # an earlier one took it out
        try:
            result = call(impl, hook, arguments, self._meter)
            return answer(name, checked_answer(hook, name, result))
        except BaseException as error:
            if error is arguments.get("error"):
                raise  # it was told of that, and has not failed
            if name in self.isolated and isinstance(error, Exception):
                self.survive(name, plugin_of(impl), hook, error, arguments)
                return None
            note_culprit(error, impl, hook, arguments)
            raise

    def call_all(self, hook: str, **arguments: Any) -> list[BaseException]:
        """Call every listener whatever the others raise; return what was raised.

        What an isolated plugin raises is logged instead.
        """
        errors: list[BaseException] = []
        is_close = hook == "on_close"
        for impl in self.listeners(hook):
            if is_close and not self._is_to_close(impl):
                continue
            try:
                self._guarded_call(impl, hook, arguments)
            except BaseException as error:
                errors.append(error)  # the others are told, too
        if is_close:
            self._run = None
            self._closed.clear()
        return errors

    @property
    def meter(self) -> Meter | None:
        """What accounts for the time of every call; None: nobody does, at no cost."""
        return self._meter

    @meter.setter
    def meter(self, meter: Meter | None) -> None:
        self._meter = meter
        self._forget_slots()

    def survive(
        self, name: str, plugin: Any, hook: str, error: Exception, arguments: Arguments
    ) -> None:
        """Go on without an isolated plugin's call; switch it off after too many.

        A refused setting is no failure; who failed to begin is switched off at once.
        """
        if raised_by_other_plugin(error, name):
            raise error  # whose failure ends the run, whoever asked
        if (is_beginning := hook in BEGINNING) and isinstance(error, ConfigError):
            raise error
        step = getattr(arguments.get("trainer"), "step", None)
        note_plugin(error, name, plugin, hook, step)
        if hook in NEVER_MISSED:
            raise error
        if self._has_others and name not in self.main_only and hook not in ENDING:
            # They would wait for what it has not called here, or calls no more.
            add_note(error, f"plugin {name!r} {ON_ALL}; its failure ends the run")
            raise error
        times = self.failures[name] = self.failures.get(name, 0) + 1
        if times == 1:
            told = "plugin %r failed in %s, the run goes on without that call: %s"
            log.warning(told, name, hook, repr_of(error), exc_info=bug_in(error, log))
        if (is_beginning or times >= MAX_FAILURES) and name in self._plugins:
            # Switched off it would be in no checkpoint, and its part still in the run.
            if hook != "on_close" and (made := removal_obstacle(name, self.made)):
                add_note(error, f"plugin {name!r} {made}; its failure ends the run")
                raise error
            why = f"switched off as {hook} raised {repr_of(error)}"
            log.warning("plugin %r is %s; that was failure %d", name, why, times)
            self.off[name] = plugin, why
            self._switch_off(name, hook, arguments)

    def _switch_off(self, name: str, hook: str, arguments: Arguments) -> None:
        """Take a failing plugin out; let it release what it holds."""
        _, last = self._take_out(name)
        for impl in last if hook != "on_close" else ():
            self._closed.add(impl)
            try:
                call(impl, "on_close", arguments, self._meter)
            except Exception as error:
                log.warning("plugin %r failed in on_close: %s", name, repr_of(error))

    def _adopt(self, ordered: dict[str, Any]) -> None:
        """Take over the plugins in solved order, which the manager has by now."""
        self._plugins = ordered
        self._chosen = not_built_in(ordered)
        self.isolated = names_declaring("failure", "isolate", ordered)
        self.main_only = names_declaring("ranks", "main", ordered)
        self._forget_slots()

    def _forget_slots(self) -> None:
        for hook in HOOKS:
            slot = late(self, hook, self._slot) if self._impls(hook) else None
            setattr(self, hook, slot)  # None: all that the loop pays is a comparison

    def _impls(self, hook: str) -> list[pluggy.HookImpl]:
        """Return the implementations in bus order, not that of registration."""
        impls = getattr(self._manager.hook, hook).get_hookimpls()
        called = [i for i in impls if self.calls(i.plugin_name)]
        heard = [impl for impl in called if impl not in self._left_out]
        rank = {name: n for n, name in enumerate(self._plugins)} if heard else {}
        return sorted(heard, key=lambda impl: rank[impl.plugin_name])

    def _wrappers(self, hook: str) -> list[pluggy.HookImpl]:
        return [impl for impl in self._impls(hook) if impl.wrapper]

    def _slot(self, hook: str) -> Callable[..., Any]:
        spec = getattr(self._manager.hook, hook).spec
        inner = self._compiled[hook] = compile_slot(
            *(hook, spec.argnames, self.listeners(hook), self.isolated, self.survive),
            *(self._meter, bool(spec.opts.get("firstresult"))),
        )
        if not (wrappers := self._wrappers(hook)):
            return inner  # nearly always: no scope to open

        def wrapped(*args: Any) -> Any:
            given = dict(zip(spec.argnames, args, strict=True))
            with entered_wrappers(wrappers, hook, given, self._meter):
                return inner(*args)

        return wrapped
