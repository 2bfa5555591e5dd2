"""What fp32 products round to, and a compiled forward pass, leave all else alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from toy import Regression, assert_equal_weights, make_trainer

from training import CheckpointError, ConfigError, Trainer, hookimpl
from training.builtin.placing import wrapped_module


def switches() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


class Sees:
    """Notes torch's switches while a run lasts, and may end it with an error."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    @hookimpl
    def on_batch_end(self) -> None:
        self.switches = switches()
        if self.fails:
            raise RuntimeError("a plugin's own")


@pytest.fixture(params=["highest", "high"])
def process(request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    """What the process has chosen before: neither choice may get lost."""
    before = switches()
    torch.set_float32_matmul_precision(request.param)
    yield switches()
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize("fails", [False, True], ids=["a whole run", "a failed run"])
@pytest.mark.parametrize(
    ("tf32", "inside"), [(True, ("high", True)), (False, ("highest", False))]
)
def test_tf32_holds_while_a_run_lasts_and_is_put_back(
    tf32: bool, inside: tuple[str, bool], fails: bool, process: tuple[str, bool]
) -> None:
    sees = Sees(fails)
    trainer = make_trainer(None, None, sees, tf32=tf32)
    assert switches() == process
    try:
        trainer.train()
    except RuntimeError:
        assert fails
    assert sees.switches == inside
    assert switches() == process


def test_tf32_holds_from_the_first_event_on_and_not_in_closing(
    process: tuple[str, bool],
) -> None:
    class Watches:
        @hookimpl
        def wrap_model(self) -> None:
            self.first = switches()

        @hookimpl
        def on_train_end(self) -> None:
            self.last = switches()
            raise RuntimeError("a plugin's own")

        @hookimpl
        def on_exception(self) -> None:
            self.told = switches()

        @hookimpl
        def on_close(self) -> None:
            self.closed = switches()

    watches = Watches()
    trainer = make_trainer(None, None, watches, tf32=True)
    for _ in range(2):  # also when it runs again
        with pytest.raises(RuntimeError, match="a plugin's own"):
            trainer.train()
        assert (watches.first, watches.last) == (("high", True), ("high", True))
        assert (watches.told, watches.closed) == (process, process)
    assert "tf32" not in trainer.plugins


def test_without_tf32_the_process_keeps_its_switches(
    process: tuple[str, bool],
) -> None:
    sees = Sees()
    make_trainer(None, None, sees).train()
    assert sees.switches == process


def test_a_resume_with_another_tf32_is_another_run(tmp_path: Any) -> None:
    trainer = make_trainer(tf32=True)
    trainer.train()
    trainer.save_checkpoint(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="tf32 was True, is False"):
        make_trainer(tf32=False, num_epochs=2).load_checkpoint(tmp_path / "a.pt")


def train(compile_: Any, **options: Any) -> Trainer:
    trainer = make_trainer(Regression(), None, compile=compile_, **options)
    trainer.train()
    return trainer


def test_a_compiled_forward_ends_in_the_same_weights_under_the_same_names() -> None:
    plain, fast = train(False), train({"backend": "eager"})
    assert type(fast._run.window.model) is not Regression
    assert fast.model.state_dict().keys() == plain.model.state_dict().keys()
    assert_equal_weights(fast.model, plain.model)


def test_a_checkpoint_of_a_compiled_run_fits_a_plain_one(tmp_path: Any) -> None:
    train({"backend": "eager"}).save_checkpoint(tmp_path / "a.pt")
    resumed = make_trainer(Regression(), num_epochs=2)
    resumed.load_checkpoint(tmp_path / "a.pt")
    resumed.train()
    whole = train(False, num_epochs=2)
    assert_equal_weights(resumed.model, whole.model)


class Wrapper(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *arguments: Any) -> Any:
        return self.inner(*arguments)


class Wraps:
    @hookimpl
    def wrap_model(self, model: torch.nn.Module) -> torch.nn.Module:
        return Wrapper(model)


def test_what_plugins_wrap_is_compiled_with_its_wrappers() -> None:
    trainer = make_trainer(None, None, Wraps(), compile={"backend": "eager"})
    trainer.bus.register(Wraps(), "zz, registered later")
    trainer.train()
    assert isinstance(trainer._run.window.model._orig_mod, Wrapper)
    assert isinstance(trainer._run.window.model._orig_mod.inner, Wrapper)
    assert "compile" not in trainer.plugins


@pytest.mark.parametrize("compile_", [False, {"backend": "eager"}])
@pytest.mark.parametrize("plugins", [(), (Wraps(),)], ids=["none", "one that wraps"])
def test_the_model_itself_is_called_where_nothing_is_put_around_it(
    plugins: tuple[Any, ...], compile_: Any
) -> None:
    trainer = make_trainer(None, None, *plugins, compile=compile_)
    module = wrapped_module(trainer)
    assert (module is trainer.model) == (not plugins and not compile_)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        pytest.param({"mode": "fastest"}, "fastest.*max-autotune", id="a mode"),
        pytest.param({"backend": "nope"}, "Invalid backend: 'nope'", id="a backend"),
        pytest.param({"modus": 1}, "modus", id="an argument"),
        pytest.param("yes", "compile is 'yes'; use true, false", id="a text"),
    ],
)
def test_what_torch_refuses_is_refused_at_once(given: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_trainer(compile=given)


def test_a_model_that_its_owner_compiled_is_not_compiled_again() -> None:
    compiled: Any = torch.compile(Regression(), backend="eager")
    with pytest.raises(ConfigError, match="already; pass it as it was"):
        make_trainer(compiled, compile={"backend": "eager"}).train()
    make_trainer(compiled).train()
