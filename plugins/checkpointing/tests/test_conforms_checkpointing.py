"""The plugin passes the kit that every plugin must pass."""

import pytest

from trainbus_checkpointing import ModelCheckpointCallback


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="as it comes"),
        pytest.param({"monitor": None, "every_n_steps": 3}, id="by steps"),
        pytest.param({"save_top_k": 2, "save_frequency": 2}, id="the best two"),
    ],
)
def test_checkpointing_conforms(options, assert_plugin_conforms):
    assert_plugin_conforms(lambda: ModelCheckpointCallback(**options))
