"""The plugin passes the kit that every plugin must pass."""

import pytest

from trainbus_lr_scheduling import LearningRateSchedulerCallback


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"type": "cosine", "warmup": 2}, id="cosine with a warmup"),
        pytest.param({"type": "linear", "interval": "epoch"}, id="by epochs"),
        pytest.param({"type": "plateau", "patience": 0}, id="plateau"),
    ],
)
def test_lr_scheduling_conforms(options, assert_plugin_conforms):
    assert_plugin_conforms(lambda: LearningRateSchedulerCallback(**options))
