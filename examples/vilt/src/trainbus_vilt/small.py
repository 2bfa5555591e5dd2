"""A small ViLT from nothing, to try things out with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

__all__ = ["small_model", "small_processor"]

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def small_processor(
    texts: Iterable[str], vocab_size: int, image_size: int, patch_size: int
) -> Any:
    """Return a processor whose words are the most frequent letters and words."""
    from collections import Counter

    from transformers import BertTokenizer, ViltProcessor
    from transformers.models.vilt.image_processing_pil_vilt import (
        ViltImageProcessorPil,
    )

    words = Counter(word for text in texts for word in _words(text))
    letters = sorted({letter for word in words for letter in word})
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    common = sorted(words, key=lambda word: (-words[word], word))
    pieces += [word for word in common if word not in set(pieces)]
    vocabulary = {piece: number for number, piece in enumerate(pieces[:vocab_size])}
    pictures = ViltImageProcessorPil(
        size={"shortest_edge": image_size}, size_divisor=patch_size
    )
    return ViltProcessor(pictures, BertTokenizer(vocab=vocabulary))


def small_model(tokenizer: Any, answers: Sequence[str], seed: int, **sizes: Any) -> Any:
    """Return a model in eval mode that chooses among ``answers``."""
    from transformers import ViltConfig

    from trainbus_vilt.model import ViltVQA

    config = ViltConfig(
        vocab_size=len(tokenizer),
        intermediate_size=4 * sizes["hidden_size"],
        num_attention_heads=4,
        initializer_range=0.08,  # the library's 0.02 is meant for width 768
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_image_length=-1,  # otherwise it looks at some patches, chosen by chance
        id2label=dict(enumerate(answers)),
        label2id={answer: number for number, answer in enumerate(answers)},
        **sizes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ViltVQA(config).eval()


def _words(text: str) -> list[str]:
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    clean = BertNormalizer().normalize_str(text)
    return [word for word, _ in BertPreTokenizer().pre_tokenize_str(clean)]
