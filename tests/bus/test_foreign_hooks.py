"""Words of other trainers are answered with ours."""

from __future__ import annotations

import pytest

from training import Bus, Callback, PluginError
from training.bus.foreign_hooks import FOREIGN
from training.hookspecs import HOOKS


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("on_train_batch_end", "on_batch_end"),
        ("on_validation_end", "on_metrics"),
        ("on_train_epoch_end", "on_epoch_end"),
        ("on_fit_start", "on_setup"),
        ("on_step_begin", "on_batch_begin"),
        ("on_log", "on_step_end"),
        ("on_save", "on_checkpoint"),
        ("on_evaluate", "on_metrics"),
    ],
)
def test_a_hook_of_another_trainer_is_refused_with_ours(theirs: str, ours: str) -> None:
    plugin = type("Theirs", (Callback,), {theirs: lambda self: None})()
    with pytest.raises(PluginError, match=f"'{theirs}'.*here it is '{ours}'"):
        Bus().register(plugin)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("training_step", "step_fn"), ("batch_start", "on_batch_begin")],
)
def test_a_method_of_another_trainer_without_on_is_warned_of(
    theirs: str, ours: str, caplog: pytest.LogCaptureFixture
) -> None:
    Bus().register(type("Theirs", (Callback,), {theirs: lambda self: None})())
    assert f"'{theirs}', which is no hook" in caplog.text
    assert f"it is '{ours}'" in caplog.text


def test_no_word_of_another_trainer_is_a_hook_here() -> None:
    assert not FOREIGN.keys() & set(HOOKS)
    assert set(FOREIGN.values()) <= {*HOOKS, "step_fn", *dir(Callback)}
