"""Where a plugin that spreads a run over processes hangs in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy import Regression, make_trainer, regression_batches, weights_of

from training import Callback, ConfigError, PluginError, Trainer, hookimpl
from training.plugin import Strategy


class Counting(Strategy):
    """A third party's: answers for one process, and notes what it is asked."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.errors: list[BaseException | None] = []
        self.forwards = 0

    def choose_device(self, wanted: torch.device) -> torch.device:
        self.heard.append(f"choose_device {wanted}")
        return torch.device("cpu")

    def place(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> nn.Module:
        self.heard.append(f"place {type(optimizer).__name__} {device}")
        return model.to(device)

    def wrap_forward(self, module: nn.Module, forward: Any) -> Any:
        self.heard.append(f"wrap_forward {type(module).__name__}")

        def counted(*given: Any) -> Any:
            self.forwards += 1
            return forward(*given)

        return counted

    def on_main(self, work: Callable[[], Any]) -> Any:
        self.heard.append("on_main")
        return work()

    def close(self, error: BaseException | None) -> None:
        self.heard.append("close")
        self.errors.append(error)


class Spreads(Callback):
    """Answers with what it was given."""

    hook_api = ">=1.1,<2"

    def __init__(self, answer: Any, name: str = "spreads") -> None:
        self.answer, self.name = answer, name  # type: ignore[misc]
        self.asked: list[list[str]] = []

    def make_strategy(self, trainer: Trainer) -> Any:
        self.asked.append([*trainer.plugins])
        return self.answer


def test_alone_one_process_does_all() -> None:
    trainer = make_trainer()
    assert type(trainer.strategy) is Strategy
    assert (trainer.rank, trainer.world_size, trainer.is_main) == (0, 1, True)


def test_a_strategy_is_asked_at_the_places_of_a_run_and_told_of_its_end(
    tmp_path: Path,
) -> None:
    strategy = Counting()
    trainer = make_trainer(None, None, Spreads(strategy))
    built = ["choose_device cpu", "place SGD cpu"]
    assert trainer.strategy is strategy
    assert strategy.heard == built
    trainer.train()
    trainer.save_checkpoint(tmp_path / "a.pt")
    run = ["on_main", "wrap_forward Regression", "on_main", "on_main", "close"]
    # Of a run main tells the order, which metrics will be produced, and an epoch's.
    assert strategy.heard == [*built, *run, "on_main"]
    assert strategy.errors == [None]
    assert (tmp_path / "a.pt").exists()


@pytest.mark.parametrize("batches", [2, 12])
def test_it_is_asked_no_more_often_in_a_longer_run(batches: int) -> None:
    strategy = Counting()
    make_trainer(None, regression_batches(batches), Spreads(strategy)).train()
    counts = Counter(each.split()[0] for each in strategy.heard)
    # For the order, for the names of metrics, and at the end of the epoch.
    assert counts.pop("on_main") == 3
    assert set(counts.values()) == {1}
    assert strategy.forwards == batches


class Explains(Strategy):
    """Knows better what has ended the run."""

    def report(self, error: BaseException) -> BaseException:
        return PluginError("rank 1 failed")


class FailsLast(Spreads):
    """Raises where it is closed, and nowhere else."""

    def on_close(self) -> None:
        raise ValueError("connection lost")


def test_what_fails_in_closing_is_reported_as_any_other_error() -> None:
    with pytest.raises(PluginError, match="rank 1 failed") as caught:
        make_trainer(None, None, FailsLast(Explains())).train()
    assert isinstance(caught.value.__cause__, ValueError)


def test_one_that_does_nothing_ends_in_the_same_weights() -> None:
    plain, spread = make_trainer(), make_trainer(None, None, Spreads(Counting()))
    for trainer in (plain, spread):
        trainer.train()
    for a, b in zip(weights_of(plain.model), weights_of(spread.model), strict=True):
        assert torch.equal(a, b)


def test_the_run_is_where_the_strategy_puts_it() -> None:
    class Elsewhere(Strategy):
        def choose_device(self, wanted: torch.device) -> torch.device:
            return torch.device("meta")

    trainer = make_trainer(None, None, Spreads(Elsewhere()), loss_fn=nn.MSELoss())
    assert trainer.device.type == "meta"
    assert {p.device.type for p in trainer.model.parameters()} == {"meta"}
    assert make_trainer().device.type == "cpu"


def test_the_first_plugin_that_answers_is_taken_when_all_are_registered() -> None:
    silent, first, last = (
        *(Spreads(None, "a"), Spreads(Counting(), "b")),
        Spreads(Counting(), "c"),
    )
    trainer = make_trainer(None, None, last, first, silent, val_dataloader=[])
    assert trainer.strategy is first.answer
    assert silent.asked == first.asked == [["a", "b", "c", "evaluation"]]
    assert last.asked == []


class Placed(Strategy):
    """Puts ``answers`` in place of what is right."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def choose_device(self, wanted: torch.device) -> Any:
        return self.answers.get("device", wanted)

    def place(self, model: nn.Module, *given: Any) -> Any:
        return self.answers.get("model", model)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param("ddp", "plugin 'spreads' returned 'ddp' from make_", id="a name"),
        pytest.param(Counting, "returned <class .*; return an object", id="a class"),
        pytest.param(nn.Linear(1, 1), "'spreads' returned Linear", id="a module"),
        pytest.param(
            Placed(device="cuda:7"),
            "Placed.choose_device returned 'cuda:7'; return a torch.device",
            id="a device by name",
        ),
        pytest.param(
            Placed(model=None), "Placed.place returned NoneType", id="no model"
        ),
        pytest.param(
            Placed(model=nn.Sequential()),
            "Placed.place returned Sequential .* in wrap_model",
            id="another model",
        ),
    ],
)
def test_a_wrong_answer_is_refused_by_name_when_the_trainer_is_built(
    answer: Any, says: str
) -> None:
    with pytest.raises(PluginError, match=says):
        make_trainer(None, None, Spreads(answer))


def test_an_error_in_the_choice_names_the_plugin() -> None:
    class Fails:
        @hookimpl
        def make_strategy(self) -> None:
            raise OSError("no network")

    with pytest.raises(OSError, match="no network") as caught:
        make_trainer(None, None, Fails())
    assert "plugin 'Fails'" in caught.value.__notes__[0]
    assert "in make_strategy" in caught.value.__notes__[0]


@pytest.mark.parametrize("read", ["rank", "is_main", "strategy", "step", "history"])
def test_what_there_is_not_yet_is_refused_in_a_sentence(read: str) -> None:
    class Early(Callback):
        hook_api = ">=1.1,<2"

        def make_strategy(self, trainer: Trainer) -> None:
            getattr(trainer, read)

    with pytest.raises(PluginError, match="once it has answered") as caught:
        make_trainer(None, None, Early())
    assert "plugin 'Early'" in caught.value.__notes__[0]


class Second(Strategy):
    """The second of two processes, which leaves the files to the first."""

    rank = 1
    size = 2

    def on_main(self, work: Callable[[], Any]) -> Any:
        return None


def test_what_only_main_does_another_process_leaves(tmp_path: Path) -> None:
    trainer = make_trainer(None, None, Spreads(Second()))
    assert (trainer.rank, trainer.world_size, trainer.is_main) == (1, 2, False)
    trainer.save_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / "a.pt").exists()


def test_a_receipt_tells_of_how_many_processes_the_saved_run_was(
    tmp_path: Path,
) -> None:
    class OfTwo(Strategy):
        size = 2

    def run() -> Trainer:
        return make_trainer(None, None, Spreads(OfTwo()), num_epochs=2)

    trainer = run()
    trainer.save_checkpoint(tmp_path / "a.pt")
    assert "world_size" not in str(run().load_checkpoint(tmp_path / "a.pt"))
    receipt = make_trainer(num_epochs=2).load_checkpoint(tmp_path / "a.pt")
    assert "setting world_size was 2, is 1" in str(receipt)


@pytest.fixture
def second_of_two() -> Iterator[None]:
    """Let this be a process of a group that somebody has set up."""
    fakes = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    group = torch.distributed
    group.init_process_group("fake", store=fakes.FakeStore(), rank=1, world_size=2)
    yield
    group.destroy_process_group()


@pytest.mark.usefixtures("second_of_two")
def test_d39_a_group_that_somebody_has_set_up_and_nobody_divides_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"2 processes .* plugin 'distributed'"):
        make_trainer()
    assert make_trainer(None, None, Spreads(Second())).world_size == 2


def test_d39_started_processes_that_nobody_divides_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"3 processes .* plugin 'distributed'"):
        make_trainer()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert make_trainer().world_size == 1


class Raises(Callback):
    def on_step_end(self) -> None:
        raise RuntimeError("a plugin's own")


def test_it_is_told_what_a_run_ends_with_after_plugins_are_closed() -> None:
    strategy = Counting()

    class Closes(Callback):
        def on_close(self) -> None:
            strategy.heard.append("on_close")

    trainer = make_trainer(None, None, Spreads(strategy), Raises(), Closes())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="a plugin's own") as caught:
            trainer.train()
        assert strategy.errors.pop() is caught.value
        assert strategy.heard[-2:] == ["on_close", "close"]


@pytest.mark.parametrize("others", [[], [Raises()]], ids=["well", "with an error"])
def test_what_it_raises_in_closing_hides_nothing(others: list[Any]) -> None:
    class Fails(Strategy):
        def close(self, error: BaseException | None) -> None:
            raise ConnectionError("a peer has gone")

    trainer = make_trainer(None, None, Spreads(Fails()), *others)
    kind = RuntimeError if others else ConnectionError
    with pytest.raises(kind) as caught:
        trainer.train()
    said = " ".join(getattr(caught.value, "__notes__", []))
    assert ("closing the strategy failed: ConnectionError" in said) == bool(others)


def test_where_the_model_cannot_be_placed_it_is_closed_with_the_error() -> None:
    class Full(Counting):
        def place(self, *given: Any) -> Any:
            raise torch.OutOfMemoryError("no room")

    strategy = Full()
    with pytest.raises(torch.OutOfMemoryError) as caught:
        make_trainer(Regression(), None, Spreads(strategy))
    assert strategy.errors == [caught.value]


@pytest.mark.parametrize(
    ("rank", "size"),
    [("0", 1), (1, 1), (-1, 2), (0, 0), (0, None), (0, 2.0), (False, 1)],
)
def test_one_that_is_no_process_of_those_it_counts_is_refused(
    rank: Any, size: Any
) -> None:
    odd = type("Odd", (Counting,), {"rank": rank, "size": size})()
    with pytest.raises(PluginError, match=r"Odd has the rank .* of size"):
        make_trainer(None, None, Spreads(odd))
    assert odd.heard == ["close"]
