"""What each schedule is worth, as closed forms."""

import pytest
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
)

from trainbus_lr_scheduling import Schedule

from .fakes import make_optimizer


@pytest.mark.parametrize(
    ("schedule", "advances", "expected"),
    [
        pytest.param(Schedule("cosine", 10), 0, 1.0, id="cosine starts at the rate"),
        pytest.param(Schedule("cosine", 10), 5, 0.5, id="cosine halves half-way"),
        pytest.param(Schedule("cosine", 10), 10, 0.0, id="cosine ends at zero"),
        pytest.param(Schedule("cosine", 10), 99, 0.0, id="cosine stays at its end"),
        pytest.param(
            Schedule("cosine", 10, min_lr=0.2), 5, 0.6, id="cosine falls to min_lr"
        ),
        pytest.param(
            Schedule("linear", 10, min_factor=0.5), 5, 0.75, id="linear to min_factor"
        ),
        pytest.param(Schedule("constant"), 10**6, 1.0, id="constant stays"),
        pytest.param(
            Schedule("step", step_size=3), 2, 1.0, id="step waits for step_size"
        ),
        pytest.param(Schedule("step", step_size=3), 3, 0.1, id="step drops by gamma"),
        pytest.param(
            Schedule("step", step_size=1, min_lr=0.05), 9, 0.05, id="step has a floor"
        ),
        pytest.param(
            Schedule("linear", 10, warmup=4), 0, 0.2, id="the first update is not idle"
        ),
        pytest.param(Schedule("linear", 10, warmup=4), 4, 1.0, id="warmup reaches it"),
        pytest.param(
            Schedule("linear", 10, warmup=4), 7, 0.5, id="decay starts after warmup"
        ),
        pytest.param(
            Schedule("linear", 10, min_lr=2.0), 5, 1.0, id="no floor above the rate"
        ),
    ],
)
def test_closed_forms_have_these_values(schedule, advances, expected):
    assert schedule.lr_at(advances, 1.0) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("total", [1, 7, 100])
def test_cosine_equals_torch(total):
    optimizer = make_optimizer(0.3)
    theirs = CosineAnnealingLR(optimizer, T_max=total, eta_min=0.01)
    ours = Schedule("cosine", total, min_lr=0.01)
    for advances in range(total + 1):
        rate = optimizer.param_groups[0]["lr"]
        assert ours.lr_at(advances, 0.3) == pytest.approx(rate, abs=1e-12)
        optimizer.step()
        theirs.step()
