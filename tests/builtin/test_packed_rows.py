"""Texts that share a row are trained as if each were alone, or a warning says no."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

from training import Trainer

#: Two texts, of five and of seven tokens.
POSITIONS = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]])
SAID = "position_ids begin anew inside a row (row 0, at 5)"


def llama(use_cache: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=20, use_cache=use_cache, **sizes, **heads)
    return LlamaForCausalLM(config).double()


def packed(**more: Any) -> dict[str, Any]:
    tokens = torch.randint(0, 20, (1, 12), generator=torch.Generator().manual_seed(1))
    labels = tokens.where(POSITIONS > 0, -100)  # none is told by the text before it
    return {"input_ids": tokens, "labels": labels, "position_ids": POSITIONS, **more}


def trained(model: nn.Module, batch: Any, **options: Any) -> nn.Module:
    rates = torch.optim.SGD(model.parameters(), lr=0.5)
    Trainer(model, [batch], optimizer=rates, device="cpu", **options).train()
    return model


def trained_apart() -> list[Tensor]:
    """Return weights after one step by hand on the texts, each a row of its own."""
    model, batch = llama(), packed()
    total: Any = torch.zeros((), dtype=torch.float64)
    for start, end in ((0, 5), (5, 12)):
        text = {name: batch[name][:, start:end] for name in ("input_ids", "labels")}
        total = total + model(**text, use_cache=False).loss * (end - start - 1)
    (total / 10).backward()
    torch.optim.SGD(model.parameters(), lr=0.5).step()
    return list(model.parameters())


def distance(model: nn.Module) -> float:
    pairs = zip(model.parameters(), trained_apart(), strict=True)
    return max(float((one - other).detach().abs().max()) for one, other in pairs)


class Toy(nn.Module):
    """Has the configuration of a model whose attention no CPU computes."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        self.config = LlamaConfig(attn_implementation=attention)
        self.table = nn.Embedding(20, 1)

    def can_generate(self) -> bool:
        return True

    def forward(self, input_ids: Tensor, labels: Any, position_ids: Any) -> Tensor:
        outputs: Tensor = self.table(input_ids)
        return outputs.mean()


@pytest.mark.parametrize(
    ("model", "more"),
    [(lambda: llama(use_cache=False), {}), (llama, {"use_cache": False})],
    ids=["by the model's config", "by an entry of the batch"],
)
def test_without_a_cache_texts_of_a_row_train_as_each_alone_and_nothing_is_said(
    model: Callable[[], LlamaForCausalLM],
    more: Mapping[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert distance(trained(model(), packed(**more))) < 1e-6
    assert "position_ids" not in caplog.text


def test_a_cache_that_lets_texts_of_a_row_see_each_other_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert distance(trained(llama(), packed())) > 1e-4
    assert caplog.text.count(SAID) == 1
    assert "; set model.config.use_cache = False\n" in caplog.text


def test_of_a_model_of_several_parts_the_switch_of_its_text_part_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Toy("sdpa")
    model.config.text_config = LlamaConfig()
    trained(model, packed())
    assert "; set model.config.text_config.use_cache = False\n" in caplog.text


def test_a_mask_that_lets_texts_of_a_row_see_each_other_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mask = {"attention_mask": torch.ones(1, 12, dtype=torch.int64)}
    assert distance(trained(llama(use_cache=False), packed(**mask))) > 1e-4
    assert caplog.text.count(SAID) == 1
    assert "; leave attention_mask out of the batch\n" in caplog.text


@pytest.mark.parametrize(
    "positions",
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0],
        [1, 1, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8],
    ],
    ids=["of one text", "padded behind it", "padded before it"],
)
def test_positions_of_one_text_are_not_told_of(
    positions: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    is_text = [0, 0, 0] + [1] * 9 if positions[0] else [1] * 12
    mask = {"attention_mask": torch.tensor([is_text])}
    batch = packed(**mask) | {"position_ids": torch.tensor([positions])}
    trained(llama(), batch)
    assert "position_ids" not in caplog.text


@pytest.mark.parametrize(
    ("attention", "times"), [("sdpa", 1), ("flash_attention_2", 0)]
)
def test_an_attention_that_goes_by_positions_alone_is_not_told_of(
    attention: str, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    trained(Toy(attention), packed())
    assert caplog.text.count(SAID) == times


def test_an_encoder_may_give_each_of_a_pair_its_own_positions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = BertConfig(vocab_size=20, num_attention_heads=2, **sizes)
    assert config.use_cache
    trained(BertForMaskedLM(config), packed())
    assert "position_ids" not in caplog.text


def test_a_step_fn_calls_the_model_as_it_likes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def step(model: Any, batch: Any) -> Any:
        return model(**batch, use_cache=False).loss

    assert distance(trained(llama(), packed(), step_fn=step)) < 1e-6
    assert "position_ids" not in caplog.text
