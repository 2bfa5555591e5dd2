"""The work of ``gpu.py``: BLIP with random weights, made-up batches, a clock."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LEARNING_RATE = 1e-5
VOCABULARY = 30524
QUESTION_TOKENS, ANSWER_TOKENS = 16, 8


def on_cuda() -> bool:
    """Whether there is a CUDA device."""
    return torch.cuda.is_available()


def device() -> torch.device:
    """Return the first CUDA device, or the CPU for a rehearsal."""
    return torch.device("cuda" if on_cuda() else "cpu")


def wait() -> None:
    """Wait for all work of the device."""
    if on_cuda():
        torch.cuda.synchronize()


def build_model(size: str) -> nn.Module:
    """Return a BLIP of ``size`` ("base", "tiny" or "toy") with seeded random weights.

    "base" has the shape of Salesforce/blip-vqa-base: both stacks of width 768 with 12
    layers, pictures of 384 pixels. "tiny" is the demonstration's.
    """
    from transformers import BlipConfig

    from trainbus_models.blip.model import BlipVQA

    width, layers, heads, pixels = {
        "base": (768, 12, 12, 384),
        "tiny": (64, 1, 4, 64),
        "toy": (16, 1, 2, 32),
    }[size]
    shared = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "projection_dim": width,
        "initializer_range": 0.02,
    }
    # No dropout: everybody must end in the same weights.
    text = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    vocabulary = VOCABULARY if size == "base" else 512
    ids = {"vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 3}
    ids |= {"sep_token_id": 2, "eos_token_id": 2}
    config = BlipConfig(
        text_config={**shared, **text, **ids, "encoder_hidden_size": width},
        vision_config={**shared, "image_size": pixels, "patch_size": 16},
    )
    torch.manual_seed(0)
    return BlipVQA(config)


def make_batches(model: nn.Module, batch_size: int, count: int) -> list[Any]:
    """Return ``count`` host batches for ``model``, pinned where there is CUDA."""
    config: Any = model.config
    pixels, words = config.vision_config.image_size, config.text_config.vocab_size
    generator = torch.Generator().manual_seed(1)
    batches = []
    for _ in range(count):
        question = torch.randint(
            4, words, (batch_size, QUESTION_TOKENS), generator=generator
        )
        answer = torch.randint(
            4, words, (batch_size, ANSWER_TOKENS), generator=generator
        )
        batch = {
            "pixel_values": torch.randn(
                batch_size, 3, pixels, pixels, generator=generator
            ),
            "input_ids": question,
            "attention_mask": torch.ones_like(question),
            "decoder_input_ids": answer,
            "decoder_attention_mask": torch.ones_like(answer),
            "labels": answer.clone(),
        }
        batches.append(
            {k: v.pin_memory() if on_cuda() else v for k, v in batch.items()}
        )
    return batches


class Clocked:
    """Batches again and again; times the steps between two requests for a batch.

    A trainer that takes one batch ahead shifts both moments alike. Two batches follow,
    so that the second moment comes for everybody.

    Args:
        batches: host batches.
        num_warm: steps that are not counted.
        num_steps: steps that are.
        profiler: started and stopped at these moments, with no wait between them.
    """

    def __init__(
        self, batches: list[Any], num_warm: int, num_steps: int, profiler: Any = None
    ) -> None:
        self.batches, self.num_warm, self.num_steps = batches, num_warm, num_steps
        self.profiler = profiler
        self.moments: list[float] = []

    def __len__(self) -> int:
        return self.num_warm + self.num_steps + 2

    def __iter__(self) -> Iterator[Any]:
        for index in range(len(self)):
            if index == self.num_warm + self.num_steps and self.profiler is not None:
                self.profiler.stop()
            if index in (self.num_warm, self.num_warm + self.num_steps):
                wait()
                self.moments.append(time.perf_counter())
            if index == self.num_warm and self.profiler is not None:
                self.profiler.start()
            yield self.batches[index % len(self.batches)]

    def seconds(self) -> float:
        """Return seconds a counted step."""
        began, ended = self.moments
        return (ended - began) / self.num_steps


@dataclass(frozen=True)
class Case:
    """What everybody trains in one contest.

    Attributes:
        template: the initial weights, on the host.
        batches: host batches.
        batch_size: samples in each.
        num_warm: steps before the clock runs: compiling, recording, work space.
        num_steps: steps that are timed.
        profiler: of the steps that are timed.
    """

    template: nn.Module
    batches: list[Any]
    batch_size: int
    num_warm: int
    num_steps: int
    profiler: Any = None

    def model(self) -> nn.Module:
        """Return a copy with the initial weights, on the device, in train mode."""
        return copy.deepcopy(self.template).to(device()).train()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the fused optimizer that everybody uses."""
        return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)

    def clocked(self) -> Clocked:
        """Return the batches with a fresh clock."""
        return Clocked(self.batches, self.num_warm, self.num_steps, self.profiler)


def flops_of(case: Case) -> int:
    """Return floating-point operations of one forward and backward pass, counted.

    On the meta device: that takes no memory, and a large batch would take dozens of GB.
    """
    from torch.utils.flop_counter import FlopCounterMode

    template: Any = case.template
    with torch.device("meta"):
        model = type(template)(template.config).train()
    batch = {name: value.to("meta") for name, value in case.batches[0].items()}
    with FlopCounterMode(display=False) as counter:
        model(**batch).loss.backward()
    return int(counter.get_total_flops())


def union(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return spans (begin, end) without overlaps, in order."""
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def length(spans: list[tuple[float, float]]) -> float:
    """Return the time that spans without overlaps cover."""
    return sum(end - begin for begin, end in spans)


def common(ones: list[tuple[float, float]], others: list[tuple[float, float]]) -> float:
    """Return the time that both cover; neither overlaps itself."""
    return length(ones) + length(others) - length(union([*ones, *others]))


def state(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights on the host."""
    return {name: value.cpu() for name, value in model.state_dict().items()}
