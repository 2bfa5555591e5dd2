"""What a batch says of itself, and how it reaches the device."""

from __future__ import annotations

import itertools
import math
from collections import UserDict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from toy import make_trainer

from training.errors import DataError
from training.feed.batches import _is_plain, batch_to_device, device_batches
from training.feed.epoch_loader import EpochLoader
from training.feed.structure import deep_copy, fields_of, sample_sizes, shallow_copy
from training.testing.meta_device import meta_device_as_cuda
from training.weighing.weigher import said_weight

THREE = torch.zeros(3, 2)


def test_a_batch_may_say_what_its_loss_is_a_mean_over() -> None:
    assert said_weight(SimpleNamespace(loss_weight=7)) == 7.0
    assert said_weight(SimpleNamespace(loss_weight=0)) == 0.0
    assert said_weight({"x": THREE}) is None


@pytest.mark.parametrize("weight", [-3, math.nan, math.inf, "many"])
def test_a_weight_that_is_none_is_refused_with_its_value(weight: Any) -> None:
    with pytest.raises(DataError, match=f"loss_weight .?{weight}.*; make it the"):
        said_weight(SimpleNamespace(loss_weight=weight))


class Asks(nn.Module):
    """Has texts beside its numbers, as a default-collated data set of rows has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, question: list[str], x: Tensor, y: Tensor) -> Tensor:
        assert len(question) == len(x)
        return (self.layer(x) - y).square().mean()


@pytest.mark.parametrize("sizes", [[8], [3, 5], [1, 7]], ids=str)
def test_a_text_field_first_leaves_the_gradient_that_of_one_batch(
    sizes: list[int],
) -> None:
    x, y = torch.arange(8.0)[:, None] / 8, torch.arange(8.0)[:, None].square() / 64
    batches = [
        {"question": ["?"] * len(part), "x": part, "y": target}
        for part, target in zip(x.split(sizes), y.split(sizes), strict=True)
    ]
    model = Asks()
    trainer = make_trainer(model, batches, gradient_accumulation_steps=len(sizes))
    trainer.optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    trainer.train()
    assert model.layer.bias.item() == pytest.approx(2 * y.mean().item(), abs=1e-6)


class OrFails(dict[str, Any]):
    """Answers attributes by its entries; one that is not there is a KeyError."""

    __getattr__ = dict.__getitem__


class OrNone(dict[str, Any]):
    """As that; what is not there is None."""

    __getattr__ = dict.get


def scaled_step(model: nn.Module, batch: Any) -> Any:
    losses = (model(batch["x"])[:, 0] - batch["y"]).square()
    return type(batch)(loss_sum=losses.sum(), weight=len(losses))


def mean_step(model: nn.Module, batch: Any) -> Any:
    return scaled_step(model, batch)["loss_sum"] / len(batch["y"])


@pytest.mark.parametrize("kind", [OrFails, OrNone])
@pytest.mark.parametrize("step_fn", [scaled_step, mean_step])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_mapping_that_answers_attributes_by_its_entries_trains_as_a_dict(
    kind: Any, step_fn: Any, accumulation: int
) -> None:
    def trained(kind: Any) -> Tensor:
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        x, y = torch.randn(8, 2), torch.randn(8)
        sizes = zip(x.split(4), y.split(4), strict=True)
        batches = [kind(x=part, y=targets) for part, targets in sizes]
        options = {"loss_fn": None, "step_fn": step_fn, "device": "cpu"}
        options |= {"gradient_accumulation_steps": accumulation}
        make_trainer(model, batches, val_dataloader=batches, **options).train()
        return model.weight.detach()

    assert torch.equal(trained(kind), trained(dict))


class Holder(NamedTuple):
    x: Any
    y: Tensor


AROUND: dict[str, Any] = {
    "tuple": lambda inner, y: (inner, y),
    "list": lambda inner, y: [inner, y],
    "named tuple": Holder,
    "dict": lambda inner, y: {"x": inner, "y": y},
    "object": lambda inner, y: SimpleNamespace(x=inner, y=y),
}


@pytest.mark.parametrize("around", AROUND)
def test_a_mapping_that_fails_for_attributes_is_copied_wherever_it_is(
    around: str,
) -> None:
    def inner_of(batch: Any) -> Any:
        first = next(iter((fields_of(batch) or {"x": batch[0]}).values()))
        assert type(first) is OrFails
        return first["inner"]

    inner = torch.arange(8.0).reshape(4, 2)
    batch = AROUND[around](OrFails(inner=inner), torch.zeros(4))
    copied = deep_copy(batch)
    assert type(copied) is type(batch)
    inner_of(copied).add_(1.0)
    assert inner_of(batch).sum() == 28.0
    options = {"loss_fn": None, "gradient_accumulation_steps": 2, "device": "cpu"}
    options["step_fn"] = lambda model, batch: model(inner_of(batch)).square().mean()
    make_trainer(nn.Linear(2, 1), [batch] * 4, **options).train()


class OfItsKind(OrFails):
    """Says a weight that it has for some kinds alone."""

    @property
    def loss_weight(self) -> float:
        return {"known": 2.0}[self["kind"]]


class CopiesItself:
    def __deepcopy__(self, memo: Any) -> Any:
        raise KeyError("its own")


def test_a_key_error_of_an_attribute_that_a_class_has_is_raised() -> None:
    assert said_weight(OfItsKind(kind="known")) == 2.0
    with pytest.raises(KeyError, match="another"):
        said_weight(OfItsKind(kind="another"))
    with pytest.raises(KeyError, match="its own"):
        deep_copy((OrFails(x=THREE), CopiesItself()))


class AnswersAll:
    """Whatever is asked of it, it is that itself."""

    def __iter__(self) -> Iterator[Any]:
        return iter([THREE])

    def __getattr__(self, name: str) -> Any:
        return self


def test_the_sampler_is_asked_where_batches_are_passed_on_and_no_farther() -> None:
    loader = DataLoader(TensorDataset(THREE), batch_size=2)
    passed_on = SimpleNamespace(loader=loader)
    for each in (loader, passed_on):
        assert list(itertools.islice(sample_sizes(each), 2)) == [2, 1]
    regrouped = SimpleNamespace(loader=SimpleNamespace(loader=loader))
    for other in (regrouped, AnswersAll(), [THREE]):
        assert next(sample_sizes(other)) is None


@pytest.mark.parametrize("kind", [OrFails, OrNone])
def test_an_entry_of_a_mapping_is_no_method_that_moves_it(kind: Any) -> None:
    for batch in (kind(x=THREE), kind(x=THREE, to=THREE)):
        moved = batch_to_device(batch, torch.device("meta"))
        assert {each.device.type for each in moved.values()} == {"meta"}


class Moves:
    """Holds a tensor that only itself can move."""

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def to(self, device: Any) -> Moves:
        return Moves(self.inner.to(device))


class TakesTheWord(Moves):
    def to(self, device: Any, *, non_blocking: bool = False) -> Any:
        return non_blocking


class TakesAnything(UserDict[str, Any]):
    def to(self, *arguments: Any, **words: Any) -> Any:
        return words.get("non_blocking", False)


class PassesOn(Moves):
    def to(self, *arguments: Any, **words: Any) -> Any:
        return bool(words)


class DoesNotTakeIt(Moves):
    def to(self, device: Any) -> Any:
        return False


@pytest.mark.parametrize(
    ("batch", "is_asked"),
    [
        pytest.param(TakesTheWord(THREE), True, id="named, as of a BatchEncoding"),
        pytest.param(TakesAnything(), True, id="any, as of a BatchFeature"),
        pytest.param({"x": [TakesTheWord(THREE)]}, True, id="inside containers"),
        pytest.param(PassesOn(THREE), False, id="any, but it is no mapping"),
        pytest.param(DoesNotTakeIt(THREE), False, id="does not know it"),
    ],
)
def test_what_moves_itself_is_asked_not_to_wait_if_it_knows_how(
    batch: Any, is_asked: bool
) -> None:
    moved = batch_to_device(batch, torch.device("meta"))
    assert (moved["x"][0] if isinstance(moved, dict) else moved) is is_asked


@pytest.mark.parametrize("kind", ["BatchEncoding", "BatchFeature"])
def test_what_a_processor_returns_is_copied_without_a_wait(kind: str) -> None:
    batch = getattr(transformers, kind)({"x": THREE}, tensor_type="pt")
    waits: list[str] = []
    with meta_device_as_cuda(waits.append):
        assert batch_to_device(batch, torch.device("meta"))["x"].is_meta
    assert waits == []


@pytest.mark.parametrize(
    ("batch", "is_plain"),
    [
        pytest.param({"x": [THREE, ("a", 1)]}, True, id="tensors in containers"),
        pytest.param({"x": [THREE, Moves(THREE)]}, False, id="one that moves itself"),
    ],
)
def test_only_what_can_be_kept_until_it_was_read_is_copied_ahead(
    batch: Any, is_plain: bool
) -> None:
    assert _is_plain(batch) is is_plain


def test_on_a_cpu_a_batch_is_passed_on_as_it_is() -> None:
    batches, source = [{"x": THREE}, {"x": THREE[:1]}], object()
    seen = list(device_batches(iter(batches), torch.device("cpu"), source))
    assert all(a is b is c for a, (b, c, _) in zip(batches, seen, strict=True))
    assert all(origin is source for *_, origin in seen)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("wrap", [lambda x: {"x": x}, Moves], ids=["plain", "moves"])
def test_on_a_gpu_every_batch_arrives_whole_and_in_order(wrap: Any) -> None:
    device = torch.device("cuda")
    host = [torch.full((1 << 20,), float(i)).pin_memory() for i in range(20)]
    sums = []
    source = EpochLoader(host, seed=0)
    batches = (wrap(x) for x in host)
    for batch, *_ in device_batches(batches, device, source):
        x = batch["x"] if isinstance(batch, dict) else batch.inner
        for _ in range(20):  # reads it long after the next copy has begun
            x = x * 1.0
        sums.append(x.sum())
    assert [float(s) / (1 << 20) for s in sums] == list(range(20))


class Entries(dict[str, Any]):
    """Has its entries as attributes, too, as batches of some libraries do."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.__dict__ = self


def test_a_copy_of_a_batch_whose_attributes_are_its_entries_is_such_a_batch() -> None:
    batch = Entries({"x": 1, "labels": 2})
    copied: Any = shallow_copy(batch)
    copied.x = copied.pop("labels")
    assert (copied, copied.x, batch) == ({"x": 2}, 2, {"x": 1, "labels": 2})
