"""Evaluated batches that do not tell how many samples they hold."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

from trainbus_evaluation.metrics import LossMeans
from training import DataError, Trainer
from training.callbacks import ModelCheckpointCallback

GENERATOR = torch.Generator().manual_seed(0)
CLOUDS = [(torch.randn(2 + n % 4, 3, generator=GENERATOR), n % 2) for n in range(14)]
#: Of several lengths, which a plain batch sampler has not.
CHOSEN = [[0, 1, 2], [3, 4, 5, 6, 7], [8, 9], [10, 11, 12, 13]]


def joined(clouds):
    """Points of all clouds in one row: only the sampler knows how many those are."""
    sizes = torch.tensor([len(points) for points, _ in clouds])
    return {
        "points": torch.cat([points for points, _ in clouds]),
        "cloud": torch.repeat_interleave(torch.arange(len(clouds)), sizes),
        "labels": torch.tensor([label for _, label in clouds]),
    }


class Pools(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, points, cloud, labels):
        inner = self.inner(points).relu()
        pooled = torch.zeros(len(labels), 8).index_add(0, cloud, inner)
        return {"loss": cross_entropy(self.head(pooled), labels)}


def plain():
    return DataLoader(CLOUDS, batch_size=4, collate_fn=joined)


def make_trainer(folder, val_dataloader, **options):
    torch.manual_seed(0)
    model = Pools()
    return Trainer(
        model,
        DataLoader(CLOUDS, batch_size=4, shuffle=True, collate_fn=joined),
        val_dataloader,
        torch.optim.SGD(model.parameters(), lr=0.1),
        callbacks=[ModelCheckpointCallback(folder, monitor=None)],
        num_epochs=2,
        seed=0,
        device="cpu",
        **options,
    )


VALIDATION = {
    "a plain loader": plain,
    "a list of batches": lambda: [joined([CLOUDS[n] for n in own]) for own in CHOSEN],
    "a batch sampler of its own": lambda: DataLoader(
        CLOUDS, batch_sampler=CHOSEN, collate_fn=joined
    ),
}


@pytest.mark.parametrize("kind", VALIDATION)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_batches_whose_samples_only_the_sampler_knows_are_evaluated_and_resumed(
    kind, accumulation, tmp_path
):
    """By the unit that they do tell, of those that weigh alike so far."""
    options = {"gradient_accumulation_steps": accumulation}
    straight = make_trainer(tmp_path / "one", VALIDATION[kind](), **options)
    straight.train()
    with torch.no_grad():
        clouds = joined(CLOUDS)
        assert straight.history[-1]["val_loss"] == pytest.approx(
            straight.model(**clouds)["loss"].item()
        )
    make_trainer(tmp_path / "two", VALIDATION[kind](), max_steps=2, **options).train()
    resumed = make_trainer(tmp_path / "two", VALIDATION[kind](), **options)
    resumed.train(resume="auto")
    assert resumed.history[-1]["val_loss"] == straight.history[-1]["val_loss"]


def test_the_look_counts_samples_as_the_evaluation_does(tmp_path):
    make_trainer(tmp_path, plain(), loss_per="samples").train()
    odd = VALIDATION["a list of batches"]()
    trainer = make_trainer(tmp_path, odd, loss_per="samples")
    with pytest.raises(
        DataError, match=r"a batch \(dict\) counts by samples"
    ) as caught:
        trainer.train()
    assert trainer.step == 0
    assert "before training" in str(caught.value.__notes__)


class Joins:
    """Joins each two batches of a loader, whose sampler knows nothing of it."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        batches = list(self.loader)
        for at in range(0, len(batches), 2):
            yield tuple(map(torch.cat, zip(*batches[at : at + 2], strict=True)))

    def __len__(self):
        return -(-len(self.loader) // 2)


def test_batches_that_a_wrapper_regroups_count_what_they_hold(tmp_path):
    torch.manual_seed(0)
    x, y, model = torch.randn(13, 3), torch.randn(13, 1), nn.Linear(3, 1)
    trainer = Trainer(
        model,
        DataLoader(TensorDataset(x, y), batch_size=4),
        Joins(DataLoader(TensorDataset(x, y), batch_size=4)),
        torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=mse_loss,
        loss_per="samples",
        num_epochs=1,
        device="cpu",
        save_dir=tmp_path,
    )
    trainer.train()
    with torch.no_grad():
        expected = mse_loss(model(x), y).item()
    assert trainer.history[-1]["val_loss"] == pytest.approx(expected)


def step(model, batch):
    """Of class numbers, where there are any."""
    if "labels" not in batch:
        return model.weight.sum() * 0.0
    return cross_entropy(model(batch["x"]).transpose(1, 2), batch["labels"])


def test_what_does_not_tell_the_unit_of_those_before_it_is_refused_before_training():
    model = nn.Linear(3, 2)
    x, labels = torch.randn(4, 5, 3), torch.randint(0, 2, (4, 5))
    labels[:2, 1:] = -100
    trainer = Trainer(
        model,
        [{"x": x, "labels": labels}],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        step_fn=step,
        device="cpu",
    )
    assert trainer.compute_loss({"x": x, "labels": labels})[1] == 12
    with pytest.raises(DataError, match=r"a batch \(dict\) counts by labels"):
        trainer.compute_loss({"x": x})


@pytest.mark.parametrize("tells_first", [True, False])
def test_samples_and_batches_are_not_added_up_before_training(tells_first, caplog):
    """A batch counts as one where none before it told its samples."""
    model = nn.Linear(3, 2)
    x = torch.randn(8, 3)
    tells, does_not = {"x": x}, {"x": x, "beside": torch.randn(3)}
    trainer = Trainer(
        model,
        [tells],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        step_fn=lambda model, batch: model(batch["x"]).square().mean(),
        device="cpu",
    )
    if tells_first:
        assert trainer.compute_loss(tells)[1] == 8
        with pytest.raises(DataError, match=r"a batch \(dict\) counts by samples"):
            trainer.compute_loss(does_not)
        return
    assert [trainer.compute_loss(does_not)[1] for _ in range(2)] == [1, 1]
    assert not caplog.records
    assert trainer.compute_loss(tells)[1] == 8
    assert "batches before it were counted by batches" in caplog.text


def test_a_weight_that_the_step_returns_is_that_of_batches_that_tell_nothing():
    model = nn.Linear(3, 2)
    x = torch.randn(8, 3)
    trainer = Trainer(
        model,
        [{"x": x}],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        step_fn=lambda model, batch: {
            "loss": model(batch["x"]).square().mean(),
            "weight": 5,
        },
        device="cpu",
    )
    for batch in ({"x": x}, {"x": x, "beside": torch.randn(3)}):
        assert trainer.compute_loss(batch)[1] == 5


def test_a_weight_that_is_none_is_seen_in_the_mean() -> None:
    means = LossMeans()
    for weight in (2.0, math.nan, 0.0):
        means.add(torch.tensor(1.0), weight, {"": 5.0})
    assert math.isnan(means.value())
    assert means.parts().keys() == {"val_"}
