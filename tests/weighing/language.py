"""Tiny language and picture models with random weights, and rows for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from weighing.zoo import ROWS, Kind, draws, named

VOCABULARY, LENGTH = 40, 12
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def texts(prompt: bool = False, whole: bool = False, masks: bool = True) -> list[Any]:
    """Return rows of (12,) ids, padded, with labels.

    Args:
        prompt: the first half of a row's ids is no target.
        whole: all are 12 long, and every id is a target.
        masks: add the attention mask.
    """
    g, rows = draws(5), []
    for number in range(ROWS):
        length = LENGTH if whole else 4 + (number * 5) % 9
        ids = torch.randint(3, VOCABULARY, (LENGTH,), generator=g)
        labels = ids.clone()
        ids[length:] = 0
        labels[length:] = -100
        if prompt:
            labels[: length // 2] = -100
        mask = (torch.arange(LENGTH) < length).long()
        row = {"input_ids": ids, "labels": labels}
        rows.append({**row, "attention_mask": mask} if masks else row)
    return rows


def tagged() -> list[Any]:
    """Return rows of ids with a class of five for most of them."""
    rows = texts()
    for row in rows:
        row["labels"] = torch.where(row["labels"] >= 0, row["labels"] % 5, -100)
    return rows


def classed() -> list[Any]:
    """Return rows of ids with one class each."""
    rows = texts()
    for number, row in enumerate(rows):
        row["labels"] = torch.tensor(number % 3)
    return rows


def pictures() -> list[Any]:
    """Return rows of pictures (3, 16, 16) with one class each."""
    g = draws(6)
    return [
        {
            "pixel_values": torch.randn(3, 16, 16, generator=g),
            "labels": torch.tensor(number % 3),
        }
        for number in range(ROWS)
    ]


def made(name: str, **options: Any) -> nn.Module:
    """Return the model of a configuration, always with the same weights."""
    import transformers

    torch.manual_seed(0)
    cls = getattr(transformers, name)
    return cls(cls.config_class(**options))  # type: ignore[no-any-return]


def gpt2() -> nn.Module:
    """Return a GPT2 without dropout."""
    return made(
        "GPT2LMHeadModel",
        vocab_size=VOCABULARY,
        n_positions=16,
        n_embd=16,
        n_layer=1,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )


def t5() -> nn.Module:
    """Return a T5 without dropout."""
    return made(
        "T5ForConditionalGeneration",
        vocab_size=VOCABULARY,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )


def bart() -> nn.Module:
    """Return a BART without dropout."""
    return made(
        "BartForConditionalGeneration",
        vocab_size=VOCABULARY,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=32,
        dropout=0.0,
    )


def bert(name: str, **options: Any) -> nn.Module:
    """Return a BERT with the head ``name``, without dropout."""
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return made(f"BertFor{name}", **{**SMALL, **quiet, **options})


def vit(is_zero: bool = False) -> nn.Module:
    """Return a ViT; ``is_zero``: its head starts at zero."""
    model: Any = made(
        "ViTForImageClassification",
        **SMALL,
        image_size=16,
        patch_size=8,
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    if is_zero:
        nn.init.zeros_(model.classifier.weight)
    return model  # type: ignore[no-any-return]


def mixtral() -> nn.Module:
    """Return a mixture of experts with a loss on its router."""
    return made(
        "MixtralForCausalLM",
        **SMALL,
        num_local_experts=4,
        num_experts_per_tok=2,
        output_router_logits=True,
        router_aux_loss_coef=0.02,
    )


def kinds() -> dict[str, tuple[Kind, str]]:
    """Return name -> (kind, its unit)."""
    prompted, whole = texts(prompt=True), texts(whole=True)

    def llama() -> nn.Module:
        return made("LlamaForCausalLM", **SMALL)

    shifted, labels, samples = "shifted_labels", "labels", "samples"
    return {
        "Llama, prompt masked": (Kind(llama, prompted, named), shifted),
        "Llama, padded": (Kind(llama, texts(), named), shifted),
        "GPT2, whole texts": (Kind(gpt2, whole, named), shifted),
        "GPT2, padded": (Kind(gpt2, texts(), named), shifted),
        "Mixtral": (Kind(mixtral, prompted, named, rest=7e-3), shifted),
        "T5": (Kind(t5, texts(), named), labels),
        "BART": (Kind(bart, texts(), named), labels),
        "BERT, tokens": (
            Kind(lambda: bert("TokenClassification", num_labels=5), tagged(), named),
            labels,
        ),
        "BERT, classes": (
            Kind(
                lambda: bert("SequenceClassification", num_labels=3), classed(), named
            ),
            samples,
        ),
        "ViT": (Kind(vit, pictures(), named), samples),
        "ViT with a head of zeros": (
            Kind(lambda: vit(is_zero=True), pictures(), named),
            samples,
        ),
    }


def halved(model: nn.Module, dtype: torch.dtype = torch.bfloat16) -> Any:
    """Return ``model`` with weights of ``dtype``."""
    return model.to(dtype)


def loss_of(outputs: Any) -> Tensor:
    """Return a model's own loss."""
    return outputs.loss  # type: ignore[no-any-return]
