"""Build a small Idefics3 and its processor from nothing: no download, one seed.

A picture becomes one token per patch, texts byte-level pairs learnt from the rows. The
widths and initialisers are for training from scratch in a minute on one core.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trainbus_models.sizes import check_sizes, fresh_weights
from training.errors import ConfigError

__all__ = ["build_chat"]

SPECIAL_TOKENS = [
    *("<pad>", "<s>", "</s>", "<image>", "<fake_token_around_image>", "<global-img>"),
    "<end_of_utterance>",
]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def build_chat(
    texts: Iterable[str],
    *,
    hidden_size: int,
    vision_layers: int,
    text_layers: int,
    num_attention_heads: int,
    patch_size: int,
    image_size: int,
    vocab_size: int,
    max_text_length: int,
    initializer_range: float,
    seed: int,
) -> tuple[Any, Any]:
    """Return an Idefics3ForConditionalGeneration, in eval mode, and its processor.

    The vocabulary is learnt from ``texts``, which are what users and assistants say;
    all else is as ``Chat.build`` says.

    Raises:
        ConfigError: ``vocab_size`` is too small, or the sizes do not divide.
    """
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    check_sizes(hidden_size, num_attention_heads, image_size, patch_size)
    processor = _build_processor(
        texts, vocab_size, image_size, patch_size, max_text_length
    )
    tokenizer = processor.tokenizer
    shared = {
        "hidden_size": hidden_size,
        "num_attention_heads": num_attention_heads,
        "initializer_range": initializer_range,
    }
    vision = shared | {
        "intermediate_size": 4 * hidden_size,
        "num_hidden_layers": vision_layers,
        "image_size": image_size,
        "patch_size": patch_size,
    }
    text = shared | {
        "model_type": "llama",
        "intermediate_size": 2 * hidden_size,  # of two factors
        "num_hidden_layers": text_layers,
        "num_key_value_heads": num_attention_heads,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": True,
    }
    config = Idefics3Config(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=1,  # the library's 2 would merge four patches into a token
        tie_word_embeddings=True,
    )
    sizes = {"hidden_size": hidden_size, "image_size": image_size}
    with fresh_weights(seed, **sizes, patch_size=patch_size):
        model = Idefics3ForConditionalGeneration(config)
    return model.eval(), processor


def _build_processor(
    texts: Iterable[str],
    vocab_size: int,
    image_size: int,
    patch_size: int,
    max_text_length: int,
) -> Any:
    from transformers import Idefics3Processor, PreTrainedTokenizerFast
    from transformers.models.idefics3.image_processing_pil_idefics3 import (
        Idefics3ImageProcessorPil,
    )

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_learn_vocabulary(texts, vocab_size),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=SPECIAL_TOKENS[3:],
        model_max_length=max_text_length,
    )
    side = {"longest_edge": image_size}
    pictures = Idefics3ImageProcessorPil(
        size=side, max_image_size=side, do_image_splitting=False
    )
    return Idefics3Processor(
        pictures,
        tokenizer,
        image_seq_len=(image_size // patch_size) ** 2,
        chat_template=TEMPLATE,
    )


def _learn_vocabulary(texts: Iterable[str], vocab_size: int) -> Any:
    """Return a byte-level BPE tokenizer, which gives every text back letter by letter.

    Of its trainer's pairs that are alike in frequency the first in the vocabulary is
    merged, so that the same texts give the same tokens in every process.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    letters = pre_tokenizers.ByteLevel.alphabet()
    least = len(letters) + len(SPECIAL_TOKENS)
    if vocab_size < least:
        raise ConfigError(
            f"vocab_size is {vocab_size}, but bytes and special tokens take {least}; "
            f"write vocab_size: {least}, or more to hold whole words"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(letters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
