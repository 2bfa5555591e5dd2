"""Metrics of a run: averages by weight, also over ragged batches; modes come back."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from trainbus_evaluation import EvaluationCallback, Evaluator
from training import Callback, ConfigError, Trainer
from training.loop.metrics import Metrics

ROWS, CLASSES = 23, 4  # 23 = 3 * 7 + 2 = 2 * 10 + 3: a last batch of another size


class Net(nn.Module):
    """A classifier with dropout and BatchNorm, one of them frozen."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head = nn.Linear(8, CLASSES)
        self.body[1]._is_frozen = True  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


def run(seed: int, batch_size: int) -> tuple[Trainer, Tensor, Tensor]:
    """Train one epoch; return (trainer, rows, targets) of the validation data."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, 5, generator=generator)
    y = torch.randint(CLASSES, (ROWS,), generator=generator)
    model = Net(seed)
    trained = [p for p in model.parameters() if p.requires_grad]
    trainer = Trainer(
        model=model,
        train_dataloader=[(x[:12], y[:12])] * 3,
        val_dataloader=DataLoader(TensorDataset(x, y), batch_size=batch_size),
        optimizer=torch.optim.SGD(trained, lr=0.1),
        loss_fn=nn.functional.cross_entropy,
        callbacks=[EvaluationCallback(metrics=["accuracy", "f1"])],
        device="cpu",
        seed=seed,
    )
    trainer.train()
    return trainer, x, y


@pytest.mark.parametrize("batch_size", [23, 7, 10, 1])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_metrics_in_a_run_equal_scikit_learn_on_all_rows(
    seed: int, batch_size: int
) -> None:
    trainer, x, y = run(seed, batch_size)
    row = trainer.history[-1]
    with torch.no_grad():
        logits = trainer.model.eval()(x)
    predicted = logits.argmax(-1)
    chances = logits.double().softmax(-1)
    every = list(range(CLASSES))
    assert row["val_loss"] == pytest.approx(log_loss(y, chances, labels=every), 1e-5)
    assert row["accuracy"] == pytest.approx(accuracy_score(y, predicted))
    assert row["f1"] == pytest.approx(f1_score(y, predicted, average="macro"))


@pytest.mark.parametrize("batch_size", [7, 10])
@pytest.mark.parametrize("seed", [3, 4])
def test_metrics_in_a_run_equal_torchmetrics_fed_batch_by_batch(
    seed: int, batch_size: int
) -> None:
    trainer, x, y = run(seed, batch_size)
    accuracy = MulticlassAccuracy(CLASSES, average="micro")
    f1 = MulticlassF1Score(CLASSES, average="macro")
    with torch.no_grad():
        trainer.model.eval()
        for part, target in zip(x.split(batch_size), y.split(batch_size), strict=True):
            predicted = trainer.model(part).argmax(-1)
            accuracy.update(predicted, target)
            f1.update(predicted, target)
    row = trainer.history[-1]
    assert row["accuracy"] == pytest.approx(float(accuracy.compute()))
    assert row["f1"] == pytest.approx(float(f1.compute()))


def test_a_mean_of_batch_means_would_be_another_number() -> None:
    """The negative control: the last batch of 2 rows would count like one of 7."""
    trainer, x, y = run(0, 7)
    parts = zip(x.split(7), y.split(7), strict=True)
    with torch.no_grad():
        model = trainer.model.eval()
        means = [float(nn.functional.cross_entropy(model(a), b)) for a, b in parts]
    by_batch = sum(means) / len(means)
    assert abs(trainer.history[-1]["val_loss"] - by_batch) > 1e-3


def test_evaluation_gives_every_module_its_own_mode_back() -> None:
    seen: list[dict[str, bool]] = []

    class Looks(EvaluationCallback):
        def on_step_end(self, trainer: Any) -> None:
            super().on_step_end(trainer)
            seen.append({n: m.training for n, m in trainer.model.named_modules()})

    x, y = torch.randn(8, 5), torch.arange(8) % CLASSES
    model = Net(0)
    trained = [p for p in model.parameters() if p.requires_grad]
    Trainer(
        model=model,
        train_dataloader=[(x, y)] * 4,
        val_dataloader=[(x, y)],
        optimizer=torch.optim.SGD(trained, lr=0.1),
        loss_fn=nn.functional.cross_entropy,
        callbacks=[Looks(every_n_steps=1)],
        device="cpu",
        num_epochs=2,
    ).train()
    expected = {name: name != "body.1" for name, _ in model.named_modules()}
    assert seen == [expected] * 8


def test_a_plugin_of_ones_own_measures_in_eval_mode_and_records_no_gradients() -> None:
    during: list[tuple[bool, bool]] = []
    after: list[tuple[bool, bool]] = []

    class Measures(Callback):
        def evaluate(self, trainer: Any) -> dict[str, float]:
            during.append((trainer.model.training, torch.is_grad_enabled()))
            return {"val_loss": 1.0}

        def on_metrics(self, trainer: Any) -> None:
            after.append((trainer.model.training, torch.is_grad_enabled()))

    model = nn.Linear(5, CLASSES)
    Trainer(
        model=model,
        train_dataloader=[(torch.randn(4, 5), torch.arange(4) % CLASSES)],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=nn.functional.cross_entropy,
        callbacks=[Measures()],
        device="cpu",
    ).train()
    assert (during, after) == ([(False, False)], [(True, True)])


def test_a_step_fn_that_measures_in_train_mode_is_refused_and_may_train_so() -> None:
    def step(model: nn.Module, batch: Any) -> Tensor:
        model.train()
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def trainer(**options: Any) -> Trainer:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return Trainer(
            model, batches, optimizer=optimizer, step_fn=step, device="cpu", **options
        )

    model, told = nn.Linear(5, CLASSES), r"step_fn put .* leave model\.train\(\) out"
    batches = [(torch.randn(4, 5), torch.arange(4) % CLASSES)]
    with pytest.raises(ConfigError, match=told):
        trainer(val_dataloader=batches).train()
    with pytest.raises(ConfigError, match=told):
        Evaluator(model, step_fn=step).evaluate(batches)
    trainer().train()


def test_a_loss_that_train_mode_alone_has_is_measured_where_the_mode_is_put_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Detector(nn.Module):  # as torchvision's
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(5, CLASSES)

        def forward(self, rows: Tensor, labels: Tensor) -> Any:
            found = self.body(rows)
            if not self.training:
                return found.argmax(1)
            return {"loss": nn.functional.cross_entropy(found, labels)}

    def step(model: nn.Module, batch: Any) -> Tensor:
        was = model.training
        model.train()
        loss: Tensor = model(*batch)["loss"]
        model.train(was)
        return loss

    model = Detector()
    trainer = Trainer(
        model,
        [(torch.randn(4, 5), torch.arange(4) % CLASSES)],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        step_fn=step,
        val_dataloader=[(torch.randn(4, 5), torch.arange(4) % CLASSES)],
        device="cpu",
    )
    trainer.train()
    assert trainer.history[-1]["val_loss"] > 0.0
    assert "eval mode" not in caplog.text


@pytest.mark.parametrize("who", ["an evaluator alone", "a plugin of one's own"])
@pytest.mark.parametrize("how", ["grad", "backward", "register_hook", "retain_grad"])
def test_what_lacks_a_gradient_in_an_evaluation_is_told_how_to_have_it(
    who: str, how: str
) -> None:
    def differentiate(model: nn.Module, batch: Any) -> Tensor:
        rows = batch[0].clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(rows), batch[1])
        if how == "grad":
            torch.autograd.grad(loss, rows, create_graph=True)
        elif how == "register_hook":
            loss.register_hook(print)
        else:
            getattr(loss, how)()
        return loss

    class Measures(Callback):
        def evaluate(self) -> dict[str, float]:
            return {"val_loss": float(differentiate(model, batches[0]))}

    model = nn.Linear(5, CLASSES)
    batches = [(torch.randn(4, 5), torch.arange(4) % CLASSES)]
    evaluator = Evaluator(model, step_fn=differentiate, loss_per="samples")
    trainer = Trainer(
        model=model,
        train_dataloader=batches,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=nn.functional.cross_entropy,
        callbacks=[Measures()],
        device="cpu",
    )
    measure = partial(evaluator.evaluate, batches)
    with pytest.raises(RuntimeError) as raised:
        (measure if who == "an evaluator alone" else trainer.train)()
    notes = "\n".join(raised.value.__notes__)
    assert notes.count("below torch.enable_grad(), or leave it out where") == 1


LARGEST_IS_BEST = """
    MulticlassAccuracy F1Score BinaryAUROC R2Score MeanIoU BLEUScore JaccardIndex
    r2 mAP mAP50 rouge1 rougeL dice top5acc val_recall/clean exact_match
"""
SMALLEST_IS_BEST = "MAPE rmse WordErrorRate mapped facts DiceLoss f16_time val_loss"


def test_by_words_of_any_spelling_one_is_warned_of_watching_the_worst(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for names, is_told in (LARGEST_IS_BEST, True), (SMALLEST_IS_BEST, False):
        for name in names.split():
            caplog.clear()
            Metrics().require(name, "x.monitor", "min")
            assert bool(caplog.messages) == is_told, name
            Metrics().require(name, "x.monitor", "max")
            assert len(caplog.messages) == is_told, name
