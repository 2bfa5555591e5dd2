"""The plugin passes the kit that every plugin must pass."""

import pytest

from trainbus_evaluation import EvaluationCallback
from training.testing import tiny_batches


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="at every epoch end"),
        pytest.param({"every_n_steps": 3, "every_n_epochs": 2}, id="by steps too"),
    ],
)
def test_evaluation_conforms(options, assert_plugin_conforms):
    assert_plugin_conforms(
        lambda: EvaluationCallback(**options), val_dataloader=tiny_batches(2, seed=2)
    )
