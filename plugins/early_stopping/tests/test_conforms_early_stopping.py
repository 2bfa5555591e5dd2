"""The plugin passes the kit that every plugin must pass."""

import pytest

from trainbus_early_stopping import EarlyStoppingCallback


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="as it comes"),
        pytest.param({"patience": 1, "min_delta": 9.0}, id="when it stops the run"),
        pytest.param(
            {"restore_best_weights": True, "persist_best": "weights"},
            id="when it brings back the best weights",
        ),
    ],
)
def test_early_stopping_conforms(options, assert_plugin_conforms):
    assert_plugin_conforms(lambda: EarlyStoppingCallback(**options), num_epochs=3)
