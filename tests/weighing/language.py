"""Tiny models of language, pictures and sound with random weights, and their rows."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import nn
from weighing.zoo import ROWS, Kind, draws, named

VOCABULARY, LENGTH = 40, 12
PICTURE, START = 39, 37  # ids of a picture and of what comes before it
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}

QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LLAMA = {"model_type": "llama", **SMALL}
SEES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
}
QWEN_SEES = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_heads": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 1,
    "out_hidden_size": 16,
}
QWEN_READS = {
    **SMALL,
    "head_dim": 8,
    "bos_token_id": None,
    "eos_token_id": None,
    "rope_parameters": {
        "rope_type": "default",
        "mrope_section": [1, 1, 2],
        "rope_theta": 10000.0,
    },
}
QWEN_IDS = {
    "image_token_id": PICTURE,
    "video_token_id": 38,
    "vision_start_token_id": START,
    "vision_end_token_id": 36,
}
#: Name -> (class, options of its configuration), all without dropout.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("LlamaForCausalLM", SMALL),
    "GPT2": (
        "GPT2LMHeadModel",
        {
            "vocab_size": VOCABULARY,
            "n_positions": 16,
            "n_embd": 16,
            "n_layer": 1,
            "n_head": 2,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
    ),
    "T5": (
        "T5ForConditionalGeneration",
        {
            "vocab_size": VOCABULARY,
            "d_model": 16,
            "d_kv": 8,
            "d_ff": 32,
            "num_layers": 1,
            "num_heads": 2,
            "dropout_rate": 0.0,
            "decoder_start_token_id": 0,
        },
    ),
    "BART": (
        "BartForConditionalGeneration",
        {
            "vocab_size": VOCABULARY,
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "max_position_embeddings": 32,
            "dropout": 0.0,
        },
    ),
    "BERT, tokens": (
        "BertForTokenClassification",
        {**SMALL, **QUIET, "num_labels": 5},
    ),
    "BERT, classes": (
        "BertForSequenceClassification",
        {**SMALL, **QUIET, "num_labels": 3},
    ),
    "ViT": (
        "ViTForImageClassification",
        {**SMALL, **QUIET, "image_size": 16, "patch_size": 8, "num_labels": 3},
    ),
    "Mixtral": (  # a mixture of experts with a loss on its router
        "MixtralForCausalLM",
        {
            **SMALL,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "output_router_logits": True,
            "router_aux_loss_coef": 0.02,
        },
    ),
    "LLaVA": (
        "LlavaForConditionalGeneration",
        {
            "text_config": LLAMA,
            "vision_config": {
                **SEES,
                "model_type": "clip_vision_model",
                "patch_size": 8,
                "projection_dim": 16,
            },
            "image_token_index": PICTURE,
            "image_seq_length": 4,
        },
    ),
    "Idefics3": (
        "Idefics3ForConditionalGeneration",
        {
            "text_config": {**LLAMA, "pad_token_id": 0},
            "vision_config": {**SEES, "patch_size": 4},
            "image_token_id": PICTURE,
            "scale_factor": 2,
        },
    ),
    "Qwen2.5-VL": (
        "Qwen2_5_VLForConditionalGeneration",
        {
            "text_config": QWEN_READS,
            "vision_config": {
                **QWEN_SEES,
                "window_size": 16,
                "fullatt_block_indexes": [0],
            },
            **QWEN_IDS,
        },
    ),
    "Qwen3-VL": (
        "Qwen3VLForConditionalGeneration",
        {
            "text_config": QWEN_READS,
            "vision_config": {
                **QWEN_SEES,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
            },
            **QWEN_IDS,
        },
    ),
    "CLIP": (
        "CLIPModel",
        {
            "text_config": {
                **SEES,
                "vocab_size": VOCABULARY,
                "max_position_embeddings": 16,
                "bos_token_id": 1,
                "eos_token_id": 2,
            },
            "vision_config": {**SEES, "patch_size": 8},
            "projection_dim": 16,
        },
    ),
    "Wav2Vec2, CTC": (
        "Wav2Vec2ForCTC",
        {
            "vocab_size": 8,
            **{name: SEES[name] for name in SEES if name != "image_size"},
            "conv_dim": [8],
            "conv_stride": [4],
            "conv_kernel": [4],
            "num_feat_extract_layers": 1,
            "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "feat_proj_dropout": 0.0,
            "activation_dropout": 0.0,
            "final_dropout": 0.0,
            "layerdrop": 0.0,
            "apply_spec_augment": False,
            "ctc_loss_reduction": "mean",
            "pad_token_id": 0,
        },
    ),
}


def made(name: str, **changed: Any) -> nn.Module:
    """Return the model ``name``, always with the same weights; options may differ."""
    import transformers

    class_name, options = MODELS[name]
    cls = getattr(transformers, class_name)
    torch.manual_seed(0)
    return cls(cls.config_class(**copy.deepcopy({**options, **changed})))  # type: ignore[no-any-return]


def zero_head() -> nn.Module:
    """Return a ViT whose head starts at zero."""
    model: Any = made("ViT")
    nn.init.zeros_(model.classifier.weight)
    return model  # type: ignore[no-any-return]


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


def with_pictures(*shape: int, start: bool = False) -> list[Any]:
    """Return prompted rows, each after a picture of four tokens and ``shape``.

    Args:
        start: a token says that a picture begins.
    """
    g, rows = draws(7), []
    before = torch.tensor([START] * start + [PICTURE] * 4)
    for text in texts(prompt=True):
        ids = torch.cat([before, text["input_ids"].clamp(max=35)])
        ignored, ones = torch.full_like(before, -100), torch.ones_like(before)
        row = {
            "input_ids": ids,
            "labels": torch.cat([ignored, text["labels"].clamp(max=35)]),
            "attention_mask": torch.cat([ones, text["attention_mask"]]),
            "pixel_values": torch.randn(*shape, generator=g),
        }
        rows.append({**row, "mm_token_type_ids": (ids == PICTURE).int()} if start
                    else row)  # fmt: skip
    return rows


def by_patches(rows: list[Any]) -> Any:
    """Return a batch whose pictures lie one after another, as Qwen's do."""
    patches = [row["pixel_values"] for row in rows]
    others = [{n: v for n, v in row.items() if n != "pixel_values"} for row in rows]
    return {
        **named(others),
        "pixel_values": torch.cat(patches),
        "image_grid_thw": torch.tensor([[1, 4, 4]] * len(rows)),
    }


