"""What may be registered, under which name, and what is said of the rest."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy import Regression, make_trainer, regression_batches

from training import Bus, Callback, PluginError, Trainer, hookimpl
from training.bus import bus as bus_module
from training.discovery.specs import build_plugins


class Note:
    """Notes under which name it was called."""

    heard: list[str]
    name: str

    def on_epoch_end(self) -> None:
        self.heard.append(self.name)


@dataclasses.dataclass
class Equal(Note, Callback):
    every: int = 1


class Unhashable(Note, Callback):
    __hash__ = None  # type: ignore[assignment]


class Undecided(Note, Callback):
    """Compares like an array."""

    def __eq__(self, other: object) -> Any:
        raise ValueError("the truth value of an array is ambiguous")

    __hash__ = None  # type: ignore[assignment]


class Plain:
    heard: list[str]
    name: str

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]

    @hookimpl
    def on_epoch_end(self) -> None:
        self.heard.append(self.name)


@pytest.mark.parametrize("kind", [Equal, Unhashable, Undecided, Plain])
def test_two_plugins_that_compare_equal_are_two(kind: type[Any]) -> None:
    heard: list[str] = []
    bus, plugins = Bus(), [kind(), kind()]
    for plugin, name in zip(plugins, ["one", "two"], strict=True):
        plugin.name, plugin.heard = name, heard
        bus.register(plugin)
    bus.on_epoch_end(None, {})  # type: ignore[misc]
    assert heard == ["one", "two"]
    assert [bus.name_of(plugin) for plugin in plugins] == ["one", "two"]
    assert bus.unregister("one") is plugins[0]
    bus.on_epoch_end(None, {})  # type: ignore[misc]
    assert heard == ["one", "two", "two"]


def test_the_same_object_under_two_names_hears_twice() -> None:
    bus, plugin = Bus(), Equal()
    plugin.heard = []
    plugin.name = "either"  # type: ignore[misc]
    bus.register(plugin, "one")
    bus.register(plugin, "two")
    bus.on_epoch_end(None, {})  # type: ignore[misc]
    assert plugin.heard == ["either", "either"]


@pytest.mark.parametrize(
    "name",
    [
        *("signal", "trainer", "user"),
        *(
            "",
            " ",
            " csv",
            "csv\n",
            "a\nb",
            "a\tb",
            "\x1b[31mred",
            "a\u2028b",
            "\ud800",
        ),
        *(3, b"csv", ("csv",), False),
    ],
    ids=repr,
)
@pytest.mark.parametrize("way", ["attribute", "argument", "id"])
def test_a_name_that_a_record_cannot_bear_is_refused(name: Any, way: str) -> None:
    plugin = type("Any", (Callback,), {"name": name} if way == "attribute" else {})()
    specs = [{"early_stopping": {"monitor": "val_loss", "id": name}}]
    register = {
        "attribute": lambda: Bus().register(plugin),
        "argument": lambda: Bus().register(plugin, name),
        "id": lambda: Bus().register_all(build_plugins(specs)),
    }[way]
    with pytest.raises(PluginError, match=r"name|id is"):
        register()


@pytest.mark.parametrize("name", ["csv", "early stopping", "größe", "a:b", "User", "0"])
def test_other_names_are_let_in(name: str) -> None:
    assert Bus().register(Equal(), name) == name


# Attributes with a hook's name.


@pytest.mark.parametrize("hook", ["on_checkpoint", "evaluate", "wrap_model"])
def test_none_in_a_hooks_place_is_no_hook(hook: str) -> None:
    class Parent(Callback):
        pass

    setattr(Parent, hook, lambda self: 1 / 0)
    bus = Bus()
    bus.register(type("Quiet", (Parent,), {hook: None})())
    on_instance = Parent()
    setattr(on_instance, hook, None)
    bus.register(on_instance)
    assert bus.listeners(hook) == []


class Called:
    def __call__(self, trainer: Any) -> None: ...


def takes(trainer: Any) -> None: ...


VALUES = {
    "False": False,
    "a number": 3,
    "a text": "val_loss",
    "a list": [1, 2],
    "a class": dict,
    "a callable object": Called(),
    "a partial": functools.partial(takes),
    "a built-in": print,
    "a method of a list": [].append,
}


@pytest.mark.parametrize("hook", ["on_step_end", "evaluate"])
@pytest.mark.parametrize("place", ["class", "instance"])
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
# Python 3.13 says so of a partial in a class.
@pytest.mark.filterwarnings("ignore:functools.partial will be a method descriptor")
def test_what_is_no_method_in_a_hooks_place_is_refused(
    value: Any, place: str, hook: str
) -> None:
    plugin = type("Odd", (Callback,), {hook: value} if place == "class" else {})()
    if place == "instance":
        setattr(plugin, hook, value)
    bus = Bus()
    with pytest.raises(PluginError, match=rf"'Odd' does not fit.*{hook} is .*`def`"):
        bus.register(plugin)
    assert not bus.plugins


def test_a_property_that_raises_is_refused_with_what_it_raised() -> None:
    class Odd(Callback):
        @property
        def evaluate(self) -> None:
            raise RuntimeError("not yet")

    with pytest.raises(PluginError, match=r"evaluate.*RuntimeError: not yet"):
        Bus().register(Odd())


def test_a_property_that_returns_a_method_is_a_hook() -> None:
    class Late(Callback):
        heard: Any = None

        @property
        def on_epoch_end(self) -> Any:
            return lambda trainer: setattr(self, "heard", trainer)

    bus, plugin = Bus(), Late()
    bus.register(plugin)
    bus.on_epoch_end("this one", {})  # type: ignore[misc]
    assert plugin.heard == "this one"


def test_an_argument_that_cannot_be_seen_is_refused() -> None:
    class Odd(Callback):
        def on_epoch_end(self, *given: Any) -> None: ...

        on_epoch_end.__signature__ = inspect.signature(  # type: ignore[attr-defined]
            lambda self, trainer: None
        )

    with pytest.raises(PluginError, match=r"on_epoch_end hides its argument 'trainer'"):
        Bus().register(Odd())


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(lambda self, *args, **kwargs: None, id="undone by a decorator"),
        pytest.param(lambda self, **metrics: None, id="an argument with stars"),
        pytest.param(lambda self, trainer, *metrics: None, id="beside another one"),
    ],
)
def test_stars_that_would_stay_empty_are_refused_with_the_way_out(method: Any) -> None:
    plugin = type("Odd", (Callback,), {"on_epoch_end": method})()
    words = r"as \*+\w+, which stays empty; .*: trainer, metrics; .*functools\.wraps"
    with pytest.raises(PluginError, match=words):
        Bus().register(plugin)


def test_a_decorated_method_and_one_on_the_instance_are_hooks() -> None:
    heard: list[Any] = []

    def doubled(method: Any) -> Any:
        @functools.wraps(method)
        def both(*given: Any) -> None:
            method(*given)
            method(*given)

        return both

    class Decorated(Callback):
        @doubled
        def on_epoch_end(self, metrics: Any) -> None:
            heard.append(metrics)

    bus, plugin = Bus(), Callback()
    plugin.on_epoch_end = lambda metrics: heard.append(metrics)  # type: ignore
    bus.register_all([("a", Decorated()), ("b", plugin)])
    bus.on_epoch_end(None, 1)  # type: ignore[misc]
    assert heard == [1, 1, 1]


# What is no plugin.


@hookimpl
def on_epoch_end(trainer: Any) -> None: ...


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        pytest.param("early_stopping", "no plugin but a name.*plugins=", id="a name"),
        pytest.param(None, "has no hook", id="None"),
        pytest.param(on_epoch_end, "has no hook", id="a marked function"),
        pytest.param({"csv": {}}, "has no hook", id="a mapping"),
        pytest.param(
            type("Theirs", (), {"on_train_batch_end": lambda self: None})(),
            "no hook, but on_train_batch_end .*it is 'on_batch_end'",
            id="another trainer's",
        ),
    ],
)
def test_what_hears_nothing_is_no_plugin(thing: Any, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        Bus().register(thing)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("plugins", "early_stopping"),
        ("plugins", {"early_stopping": {}}),
        ("plugins", 3),
        ("callbacks", "early_stopping"),
        ("callbacks", Equal()),
        ("callbacks", {"a": Equal()}),
        ("callbacks", Plain()),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_list_is_refused_in_a_sentence(argument: str, value: Any) -> None:
    model = Regression()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    told = rf"{argument} is .*{argument}=\["
    for loss_fn in (
        None,
        nn.functional.mse_loss,
    ):  # which is looked at for what it holds
        given: dict[str, Any] = {"loss_fn": loss_fn, argument: value}
        with pytest.raises(PluginError, match=told):
            Trainer(model, regression_batches(1), optimizer=optimizer, **given)


def test_an_instance_among_the_names_is_sent_to_callbacks() -> None:
    with pytest.raises(PluginError, match="callbacks"):
        make_trainer(plugins=[Equal()])


# Cost of registration.


def test_registering_one_by_one_looks_at_each_plugin_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[str] = []
    registered: list[str] = []
    hooks_of, register = bus_module.hooks_of, bus_module.Manager.register

    def counting(manager: Any, plugin: Any, name: str) -> Any:
        looked.append(name)
        return hooks_of(manager, plugin, name)

    def counted(self: Any, plugin: Any, name: str | None = None) -> str | None:
        registered.append(str(name))
        return register(self, plugin, name)

    monkeypatch.setattr(bus_module, "hooks_of", counting)
    monkeypatch.setattr(bus_module.Manager, "register", counted)
    bus, names = Bus(), [f"plugin {number:03}" for number in range(500)]
    for name in names:
        bus.register(Equal(), name)
    assert looked == registered == names
    bus.unregister(names[0])
    assert (len(looked), len(registered)) == (500, 500)
    assert len(bus.listeners("on_epoch_end")) == 499


def test_a_warning_made_an_error_leaves_no_half_of_a_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register = bus_module.Manager.register

    def fails(self: Any, plugin: Any, name: str | None = None) -> str | None:
        if name == "b":
            raise DeprecationWarning("goes in 2.0")
        return register(self, plugin, name)

    bus = Bus()
    bus.register(Equal(), "old")
    monkeypatch.setattr(bus_module.Manager, "register", fails)
    with pytest.raises(DeprecationWarning):
        bus.register_all([("a", Equal()), ("b", Equal())])
    assert list(bus.plugins) == ["old"]
    assert [impl.plugin_name for impl in bus.listeners("on_epoch_end")] == ["old"]
    assert bus.register(Equal(), "a") == "a"


# A class in a file.


@pytest.mark.parametrize(
    ("body", "name"),
    [
        pytest.param("name = 'mine'", "mine", id="its own name"),
        pytest.param("pass", "Mine", id="none"),
        pytest.param("name = None", "Mine", id="None"),
        pytest.param("name: str = 'mine'", "mine", id="annotated"),
    ],
)
def test_a_class_in_a_file_goes_by_its_name_as_in_python(
    tmp_path: Path, body: str, name: str
) -> None:
    file = tmp_path / "plug.py"
    file.write_text(
        f"from training import Callback\n\nclass Base(Callback):\n    {body}\n\n"
        "class Mine(Base):\n    def on_epoch_end(self): ...\n",
        encoding="utf-8",
    )
    ((given, plugin),) = build_plugins([f"{file}:Mine"])
    assert given == name
    assert Bus().register(plugin) == name
