"""The plugins pass the kit that every plugin must pass."""

import pytest

from trainbus_logging import CSVLoggerCallback, ProgressBarCallback, TensorBoardCallback


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(CSVLoggerCallback, id="csv"),
        pytest.param(lambda: CSVLoggerCallback(every_n_steps=1), id="csv of steps"),
        pytest.param(ProgressBarCallback, id="progress"),
        pytest.param(TensorBoardCallback, id="tensorboard"),
    ],
)
def test_a_logger_conforms(make, assert_plugin_conforms):
    assert_plugin_conforms(make)