def pairs() -> list[Any]:
    """Return rows of a text, which ends, and a picture."""
    end = torch.tensor([2])
    return [
        {
            "input_ids": torch.cat([text["input_ids"][:-1], end]),
            "pixel_values": picture["pixel_values"],
        }
        for text, picture in zip(texts(), pictures(), strict=True)
    ]


def contrasted(rows: list[Any]) -> Any:
    """Return a batch of pairs that asks for the loss."""
    return {**named(rows), "return_loss": True}


def spoken() -> list[Any]:
    """Return rows of sound (200,) with 2 to 5 labels."""
    g, rows = draws(4), []
    for number in range(ROWS):
        labels = torch.randint(1, 8, (5,), generator=g)
        labels[2 + number % 4 :] = -100
        rows.append({"input_values": torch.randn(200, generator=g), "labels": labels})
    return rows


def kinds() -> dict[str, tuple[Kind, str | None]]:
    """Return name -> (kind, its unit; None: no unit explains it)."""
    shifted, labels, samples = "shifted_labels", "labels", "samples"
    prompted = texts(prompt=True)
    patches = with_pictures(16, 48, start=True)
    rows = {
        "Llama": (prompted, shifted),
        "GPT2": (texts(whole=True), shifted),
        "Mixtral": (prompted, shifted),
        "T5": (texts(), labels),
        "BART": (texts(), labels),
        "BERT, tokens": (tagged(), labels),
        "BERT, classes": (classed(), samples),
        "ViT": (pictures(), samples),
        "LLaVA": (with_pictures(3, 16, 16), shifted),
        "Idefics3": (with_pictures(1, 3, 16, 16), shifted),
        "Qwen2.5-VL": (patches, shifted),
        "Qwen3-VL": (patches, shifted),
        "CLIP": (pairs(), None),
        "Wav2Vec2, CTC": (spoken(), samples),
    }
    collates = {
        "CLIP": contrasted,
        "Qwen2.5-VL": by_patches,
        "Qwen3-VL": by_patches,
    }
    rest = {"Mixtral": 7e-3}
    found: dict[str, tuple[Kind, str | None]] = {
        name: (
            Kind(
                partial(made, name),
                own,
                collates.get(name, named),
                rest=rest.get(name, 0.0),
            ),
            unit,
        )
        for name, (own, unit) in rows.items()
    }
    found["Llama, padded"] = Kind(partial(made, "Llama"), texts(), named), shifted
    found["GPT2, padded"] = Kind(partial(made, "GPT2"), texts(), named), shifted
    found["ViT with a head of zeros"] = Kind(zero_head, pictures(), named), samples
    return found


def halved(model: nn.Module, dtype: torch.dtype = torch.bfloat16) -> Any:
    """Return ``model`` with weights of ``dtype``."""
    return model.to(dtype)
