"""Build a small BLIP and its processor from nothing: no download, one seed.

The widths and initialisers are for training from scratch in a minute on one core; the
real thing comes from ``load_model``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from trainbus_models.sizes import check_sizes, fresh_weights
from training.errors import ConfigError

__all__ = ["build_blip"]

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"]


def build_blip(
    texts: Iterable[str],
    *,
    hidden_size: int = 64,
    vision_layers: int = 1,
    text_layers: int = 1,
    patch_size: int = 16,
    image_size: int = 64,
    vocab_size: int = 512,
    num_attention_heads: int = 4,
    max_text_length: int = 64,
    initializer_range: float = 0.08,
    dropout: float = 0.0,
    label_smoothing: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Return ``{"model": BlipVQA, "processor": BlipProcessor}`` with random weights.

    The vocabulary is learnt from ``texts``, which are questions and answers; all else
    is as ``Blip.build`` says. The global random state is left as it was.

    Raises:
        ConfigError: the sizes do not divide or are too large for this machine, or
            ``texts`` is empty.
    """
    from trainbus_models.blip.model import BlipVQA

    check_sizes(hidden_size, num_attention_heads, image_size, patch_size)
    processor = _build_processor(texts, vocab_size, image_size, max_text_length)
    shared = {
        "hidden_size": hidden_size,
        "intermediate_size": 4 * hidden_size,
        "num_attention_heads": num_attention_heads,
        "projection_dim": hidden_size,
        # The library's 0.02 is meant for width 768; its 1e-10 of vision does not train.
        "initializer_range": initializer_range,
    }
    text = shared | {
        "num_hidden_layers": text_layers,
        "max_position_embeddings": max_text_length,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "label_smoothing": label_smoothing,
    }
    vision = shared | {
        "num_hidden_layers": vision_layers,
        "image_size": image_size,
        "patch_size": patch_size,
    }
    config = _build_config(text, vision, processor.tokenizer)
    with fresh_weights(
        seed,
        hidden_size=hidden_size,
        max_text_length=max_text_length,
        image_size=image_size,
        patch_size=patch_size,
    ):
        model = BlipVQA(config)
    return {"model": model, "processor": processor}


def _build_config(text: dict[str, Any], vision: dict[str, Any], tokenizer: Any) -> Any:
    from transformers import BlipConfig

    # The library's default token ids are those of the hub's vocabulary of 30,524.
    ids = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return BlipConfig(
        text_config=text | ids,
        vision_config=vision,
        projection_dim=text["hidden_size"],
        image_text_hidden_size=text["hidden_size"],
        initializer_range=text["initializer_range"],
    )


def _build_processor(
    texts: Iterable[str], vocab_size: int, image_size: int, max_length: int
) -> Any:
    """Learn a lower-case WordPiece vocabulary and wrap it as a BLIP processor."""
    from transformers import BertTokenizer, BlipProcessor

    tokenizer = BertTokenizer(
        vocab=_learn_vocabulary(texts, vocab_size),
        bos_token="[DEC]",
        additional_special_tokens=["[ENC]"],
        model_max_length=max_length,
    )
    size = {"height": image_size, "width": image_size}
    return BlipProcessor(_image_processor_class()(size=size), tokenizer)


def _image_processor_class() -> Any:
    """Return the Pillow backend, so that torchvision changes no pixel."""
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    return BlipImageProcessorPil


def _learn_vocabulary(texts: Iterable[str], vocab_size: int) -> dict[str, int]:
    """Return word piece -> id: specials, letters, then whole words by frequency.

    The tokenizers library's own trainer breaks ties by hash order and so gives another
    vocabulary in every process; this one depends on the texts alone.
    """
    words = _count_words(texts)
    letters = sorted({letter for word in words for letter in word})
    pieces = SPECIAL_TOKENS + letters + [f"##{letter}" for letter in letters]
    if len(pieces) > vocab_size:
        raise ConfigError(
            f"vocab_size is {vocab_size}, but special tokens and the single letters of "
            f"the texts take {len(pieces)}; write vocab_size: {len(pieces)}, or more "
            "to hold whole words"
        )
    known = set(pieces)
    by_frequency = sorted(words, key=lambda word: (-words[word], word))
    pieces += [word for word in by_frequency if word not in known]
    return {piece: index for index, piece in enumerate(pieces[:vocab_size])}


def _count_words(texts: Iterable[str]) -> Counter[str]:
    """Count words as the tokenizer will split them: lower case, accents stripped."""
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normalizer, splitter = BertNormalizer(), BertPreTokenizer()
    words: Counter[str] = Counter()
    for text, count in Counter(texts).items():
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)):
            words[word] += count
    if not words:
        raise ConfigError("build_blip got no texts to learn a vocabulary from")
    return words
