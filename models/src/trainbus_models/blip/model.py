"""BLIP for visual question answering, with the question mask honoured throughout.

transformers 5.23 drops the cross-attention mask: ``BlipTextLayer`` hands it over as
``attention_mask`` while the attention reads ``encoder_attention_mask``, so the answer
decoder looks at the question's padding and an answer may depend on what else is in its
batch; ``generate`` moreover uses an all-ones mask. ``BlipVQA`` repairs both, and builds
every mask on the model's own device without making the host wait for it.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from transformers import BlipForQuestionAnswering
from transformers.models.blip.modeling_blip import BlipTextVisionModelOutput
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention

from training.errors import ConfigError

__all__ = ["BlipVQA"]


class _MaskedCrossAttention(BlipTextSelfAttention):  # type: ignore[misc]
    """The library's cross-attention, reading its mask from where the layer puts it."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Attend from (B, T, H) to (B, S, H); the mask is additive, (B, 1, 1, S)."""
        if encoder_attention_mask is None:
            encoder_attention_mask = attention_mask
        return super().forward(
            hidden_states,
            attention_mask=attention_mask,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            **kwargs,
        )


class BlipVQA(BlipForQuestionAnswering):  # type: ignore[misc]
    """``BlipForQuestionAnswering`` whose answers do not depend on padding.

    Weights, configuration and saved folders are those of the library's class.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for stack in (self.text_encoder, self.text_decoder.bert):
            for layer in stack.encoder.layer:
                # The class, not a hook: it survives deepcopy, pickling and compiling.
                layer.crossattention.self.__class__ = _MaskedCrossAttention

    @property
    def max_text_tokens(self) -> int:
        """Most tokens of a question, and of an answer with its start token."""
        return int(self.config.text_config.max_position_embeddings)

    @property
    def image_size(self) -> int:
        """Side of the square images, in pixels."""
        return int(self.config.vision_config.image_size)

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Return the mean loss over the label tokens that are not -100.

        Args:
            input_ids: question tokens (B, Q), int64.
            pixel_values: normalised images (B, 3, H, W).
            decoder_input_ids: answer tokens (B, A) that start with [DEC].
            decoder_attention_mask: 1 where an answer token is real, (B, A).
            attention_mask: 1 where a question token is real, (B, Q).
            labels: answer tokens (B, A), -100 at padding; shifted by one inside.
            interpolate_pos_encoding: allow images of another size than configured.
            **kwargs: further arguments of the library's answer decoder.
        Raises:
            ValueError: ``decoder_input_ids`` is missing; without it the library would
                feed labels, -100 included, to the decoder.
        """
        if decoder_input_ids is None:
            raise ValueError(
                "decoder_input_ids is missing: pass the answer's tokens with [DEC] "
                "first, and labels with -100 at padding, or call generate()"
            )
        image_embeds = self._see(pixel_values, interpolate_pos_encoding)
        question_embeds = self._read(input_ids, attention_mask, image_embeds)
        dtype = question_embeds.dtype
        answer = self.text_decoder(
            input_ids=decoder_input_ids,
            attention_mask=_causal(decoder_input_ids, decoder_attention_mask, dtype),
            encoder_hidden_states=question_embeds,
            encoder_attention_mask=_additive(attention_mask, dtype),
            labels=labels,
            reduction="mean",
            **kwargs,
        )
        return BlipTextVisionModelOutput(
            loss=answer.loss, image_embeds=image_embeds, last_hidden_state=image_embeds
        )

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        max_new_tokens: int = 10,
        num_beams: int = 1,
        **kwargs: Any,
    ) -> Any:
        """Return answer tokens (B, at most 1 + max_new_tokens), [DEC] first, int64.

        With ``return_dict_in_generate`` the library's mapping that has them.

        Args:
            input_ids: question tokens (B, Q), int64.
            pixel_values: normalised images (B, 3, H, W).
            attention_mask: 1 where a question token is real, (B, Q).
            interpolate_pos_encoding: allow images of another size than configured.
            max_new_tokens: longest answer in tokens, its [SEP] included.
            num_beams: 1 is greedy decoding.
            **kwargs: further arguments of the library's ``generate``.
        Raises:
            ConfigError: the longest answer has more tokens than the model positions.
        """
        text, most = self.config.text_config, self.max_text_tokens
        if max_new_tokens > most:
            raise ConfigError(
                f"max_new_tokens is {max_new_tokens}, but this model has positions for "
                f"{most} tokens; use at most {most}"
            )
        image_embeds = self._see(pixel_values, interpolate_pos_encoding)
        question_embeds = self._read(input_ids, attention_mask, image_embeds)
        start = input_ids.new_full((len(input_ids), 1), self.decoder_start_token_id)
        kwargs.setdefault("do_sample", False)
        return self.text_decoder.generate(
            input_ids=start,
            attention_mask=torch.ones_like(start),
            eos_token_id=text.sep_token_id,
            pad_token_id=text.pad_token_id,
            encoder_hidden_states=question_embeds,
            encoder_attention_mask=_additive(attention_mask, question_embeds.dtype),
            max_new_tokens=max_new_tokens,
            num_beams=num_beams,
            **kwargs,
        )

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kw: Any) -> Any:
        """Write a folder that plain transformers loads as its own class."""
        result = super().save_pretrained(save_directory, **kw)
        # The library wrote this subclass's name, which it could not find again.
        self.config.architectures = ["BlipForQuestionAnswering"]
        self.config.save_pretrained(save_directory)
        return result

    def _see(self, pixel_values: Tensor, interpolate: bool) -> Tensor:
        """Return image tokens (B, 1 + patches, H)."""
        size = self.config.vision_config.image_size
        if not interpolate and tuple(pixel_values.shape[-2:]) != (size, size):
            # The library accepts a smaller image silently, with wrong positions.
            raise ValueError(
                f"pixel_values is {tuple(pixel_values.shape)}, but this model was "
                f"built for {size} x {size} pixels; set data.image_size to {size}, or "
                "pass interpolate_pos_encoding=True"
            )
        return self.vision_model(  # type: ignore[no-any-return]
            pixel_values=pixel_values, interpolate_pos_encoding=interpolate
        ).last_hidden_state

    def _read(self, input_ids: Tensor, mask: Tensor | None, image: Tensor) -> Tensor:
        """Return question tokens that have looked at the image, (B, Q, H)."""
        # No image mask: every image token is real, and the library would build one on
        # the CPU whatever the model's device.
        return self.text_encoder(  # type: ignore[no-any-return]
            input_ids=input_ids,
            attention_mask=_additive(mask, image.dtype),
            encoder_hidden_states=image,
        ).last_hidden_state


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Turn 1/0 (B, S) into 0/most negative (B, 1, 1, S), which the library keeps.

    Handed a (B, S) mask the library asks whether it is all ones: a wait for the device.
    """
    if mask is None:
        return None
    masked = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return masked.masked_fill(mask == 0, torch.finfo(dtype).min)[:, None, None, :]


def _causal(ids: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return the additive mask (B, 1, A, A) of a decoder reading left to right."""
    length = ids.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    if mask is not None:
        seen = seen & (mask != 0)[:, None, None, :]
    else:
        seen = seen.expand(len(ids), 1, length, length)
    # A left-padded row sees nothing; it then attends evenly and its label is -100.
    empty = torch.zeros(seen.shape, dtype=dtype, device=ids.device)
    return empty.masked_fill(~seen, torch.finfo(dtype).min)
