"""The plugins pass the kit that every plugin must pass."""

import pytest

from trainbus_logging import CSVLoggerCallback, ProgressBarCallback, TensorBoardCallback


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(CSVLoggerCallback, id="csv"),
        pytest.param(ProgressBarCallback, id="progress"),
        pytest.param(TensorBoardCallback, id="tensorboard"),
    ],
)
def test_a_logger_conforms(make, assert_plugin_conforms):
    assert_plugin_conforms(make)
