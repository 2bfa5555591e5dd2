"""What a mistaken name is taken for."""

import pytest

from training.errors import did_you_mean


@pytest.mark.parametrize(
    ("word", "choices", "near"),
    [
        ("val_los", ["val_loss"], "val_loss"),
        ("Accuracy", ["accuracy"], "accuracy"),
        ("warmup_steps", ["warmup", "type"], "warmup"),
        ("top_k", ["save_top_k"], "save_top_k"),
        ("epoch", ["num_epochs"], "num_epochs"),
        ("loss_fn", ["loss_per"], None),
        ("min_lr", ["min_delta"], None),
    ],
)
def test_a_name_is_suggested_that_is_near_or_holds_the_other(word, choices, near):
    assert did_you_mean(word, choices) == (f" (did you mean {near!r}?)" if near else "")
