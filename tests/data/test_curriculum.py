"""A curriculum: some rows alone in the first epochs, then all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from trainbus_data.config import CurriculumConfig
from trainbus_data.curriculum import Beginning, Curriculum, rows_to_begin_with
from trainbus_data.data_pipeline import DataPipeline
from training import Trainer
from training.errors import CheckpointError, ConfigError
from training.feed.epoch_loader import EpochLoader

FIRST = [1, 4, 6]


def loader(workers: int = 0) -> EpochLoader:
    sampler = Curriculum(10, FIRST, epochs=2)
    rows = DataLoader(
        torch.arange(10), batch_size=2, sampler=sampler, num_workers=workers
    )
    return EpochLoader(rows, seed=3)


def epoch(number: int, skip: int = 0) -> list[int]:
    return [int(row) for batch in loader().start(number, skip) for row in batch]


def test_the_first_epochs_draw_the_chosen_rows_alone_each_before_any_comes_again() -> (
    None
):
    for number in range(2):
        drawn = epoch(number)
        assert len(drawn) == 10
        assert all(sorted(drawn[n : n + 3]) == FIRST for n in (0, 3, 6))
        assert set(drawn) == set(FIRST)
    assert epoch(0) != epoch(1)


def test_then_all_rows_come_once_an_epoch() -> None:
    for number in (2, 3):
        assert Counter(epoch(number)) == Counter(range(10))


@pytest.mark.parametrize("number", [0, 1, 2], ids=["first", "its last", "all"])
@pytest.mark.parametrize("skip", [1, 3])
def test_an_epoch_goes_on_where_it_was_left(number: int, skip: int) -> None:
    assert epoch(number, skip) == epoch(number)[2 * skip :]


def test_workers_draw_the_same() -> None:
    drawn = [int(row) for batch in loader(workers=1).start(1) for row in batch]
    assert drawn == epoch(1)


def trainer(epochs: int, first: list[int]) -> Trainer:
    rows = TensorDataset(torch.arange(10.0).reshape(10, 1), torch.zeros(10, 1))
    order = Curriculum(10, first, epochs)
    model = nn.Linear(1, 1)
    return Trainer(
        model,
        DataLoader(rows, batch_size=2, sampler=order),
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        loss_fn=nn.functional.mse_loss,
        num_epochs=3,
        max_steps=2,
    )


@pytest.mark.parametrize(
    ("epochs", "first"), [(3, FIRST), (2, [1, 4])], ids=["epochs", "rows"]
)
def test_another_curriculum_is_no_way_to_go_on(
    tmp_path: Path, epochs: int, first: list[int]
) -> None:
    saved = trainer(2, FIRST)
    saved.train()
    path = saved.save_checkpoint(tmp_path / "saved.pt")
    trainer(2, FIRST).load_checkpoint(path)
    with pytest.raises(CheckpointError, match="sampler"):
        trainer(epochs, first).load_checkpoint(path)


@pytest.mark.parametrize(
    ("epochs", "chosen", "is_told"),
    [(2, 4, True), (3, 4, True), (4, 4, False), (2, 10, False)],
    ids=["before its end", "with it", "later", "all are chosen"],
)
def test_a_run_that_ends_with_its_curriculum_says_how_many_rows_never_come(
    epochs: int, chosen: int, is_told: bool
) -> None:
    config = CurriculumConfig(epochs=3, field="kind", values=["other"])
    told = Beginning(chosen, 10, config).never_drawn(epochs)
    assert ["6 of 10 training rows are never" in each for each in told] == (
        [True] if is_told else []
    )


ROWS = [
    {"image": "red.png", "question": "is it red?", "answer": "yes"},
    {"image": "green.png", "question": "what color is this?", "answer": "green"},
    {"image": "blue.png", "question": "is it red?", "answer": "no"},
]


@pytest.fixture
def make(
    tiny: Mapping[str, Any], rows_file: Callable[..., Path]
) -> Callable[..., DataPipeline]:
    def build(**settings: Any) -> DataPipeline:
        config = {"train": str(rows_file(ROWS)), "max_question_length": 8, **settings}
        return DataPipeline(config, processor=tiny["processor"], bos_token_id=5)

    return build


def test_a_configuration_chooses_by_a_field_of_the_task(
    make: Callable[..., DataPipeline],
) -> None:
    chosen = {"epochs": 1, "field": "kind", "values": ["other"]}
    pipeline = make(curriculum=chosen, batch_size=3)
    assert (
        str(pipeline.beginning()) == "1 alone in the first epoch: those of kind other"
    )
    pipeline.setup()
    batches = EpochLoader(pipeline.get_train_dataloader(), seed=0)
    for number, answers in enumerate([["green"] * 3, ["green", "no", "yes"]]):
        (batch,) = batches.start(number)
        assert sorted(row["answer"] for row in batch.rows) == answers


def test_a_row_without_the_field_has_no_value_to_be_chosen_by() -> None:
    rows: list[dict[str, Any]] = [{"kind": "hard"}, {}, {"kind": None}, {"kind": 3}]
    for values, chosen in ((["hard"], [0]), (["3"], [3])):
        config = CurriculumConfig(epochs=1, field="kind", values=values)
        assert rows_to_begin_with(rows, config, {"kind": "text"}, str) == chosen
    config = CurriculumConfig(epochs=1, field="kind", values=["None"])
    with pytest.raises(ConfigError, match=r"rows have: 3, hard$"):
        rows_to_begin_with(rows, config, {"kind": "text"}, str)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        pytest.param(
            {"curriculum": {"epochs": 1, "field": "knd", "values": ["other"]}},
            "is 'knd', no field of the task (did you mean 'kind'?)",
            id="no such field",
        ),
        pytest.param(
            {"curriculum": {"epochs": 1, "field": "kind", "values": ["othr"]}},
            "'othr', which no training row has as its kind (did you mean 'other'?)",
            id="no such value",
        ),
        pytest.param(
            {
                "curriculum": {"epochs": 1, "field": "kind", "values": ["other"]},
                "shuffle": False,
            },
            "curriculum draws rows, and shuffle is false",
            id="not shuffled",
        ),
        pytest.param(
            {"curriculum": {"epochs": 0, "field": "kind", "values": ["other"]}},
            "epochs",
            id="no epoch",
        ),
        pytest.param(
            {"curriculum": {"epochs": 1, "field": "kind", "values": []}},
            "values",
            id="no value",
        ),
    ],
)
def test_a_curriculum_that_chooses_nothing_is_refused(
    make: Callable[..., DataPipeline], settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        make(**settings).beginning()
    assert told in str(refused.value)
