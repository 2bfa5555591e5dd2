"""Accumulation and loss: what a window's gradient is, for every kind of weight."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from toy import Recorder, Regression, make_trainer, regression_batches, weights_of

from trainbus_models.blip.build import build_blip
from training import Callback, ConfigError, Trainer
from training.recipes.batch import Batch

SPLITS = [
    pytest.param([4, 4], id="2 x 4"),
    pytest.param([2, 2, 2, 2], id="4 x 2"),
    pytest.param([3, 5], id="3 + 5"),
    pytest.param([5, 1, 2], id="5 + 1 + 2"),
]


class Gradients(Callback):
    """Copies each window's gradients, as the optimizer is about to see them."""

    def __init__(self) -> None:
        self.windows: list[dict[str, Tensor]] = []

    def on_before_step(self, trainer: Trainer) -> None:
        named = trainer.model.named_parameters()
        self.windows.append({n: p.grad.clone() for n, p in named if p.grad is not None})


def first_window(model: nn.Module, batches: list[Any], **options: Any) -> Any:
    """Return the gradients of one window over all of ``batches``, in eval mode."""
    seen = Gradients()
    trainer = make_trainer(
        copy.deepcopy(model),
        batches,
        seen,
        gradient_accumulation_steps=len(batches),
        **options,
    )
    trainer.train()
    assert trainer.step == 1
    return seen.windows[0]


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


# BLIP: a mean over label tokens ------------------------------

QUESTIONS = ["is it red?", "what color?", "how large is this shape?", "red?"] * 2
ANSWERS = ["yes", "dark red", "no", "a large dark red shape", "no", "red", "yes", "no"]


@pytest.fixture(scope="module")
def blip() -> dict[str, Any]:
    return build_blip(
        [*QUESTIONS, *ANSWERS], hidden_size=16, image_size=32, num_attention_heads=2
    )


def vqa_batch(blip: dict[str, Any], rows: list[int]) -> Batch:
    """Return these rows padded to their own longest texts, as a loader gives them."""
    processor, config = blip["processor"], blip["model"].config.text_config
    inputs = processor(
        images=[Image.new("RGB", (32, 32), (30 * row, 80, 200)) for row in rows],
        text=[QUESTIONS[row] for row in rows],
        padding=True,
        return_tensors="pt",
    )
    answers = processor.tokenizer(
        [ANSWERS[row] for row in rows], padding=True, return_tensors="pt"
    )
    ids, mask = answers["input_ids"], answers["attention_mask"]
    ids[:, 0] = config.bos_token_id
    labels = ids.masked_fill(mask == 0, -100)
    tensors = {"decoder_input_ids": ids, "decoder_attention_mask": mask}
    weight = int((labels[:, 1:] != -100).sum())
    return Batch({**inputs, **tensors, "labels": labels}, [], weight)


def vqa_batches(blip: dict[str, Any], sizes: list[int]) -> list[Batch]:
    parts = torch.arange(8).split(sizes)
    return [vqa_batch(blip, part.tolist()) for part in parts]


@pytest.mark.parametrize("sizes", SPLITS)
def test_blip_has_the_gradient_of_one_batch_in_any_split(
    blip: dict[str, Any], sizes: list[int]
) -> None:
    whole = first_window(blip["model"], vqa_batches(blip, [8]))
    parts = first_window(blip["model"], vqa_batches(blip, sizes))
    assert largest_difference(whole, parts) < 1e-6


def test_blip_without_token_weights_fails_the_same_comparison(
    blip: dict[str, Any],
) -> None:
    """The negative control: rows in place of tokens are plainly a different mean."""
    by_rows = [dict(batch) for batch in vqa_batches(blip, [3, 5])]
    whole = first_window(blip["model"], vqa_batches(blip, [8]))
    parts = first_window(blip["model"], by_rows, loss_per="samples")
    assert largest_difference(whole, parts) > 1e-3
    assert largest_difference(whole, first_window(blip["model"], by_rows)) < 1e-6


