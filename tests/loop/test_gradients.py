"""Complex and sparse gradients are checked, scaled and clipped as others are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training import Callback, ConfigError, NonFiniteError, Trainer
from training.loop.gradients import GradientCheck

NAN, INF = float("nan"), float("inf")

# torch says so once a process, when the first sparse gradient is made.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks")


def sparse(values: list[float], rows: list[int], dtype: Any = torch.float32) -> Tensor:
    """Return an uncoalesced gradient of shape (4, 2)."""
    numbers = torch.tensor(values, dtype=dtype)[:, None].expand(-1, 2).clone()
    indices = torch.tensor([rows])
    return torch.sparse_coo_tensor(indices, numbers, (4, 2), check_invariants=True)


GRADIENTS = {
    "dense": [torch.tensor([3.0, 4.0])],
    "complex": [torch.tensor([3.0 + 4.0j, 1.0j])],
    "a conjugate": [torch.tensor([3.0 + 4.0j, 1.0j]).conj()],
    "sparse": [sparse([1.0, 2.0], [0, 3])],
    "sparse, a row twice": [sparse([1.0, 2.0, 3.0], [0, 0, 3])],
    "sparse and complex": [sparse([1.0, 2.0], [0, 0], torch.complex64)],
    "dense before sparse": [torch.tensor([3.0, 4.0]), sparse([1.0, 2.0], [1, 1])],
    "sparse before dense": [sparse([1.0, 2.0], [1, 1]), torch.tensor([3.0, 4.0])],
    "all together": [
        torch.tensor([3.0]),
        sparse([1.0, 2.0], [1, 1]),
        torch.tensor([1.0j]),
    ],
}


def parameters_with(gradients: list[Tensor]) -> list[nn.Parameter]:
    parameters = []
    for gradient in gradients:
        parameters.append(
            nn.Parameter(torch.zeros(gradient.shape, dtype=gradient.dtype))
        )
        parameters[-1].grad = gradient.clone()
    return parameters


def dense(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.to_dense().resolve_conj()


@pytest.mark.parametrize("gradients", GRADIENTS.values(), ids=GRADIENTS.keys())
def test_every_kind_is_scaled(gradients: list[Tensor]) -> None:
    parameters = parameters_with(gradients)
    assert GradientCheck(parameters).finite(0.5)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert torch.equal(dense(parameter), gradient.to_dense() * 0.5)


DOUBLES = {
    "dense": [torch.tensor([3.0, 4.0], dtype=torch.float64)],
    "complex": [torch.tensor([3.0 + 4.0j], dtype=torch.complex128).conj()],
    "sparse": [sparse([1.0, 2.0, 3.0], [0, 0, 3], torch.float64)],
    "beside others": [torch.ones(2, dtype=torch.float64), torch.ones(2)],
}


@pytest.mark.parametrize("gradients", DOUBLES.values(), ids=DOUBLES.keys())
def test_doubles_are_scaled_as_doubles(gradients: list[Tensor]) -> None:
    parameters = parameters_with(gradients)
    assert GradientCheck(parameters).finite(1 / 3)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        expected = gradient.to_dense() * (1 / 3)
        rtol = 1e-15 if gradient.dtype != torch.float32 else 1e-6
        torch.testing.assert_close(dense(parameter), expected, rtol=rtol, atol=0.0)


@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("gradients", GRADIENTS.values(), ids=GRADIENTS.keys())
def test_a_bad_value_in_any_kind_is_found(gradients: list[Tensor], bad: float) -> None:
    for index in range(len(gradients)):
        parameters = parameters_with(gradients)
        grad: Any = parameters[index].grad
        values = grad._values() if grad.is_sparse else grad.resolve_conj()
        values.view(-1)[-1] = complex(0.0, bad) if grad.is_complex() else bad
        if not grad.is_sparse:
            parameters[index].grad = values
        check = GradientCheck(parameters)
        assert not check.finite()
        parameters[index].grad = None
        assert check.finite()


def test_finite_values_whose_sum_is_infinite_are_found() -> None:
    (parameter,) = parameters_with([sparse([3e38, 3e38], [0, 0])])
    assert not GradientCheck([parameter]).finite()


def test_a_layer_may_change_the_layout_of_its_gradients_as_it_goes() -> None:
    check = GradientCheck([parameter := nn.Parameter(torch.zeros(4, 2))])
    for gradient in (torch.ones(4, 2), sparse([1.0], [0]), torch.ones(4, 2)):
        parameter.grad = gradient.clone()
        assert check.finite(2.0)
        assert torch.equal(dense(parameter), gradient.to_dense() * 2)


@pytest.mark.parametrize("max_norm", [0.5, 1e6, INF])
@pytest.mark.parametrize("gradients", GRADIENTS.values(), ids=GRADIENTS.keys())
def test_every_kind_is_clipped_as_dense_ones_are(
    gradients: list[Tensor], max_norm: float
) -> None:
    parameters = parameters_with(gradients)
    others = parameters_with([each.to_dense() for each in gradients])
    norm = GradientCheck(parameters).clip(max_norm)
    assert norm == pytest.approx(nn.utils.clip_grad_norm_(others, max_norm).item())
    for parameter, other in zip(parameters, others, strict=True):
        assert torch.allclose(dense(parameter), dense(other))


def test_what_else_torch_cannot_clip_stays_its_error() -> None:
    parameter = nn.Parameter(torch.zeros(2, device="meta"))
    parameter.grad = torch.zeros(2, device="meta")
    parameter.grad.__class__ = Refusing
    with pytest.raises(NotImplementedError, match="no norm"):
        GradientCheck([parameter]).clip(1.0)


class Refusing(Tensor):
    """A tensor that has no norm."""

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if "norm" in getattr(function, "__name__", ""):
            raise NotImplementedError("no norm")
        return super().__torch_function__(function, types, args, kwargs or {})


# Whole runs ----------------------------------------------------


class Spectral(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 2, dtype=torch.cfloat))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        outputs = (x.to(torch.cfloat) @ self.weight).abs()
        return nn.functional.cross_entropy(outputs, y)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(6, 4, sparse=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.head(self.table(x)), y)


def batches(kind: type[nn.Module], sizes: tuple[int, ...]) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    rows = [
        torch.randn(n, 4, generator=generator)
        if kind is Spectral
        else torch.randint(6, (n,), generator=generator)
        for n in sizes
    ]
    return [(row, torch.arange(len(row)) % 2) for row in rows]


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


class Listens(Callback):
    def on_before_step(self) -> None:
        pass


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("max_norm", [None, 0.1])
@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.parametrize("kind", [Spectral, Words])
def test_windows_of_other_kinds_have_the_gradients_of_one_batch(
    kind: type[nn.Module], max_norm: float | None, listens: bool, precision: str
) -> None:
    """Ragged windows, clipped or not: the weights of a bare loop over large batches."""
    if kind is Spectral and precision == "fp16":
        pytest.skip("refused, as the next test shows")
    data = batches(kind, (3, 1, 2, 2))
    bare, model = kind(), kind()
    optimizer = optimizer_of(bare)
    for first, second in (data[:2], data[2:]):
        optimizer.zero_grad()
        x, y = (torch.cat(each) for each in zip(first, second, strict=True))
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32"):
            loss = bare(x, y)
        loss.backward()  # type: ignore[no-untyped-call]
        if max_norm:
            for parameter in bare.parameters():
                parameter.grad = parameter.grad.to_dense()  # type: ignore[union-attr]
            nn.utils.clip_grad_norm_(bare.parameters(), max_norm)
        optimizer.step()
    Trainer(
        model,
        data,
        optimizer=optimizer_of(model),
        gradient_accumulation_steps=2,
        max_grad_norm=max_norm,
        callbacks=[Listens()] if listens else [],
        precision=precision,
        device="cpu",
    ).train()
    atol = 1e-6 if precision == "fp32" else 2e-3
    for own, other in zip(model.parameters(), bare.parameters(), strict=True):
        assert torch.allclose(own, other, atol=atol)


def test_complex_parameters_under_fp16_are_refused_when_they_are_passed() -> None:
    model = Spectral()
    with pytest.raises(ConfigError, match=r"group 0 .* complex parameters"):
        Trainer(
            model,
            batches(Spectral, (2,)),
            optimizer=optimizer_of(model),
            precision="fp16",
            device="cpu",
        )


@pytest.mark.parametrize("kind", [Spectral, Words])
def test_a_bad_gradient_of_another_kind_ends_the_run_before_the_weights(
    kind: type[nn.Module],
) -> None:
    model = kind()
    parameter = next(model.parameters())
    before = parameter.detach().clone()
    parameter.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NonFiniteError, match="left the weights alone"):
        Trainer(
            model,
            batches(kind, (2,)),
            optimizer=optimizer_of(model),
            device="cpu",
        ).train()
    assert torch.equal(parameter, before)


def test_float16_parameters_under_fp16_are_refused_when_they_are_passed() -> None:
    model = nn.Linear(4, 1).half()
    frozen = nn.Parameter(torch.zeros(2, dtype=torch.float16), requires_grad=False)
    model.register_parameter("frozen", frozen)

    def trainer() -> Trainer:
        return Trainer(
            *(model, [torch.ones(2, 4)]),
            loss_fn=nn.functional.mse_loss,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            precision="fp16",
            device="cpu",
        )

    with pytest.raises(ConfigError, match=r"group 0 .* float16 .* model\.float\(\)"):
        trainer()
    model.float()
    frozen.data = frozen.half()  # the scaler never meets its gradient
    trainer()


@pytest.fixture(params=[torch.float64, torch.bfloat16, torch.float16], ids=str)
def default_type(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """Make tensors of another type than float32 where none is named, for a test."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.parametrize("reads_wait", [False, True], ids=["read", "noted"])
@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}], ids=str)
@pytest.mark.parametrize(
    "of_weights", [None, torch.float32], ids=["its own", "float32"]
)
def test_a_run_trains_whatever_the_default_type_of_torch_is(
    reads_wait: bool,
    options: dict[str, Any],
    of_weights: torch.dtype | None,
    default_type: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.hardware.readback.reads_wait", lambda at: reads_wait)
    kind = of_weights or default_type
    model = nn.Linear(4, 1, dtype=kind)
    before = model.weight.detach().clone()
    trainer = Trainer(
        model,
        [(torch.ones(2, 4, dtype=kind), torch.ones(2, 1, dtype=kind))] * 4,
        loss_fn=nn.functional.mse_loss,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, fused=True),
        loss_per="samples",
        device="cpu",
        **options,
    )
    trainer.train()
    assert trainer.update == trainer.step > 0
    assert model.weight.dtype is kind
    assert not torch.equal(model.weight, before)
