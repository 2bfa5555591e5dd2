"""P16: everything is closed, whatever an error's own text, notes or class do."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from faults.runs import build

from trainbus_checkpointing import ModelCheckpointCallback
from training import Callback, ConfigError, Trainer
from training.app.cli import command_line
from training.builtin.run_record import RunRecord
from training.bus import bus
from training.hookspecs import HOOKS
from training.messages.error_texts import (
    add_note,
    error_text,
    notes_of,
    repr_of,
    text_of,
)


class NoText(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    def __repr__(self) -> str:
        raise ValueError("no repr")


class TextThatExits(Exception):
    def __str__(self) -> str:
        raise SystemExit(0)

    __repr__ = __str__


class TextThatIsNone(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]


class OwnNotes(Exception):
    def add_note(self, note: str) -> None:
        raise TypeError("no notes here")


class FixedNotes(Exception):
    __notes__ = ("a tuple",)  # type: ignore[assignment]


class ReadOnlyNotes(BaseException):
    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        raise RuntimeError("notes are no business of yours")


class Frozen(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        if name != "__traceback__":  # which contextlib sets
            raise AttributeError(f"{name} is fixed")
        super().__setattr__(name, value)


class Refusal(ConfigError):
    __str__ = NoText.__str__
    __repr__ = NoText.__repr__


ODD = (
    *(NoText, TextThatExits, TextThatIsNone, OwnNotes, FixedNotes, ReadOnlyNotes),
    *(Frozen, Refusal, StopIteration, GeneratorExit),
)
EACH = pytest.mark.parametrize("kind", ODD, ids=lambda each: each.__name__)
#: Called in every run, in which there is a place for the plugin to raise.
PLACES = ("on_setup", "on_batch_end", "on_step_end", "evaluate", "on_checkpoint")


class Closes(Callback):
    """Keeps what it was told at the end."""

    def __init__(self, name: str = "closes") -> None:
        self.name = name
        self.told: list[str] = []

    def on_exception(self, error: BaseException) -> None:
        self.told.append(type(error).__name__)

    def on_close(self) -> None:
        self.told.append("closed")


def raising(kind: type[BaseException], *hooks: str, **attributes: Any) -> Callback:
    """Return a plugin that raises in these hooks."""

    def raise_it(self: Any) -> None:
        raise kind

    methods = dict.fromkeys(hooks, raise_it)
    return type(f"Raises{kind.__name__}", (Callback,), {**methods, **attributes})()


def surfaced(trainer: Trainer) -> BaseException | None:
    try:
        trainer.train()
    except BaseException as error:
        return error
    return None


@EACH
@pytest.mark.parametrize("hook", PLACES)
def test_p16_all_are_told_and_closed_and_the_original_error_surfaces(
    hook: str, kind: type[BaseException], tmp_path: Path
) -> None:
    first, last = Closes("first"), Closes("last")
    saves = ModelCheckpointCallback(tmp_path, monitor=None)
    record = RunRecord({}, {})
    trainer = build(
        *(first, raising(kind, hook), saves, record, last), save_dir=tmp_path / "record"
    )
    assert type(surfaced(trainer)) is kind
    assert first.told == last.told == [kind.__name__, "closed"]
    assert not (tmp_path / "run.lock").exists()


@EACH
def test_p16_whatever_is_raised_in_closing_the_others_are_closed(
    kind: type[BaseException],
) -> None:
    last = Closes()
    for hooks in (["on_close"], ["on_exception", "on_close"]):
        trainer = build(raising(kind, *hooks), last)
        assert type(surfaced(trainer)) is kind
        assert last.told.pop() == "closed"
        trainer = build(raising(kind, *hooks), raising(KeyError, "on_step_end"), last)
        assert type(surfaced(trainer)) is KeyError, "the first one"
        assert last.told.pop() == "closed"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_p16_whatever_exits_in_closing_the_others_are_closed(
    kind: type[BaseException],
) -> None:
    last = Closes()
    assert type(surfaced(build(raising(kind, "on_close"), last))) is kind
    assert last.told == ["closed"]


@EACH
def test_p16_an_isolated_plugin_is_survived_if_it_raises_an_exception(
    kind: type[BaseException],
) -> None:
    plugin = raising(kind, "on_step_end", "on_close", failure="isolate")
    last = Closes()
    error = surfaced(build(plugin, last))
    assert last.told[-1] == "closed"
    assert (error is None) == issubclass(kind, Exception)


def test_p16_an_exit_of_one_that_is_switched_off_leaves_the_others_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bus, "MAX_FAILURES", 1)

    def exits(self: Any) -> None:
        raise SystemExit(0)

    plugin = raising(ValueError, "on_exception", failure="isolate", on_close=exits)
    last = Closes()
    trainer = build(plugin, raising(KeyError, "on_step_end"), last)
    assert type(surfaced(trainer)) is KeyError
    assert last.told == ["KeyError", "closed"]


@pytest.mark.parametrize("failure", ["isolate", "fatal"])
def test_p16_who_raises_the_error_again_that_it_is_told_of_is_not_blamed(
    failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Passes(Callback):
        def on_exception(self, error: BaseException) -> None:
            raise error

    def step(model: object, batch: object) -> None:
        raise KeyError("first")

    passes = Passes()
    passes.failure = failure
    for trainer in (
        build(passes, raising(KeyError, "on_step_end")),
        build(passes, step_fn=step),  # whom no plugin has failed
    ):
        error = surfaced(trainer)
        assert type(error) is KeyError
        assert not [note for note in notes_of(error) if "on_exception" in note]
    assert "on_exception" not in caplog.text


@EACH
def test_p16_who_raised_is_said_where_the_error_takes_no_note(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    error = surfaced(build(raising(kind, "on_step_end")))
    assert error is not None
    told = [*notes_of(error), *caplog.messages]
    assert sum("raised by plugin 'Raises" in each for each in told) == 1


def test_p16_what_explains_an_error_never_takes_its_place() -> None:
    class Loader(list[Any]):
        is_lost = False  # settings hold its size, so it must tell that before a step

        @property
        def batch_size(self) -> int:
            return 2 if not self.is_lost else raise_(RuntimeError("who knows"))

    class Fails(Callback):
        def on_step_end(self) -> None:
            loader.is_lost = True
            raise error

    error = torch.OutOfMemoryError("too much")
    loader = Loader([(torch.ones(2, 4), torch.ones(2, 1), [0, 1])])
    trainer = build(loader=loader)
    trainer.bus.register(Fails())
    trainer.bus.unregister("ids")
    assert surfaced(trainer) is error
    assert any("explaining it failed" in note for note in notes_of(error))


def raise_(error: BaseException) -> NoReturn:
    raise error


@EACH
def test_p16_the_command_line_ends_with_a_sentence_and_a_code(
    kind: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command_line, "_call", lambda arguments: raise_(kind()))
    code = command_line.main(["plugins", "list"])
    assert code == (2 if kind is Refusal else 1)
    words = "whose text raises" if kind is Refusal else kind.__name__
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "text", "shown"),
    [
        pytest.param(ValueError("no"), "no", "ValueError('no')", id="a usual error"),
        pytest.param(
            NoText(),
            "<NoText, whose text raises ValueError>",
            "<NoText, whose repr raises ValueError>",
            id="no text",
        ),
        pytest.param(
            TextThatExits(),
            "<TextThatExits, whose text raises SystemExit>",
            "<TextThatExits, whose repr raises SystemExit>",
            id="a text that exits",
        ),
    ],
)
def test_what_is_said_of_an_error(value: Exception, text: str, shown: str) -> None:
    assert (text_of(value), repr_of(value)) == (text, shown)
    assert error_text(value) == f"{type(value).__name__}: {text}"


def test_a_note_is_written_once(caplog: pytest.LogCaptureFixture) -> None:
    error = OwnNotes()
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            add_note(error, "said")
    assert notes_of(error) == ("said",)
    assert caplog.messages == []


def test_the_places_that_raise_are_hooks() -> None:
    assert set(PLACES) <= set(HOOKS)