@pytest.mark.parametrize("sizes", [*SPLITS, pytest.param([8], id="1 x 8")])
def test_the_loss_of_a_window_is_that_of_one_batch_not_n_times_it(
    blip: dict[str, Any], sizes: list[int]
) -> None:
    """8 rows as 4 x 2 report 4.0 times the loss of 1 x 8 in a peer."""
    recorder = Recorder()
    batches = vqa_batches(blip, sizes)
    make_trainer(
        copy.deepcopy(blip["model"]),
        batches,
        recorder,
        gradient_accumulation_steps=len(sizes),
        max_grad_norm=1e9,
    ).train()
    model = copy.deepcopy(blip["model"])
    loss = model(**vqa_batch(blip, list(range(8)))).loss
    loss.backward()
    norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    assert recorder.logs[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    norm = float(torch.stack(norms).norm())
    assert recorder.logs[0]["grad_norm"] == pytest.approx(norm, rel=1e-5)


# A classifier: a mean over samples that count differently -----


class Classifier(nn.Module):
    """Three classes; the loss is the mean over sample weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(self.layer(x), labels, reduction="none")
        return (loss * counts).sum() / counts.sum()


class Weighted(dict[str, Tensor]):
    """A batch that says how much its mean loss weighs."""

    @property
    def loss_weight(self) -> float:
        return float(self["counts"].sum())


def classified(sizes: list[int]) -> list[Weighted]:
    x = regression_batches(1, sum(sizes))[0][0]
    labels = torch.arange(sum(sizes)) % 3
    counts = torch.tensor([0.5, 3.0, 1.0, 0.25, 7.0, 2.0, 1.0, 0.1])[: sum(sizes)]
    columns = (x.split(sizes), labels.split(sizes), counts.split(sizes))
    return [Weighted(x=a, labels=b, counts=c) for a, b, c in zip(*columns, strict=True)]


@pytest.mark.parametrize("sizes", SPLITS)
def test_a_classifier_with_sample_weights_has_the_gradient_of_one_batch(
    sizes: list[int],
) -> None:
    whole = first_window(Classifier(), classified([8]))
    parts = first_window(Classifier(), classified(sizes))
    assert largest_difference(whole, parts) < 1e-6


@pytest.mark.parametrize("sizes", SPLITS)
def test_loss_fn_weighs_by_samples(sizes: list[int]) -> None:
    x, labels = regression_batches(1, 8)[0][0], torch.arange(8) % 3
    model, loss_fn = nn.Linear(4, 3), nn.functional.cross_entropy
    pairs = list(zip(x.split(sizes), labels.split(sizes), strict=True))
    whole = first_window(model, [(x, labels)], loss_fn=loss_fn)
    parts = first_window(model, pairs, loss_fn=loss_fn)
    assert largest_difference(whole, parts) < 1e-6


# Whole runs against a loop written by hand --------------------


def masked_step(model: nn.Module, batch: Any) -> dict[str, Any]:
    x, y, keep = batch
    error = (model.layers(x) - y).square().squeeze(1)
    return {"loss": (error * keep).sum() / keep.sum(), "weight": keep.sum()}


def by_hand(
    model: nn.Module, batches: list[Any], accumulation: int, optimizer: Any
) -> int:
    """Train one epoch on windows that are each one big batch; return the updates."""
    updates = 0
    for start in range(0, len(batches), accumulation):
        columns = zip(*batches[start : start + accumulation], strict=True)
        x, y, keep = (torch.cat(column) for column in columns)
        if keep.sum() == 0:
            continue
        optimizer.zero_grad()
        masked_step(model, (x, y, keep))["loss"].backward()
        optimizer.step()
        updates += 1
    return updates


class Lengthless:
    """A loader that does not know its length."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=7),
    accumulation=st.integers(1, 5),
    has_length=st.booleans(),
    fused=st.booleans(),
    data=st.data(),
)
def test_any_run_ends_with_the_weights_of_one_big_batch_a_window(
    sizes: list[int],
    accumulation: int,
    has_length: bool,
    fused: bool,
    data: st.DataObject,
) -> None:
    rows = sum(sizes)
    keep = data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
    x, y = regression_batches(1, rows)[0]
    mask = torch.tensor(keep, dtype=torch.float32)
    columns = (x.split(sizes), y.split(sizes), mask.split(sizes))
    batches = list(zip(*columns, strict=True))
    ours, theirs = Regression(), Regression()
    options = {"lr": 0.05, "momentum": 0.5, "fused": fused}
    trainer = Trainer(
        model=ours,
        train_dataloader=batches if has_length else Lengthless(batches),
        optimizer=torch.optim.SGD(ours.parameters(), **options),
        gradient_accumulation_steps=accumulation,
        step_fn=masked_step,
        device="cpu",
    )
    trainer.train()
    optimizer = torch.optim.SGD(theirs.parameters(), **options)
    assert trainer.update == by_hand(theirs, batches, accumulation, optimizer)
    assert trainer.step == -(-len(batches) // accumulation)
    for a, b in zip(weights_of(ours), weights_of(theirs), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-5)


# Edges of a window -------------------------------------------


def test_gradients_that_were_there_before_do_not_enter() -> None:
    clean, dirty = Regression(), Regression()
    for parameter in dirty.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    assert (
        largest_difference(
            first_window(clean, regression_batches(2)),
            first_window_in_place(dirty, regression_batches(2)),
        )
        == 0.0
    )


def first_window_in_place(model: nn.Module, batches: list[Any]) -> Any:
    seen = Gradients()
    make_trainer(model, batches, seen, gradient_accumulation_steps=2).train()
    return seen.windows[0]


def test_a_skipped_window_leaves_no_gradient_to_the_next() -> None:
    def step(model: nn.Module, batch: Any) -> dict[str, Any]:
        result = model(*batch[:2])
        return {"loss": result["loss"] * batch[2], "weight": 1.0}

    first, second = regression_batches(2)
    seen, alone = Gradients(), Gradients()
    batches = [(*first, float("nan")), (*second, 1.0)]
    make_trainer(None, batches, seen, step_fn=step, nonfinite="skip").train()
    make_trainer(None, [second], alone).train()
    assert largest_difference(seen.windows[-1], alone.windows[0]) == 0.0


def test_a_stop_asked_for_inside_a_window_waits_for_its_end() -> None:
    class StopAtOnce(Callback):
        def on_batch_end(self, trainer: Trainer, batch: int) -> None:
            if batch == 0:
                trainer.request_stop("now")

    stopped, full = Gradients(), Gradients()
    trainer = make_trainer(
        None,
        regression_batches(4),
        StopAtOnce(),
        stopped,
        gradient_accumulation_steps=2,
    )
    trainer.train()
    make_trainer(
        None, regression_batches(2), full, gradient_accumulation_steps=2
    ).train()
    assert (trainer.step, trainer.batches_seen) == (1, 2)
    assert largest_difference(stopped.windows[0], full.windows[0]) == 0.0


def test_a_group_that_joins_is_cleared_checked_corrected_and_clipped() -> None:
    class Joins(Callback):
        def on_epoch_begin(self, trainer: Trainer) -> None:
            if trainer.epoch == 0:
                parameters = trainer.model.layers[3].parameters()
                trainer.optimizer.add_param_group({"params": list(parameters)})

    kept = []
    x, y = regression_batches(1, 8)[0]
    sizes = [3, 1, 2, 2]
    for joins in (True, False):
        model, gradients = Regression(), Gradients()
        first = model.layers[0].parameters() if joins else model.parameters()
        Trainer(
            model=model,
            train_dataloader=list(zip(x.split(sizes), y.split(sizes), strict=True)),
            optimizer=torch.optim.SGD(list(first), lr=0.1),
            callbacks=[gradients, *([Joins()] if joins else [])],
            gradient_accumulation_steps=2,
            num_epochs=2,
            max_grad_norm=0.5,
            device="cpu",
        ).train()
        kept.append((gradients.windows, weights_of(model)))
    for one, other in zip(kept[0][0], kept[1][0], strict=True):
        assert largest_difference(one, other) < 1e-7
    for a, b in zip(kept[0][1], kept[1][1], strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "weight",
    [
        *(-1.0, float("nan"), float("inf"), "3", True, None),
        pytest.param(10**400, id="too large for a float"),
        pytest.param(torch.ones(2), id="several"),
    ],
)
def test_a_weight_that_is_no_amount_is_refused(weight: Any) -> None:
    def step(model: nn.Module, batch: Any) -> dict[str, Any]:
        return {"loss": model(*batch)["loss"], "weight": weight}

    with pytest.raises(ConfigError, match=r"step_fn returned the weight .*; make it"):
        make_trainer(step_fn=step).train()


def test_batch_norm_still_tells_a_split_from_one_batch() -> None:
    """What weights cannot mend: statistics are those of each batch (a known limit)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    x, y = regression_batches(1, 8)[0]
    options = {"loss_fn": nn.functional.mse_loss}
    whole = first_window(model, [(x, y)], **options)
    halves = list(zip(x.split(4), y.split(4), strict=True))
    assert largest_difference(whole, first_window(model, halves, **options)) > 1e-3
