"""Plugins are called in the order that they declare, ties by name."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from bus.named import Named, emit

from training import Bus, Callback, PluginError
from training.bus.order import solve_order


@pytest.mark.parametrize("value", ["csv", 5, None, (1,), [["csv"]]])
@pytest.mark.parametrize("key", ["before", "after"])
def test_a_relation_that_is_no_tuple_of_names_is_refused(key: str, value: Any) -> None:
    plugin = type("Lab", (Callback,), {key: value})()
    with pytest.raises(PluginError) as caught:
        Bus().register(plugin)
    told = f"declares {key} = {value!r}; write names in a tuple: ('csv',)"
    assert told in str(caught.value)


def test_a_relation_to_a_name_that_looks_misspelt_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = Named("First", before=("secnod", "elsewhere")), Named("second")
    bus = Bus()
    bus.register_all([(None, first), (None, second)])
    bus.register(Named("third"))
    told = [r.getMessage() for r in caplog.records]
    assert told == [
        "plugin 'First' declares before 'secnod', which is not there (did you mean "
        "'second'?)"
    ]


def test_a_relation_to_what_is_installed_and_takes_no_part_is_right(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = tmp_path / "lab-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[trainbus]\np07 = lab:Lab\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    says = Named("p05", after=("p07", "checkpointing", "p11"))
    Bus().register_all([(None, each) for each in (says, Named("p10"))])
    bus = Bus()
    bus.register_all([(None, each) for each in (says, Named("checkpoints"))])
    assert [record.getMessage() for record in caplog.records] == [
        "plugin 'p05' declares after 'p11', which is not there (did you mean 'p10'?)"
    ]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("mutates:optimizer", None),
        ("mutates:rng", None),
        ("mutates:optimiser", "mutates:optimizer"),
        ("mutate:optimizer", "mutates:optimizer"),
        ("mutates:paramters", "mutates:parameters"),
    ],
)
def test_a_relation_to_a_part_that_nobody_changes_is_right_unless_it_is_misspelt(
    said: str, meant: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    keeps = type("Keeps", (Named,), {"mutates": ("parameters",)})
    bus = Bus()
    bus.register_all([(None, Named("shows", before=(said,))), (None, keeps("keeps"))])
    assert [record.getMessage() for record in caplog.records] == [
        f"plugin 'shows' declares before {said!r}, which is not there (did you mean "
        f"{each!r}?)"
        for each in [meant]
        if each
    ]


@pytest.mark.parametrize("arrival", list(itertools.permutations("abc")))
def test_ties_are_broken_by_name_whatever_the_order_of_arrival(
    arrival: tuple[str, ...],
) -> None:
    bus, heard = Bus(), []
    for name in arrival:
        bus.register(Named(name, heard))
    emit(bus)
    assert heard == ["a", "b", "c"]


def test_a_relation_reaches_all_that_declare_to_change_a_part() -> None:
    bus, heard = Bus(), []
    moves = type("Moves", (Named,), {"mutates": ("optimizer",)})
    shows = Named("d", heard, before=("mutates:optimizer",))
    for plugin in (moves("a", heard), moves("b", heard), Named("c", heard), shows):
        bus.register(plugin)
    emit(bus)
    assert heard == ["c", "d", "a", "b"]


def test_where_names_and_parts_make_a_circle_names_hold() -> None:
    bus = Bus()
    moves = type("Moves", (Named,), {"mutates": ("optimizer",)})
    shows = Named("shows", before=("mutates:optimizer",))
    between = Named("between", before=("shows",), after=("a",))
    plugins = [moves("a"), moves("z", before=("shows",)), between, shows]
    bus.register_all([(None, each) for each in plugins])
    assert list(bus.plugins) == ["a", "between", "z", "shows"]


@pytest.mark.parametrize("arrival", list(itertools.permutations(range(3))))
def test_before_and_after_beat_the_alphabet(arrival: tuple[int, ...]) -> None:
    bus, heard = Bus(), []
    plugins = [
        Named("a", heard, after=("b",)),
        Named("b", heard),
        Named("c", heard, before=("b", "absent")),
    ]
    bus.register_all([(None, plugins[index]) for index in arrival])
    emit(bus)
    assert heard == ["c", "b", "a"]
    assert solve_order(bus.plugins)[1] == {
        ("b", "a"): "'a' declares after 'b'",
        ("c", "b"): "'c' declares before 'b'",
    }


def test_a_relation_reaches_a_plugin_that_runs_under_another_name() -> None:
    bus, heard = Bus(), []
    kind = type("Rates", (Named,), {"name": "rates"})
    renamed = kind("b", heard)  # as by `plugin.name = "b"`
    given = kind("rates", heard)
    log = Named("log", heard, before=("rates",))
    last = type("Late", (kind,), {})("late", heard, after=("rates",))
    bus.register_all([(None, log), (None, renamed), ("a", given), (None, last)])
    assert list(bus.plugins) == ["log", "a", "b", "late"]


def test_relations_by_class_make_no_circle_of_plugins_that_are_alike() -> None:
    follows = type("Follows", (Named,), {"name": "log"})
    alike = [(name, follows(name, after=("log",))) for name in ("b", "a")]
    bus = Bus()
    bus.register_all([*alike, ("log", follows("log"))])
    assert list(bus.plugins) == ["log", "a", "b"]


def test_a_relation_to_a_name_in_the_run_holds_over_one_to_its_class() -> None:
    kind = type("Kind", (Named,), {"name": "kind"})
    bus = Bus()
    first, last = kind("first"), kind("last")
    middle = Named("middle", before=("kind",), after=("first",))
    bus.register_all([(None, each) for each in (last, first, middle)])
    assert list(bus.plugins) == ["first", "middle", "last"]


def test_an_order_that_runs_in_a_circle_is_refused_and_changes_nothing() -> None:
    bus = Bus()
    bus.register(Named("a", after=("b",)))
    with pytest.raises(PluginError, match=r"run in a circle: .*a.*b"):
        bus.register(Named("b", after=("a",)))
    assert list(bus.plugins) == ["a"]
